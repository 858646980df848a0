"""`forebay apply`, `forebay diff` and `forebay fleet`: the fleet as a file, and its versions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

import click
from rich.markup import escape

from forebay.errors import BadInput, NotFound
from forebay.wire.v1 import admin_pb2, fleet_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.fleet_file import FileProblem, FleetFile, read_fleet_file, write_fleet_file
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import Plain, plain
from forebay_admin.cli.words import age

_SIGNS = {
    fleet_pb2.FLEET_CHANGE_KIND_CREATED: "+",
    fleet_pb2.FLEET_CHANGE_KIND_CHANGED: "~",
    fleet_pb2.FLEET_CHANGE_KIND_REMOVED: "-",
}
_FIRST_LABEL = "default"

_file_option = click.option(
    "-f",
    "--file",
    "source",
    type=click.File("r"),
    required=True,
    metavar="FILE",
    help="The fleet file; - is standard input.",
)
_prune_option = click.option(
    "--prune",
    is_flag=True,
    help="What the file does not name is to go: backends, pools, models, and nodes that have no agent.",
)


@click.command(short_help="Make the fleet what a file says.")
@_file_option
@_prune_option
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--renew-keys", is_flag=True, help="Give engines their keys again, also those that have one.")
@json_option
def apply(source: TextIO, prune: bool, dry_run: bool, renew_keys: bool, as_json: bool) -> None:
    """Make the fleet what the YAML file FILE says: all of it, or nothing. The same file again changes nothing.

    \b
    nodes:
      - name: gpu-1
        labels: {rack: a}
    backends:
      - name: big
        url: http://gpu-1:8000
        node: gpu-1
        gpu_indices: [0, 1]
        pool: lab
        bearer_file: big.key        # the engine's own key is in this file, next to this one
    pools:
      - name: lab
        hosts: [lab.example.com]
        required_models: [llama3.1]
        placement: least_loaded
    models:
      - name: llama3.1
        context_length: 131072
        aliases: [gpt-4o]

    An entry is meant whole: a field that it leaves out is as usual afterwards. Two things stay where nothing is said of
    them: how a pool places requests, and the aliases of a model. What the file does not name stays, unless with --prune.

    \b
    forebay apply -f fleet.yaml --dry-run
    forebay apply -f fleet.yaml
    forebay fleet export --version 3 | forebay apply -f - --prune

    With --json: {"version", "changes": [{"kind", "name", "what", "fields": [{"field", "before", "after"}]}], "notes",
    "keys_given", "applied"}
    """
    file = _read(source)
    keys = {name: _key_in(source, path) for name, path in file.key_files.items()}

    async def work(calls: Calls) -> tuple[fleet_pb2.ApplyFleetResponse, list[str]]:
        planned = await _plan(calls, source, file, prune=prune)
        if dry_run:
            return planned, []
        wanting = await _wanting_keys(calls, keys, planned, renew=renew_keys)
        request = fleet_pb2.ApplyFleetRequest(
            wanted=file.spec, prune=prune, base_version=planned.version, with_new_key=sorted(keys)
        )
        done = await calls(calls.stub.ApplyFleet, request)
        _demand_none(source, file, done.problems)
        for name in wanting:
            await _give_key(calls, name, keys[name])
        return done, wanting

    done, given = ask(work)
    if as_json:
        print_json({**_plain(done), "keys_given": given, "applied": not dry_run})
        return
    _print_changes(done.changes)
    _print_notes(done.notes)
    for name in given:
        click.echo(f"The backend {name} has its key.")
    if not done.changes:
        click.echo(f"No changes: the fleet is at version {done.version}.")
    elif dry_run:
        click.echo(f"{_summary(done.changes)} Nothing was changed: the fleet is at version {done.version}.")
    else:
        click.echo(f"{_summary(done.changes)} The fleet is at version {done.version}.")


@click.command(short_help="Show how the fleet differs from a file.")
@_file_option
@_prune_option
@json_option
@click.pass_context
def diff(context: click.Context, source: TextIO, prune: bool, as_json: bool) -> None:
    """Show what `forebay apply` would change, and end with status 1 if that is anything.

    \b
    forebay diff -f fleet.yaml
    forebay diff -f fleet.yaml --prune && echo "the fleet is what the file says"

    With --json: {"version", "changes": [{"kind", "name", "what", "fields"}], "notes"}
    """
    file = _read(source)

    async def work(calls: Calls) -> fleet_pb2.ApplyFleetResponse:
        return await _plan(calls, source, file, prune=prune)

    planned = ask(work)
    if as_json:
        print_json(_plain(planned))
    else:
        _print_changes(planned.changes)
        _print_notes(planned.notes)
        click.echo(_summary(planned.changes) if planned.changes else "No difference.")
    if planned.changes:
        context.exit(1)


@click.group(short_help="The fleet as a file, and its versions.")
def fleet() -> None:
    """The whole fleet that is wanted, as a file, and every version that it had.

    \b
    forebay fleet export > fleet.yaml
    forebay fleet history
    forebay fleet history 7
    """


@fleet.command()
@click.option(
    "--version", type=click.IntRange(min=0), metavar="N", help="As it was at that version. Default: the newest."
)
@json_option
def export(version: int | None, as_json: bool) -> None:
    """Print the fleet as a file that `forebay apply` takes. Engines' keys are not in it. How pools place requests and the
    aliases of models are in the newest version only.

    \b
    forebay fleet export > fleet.yaml
    forebay fleet export --version 3

    With --json: {"version", "fleet": {"nodes", "backends", "pools", "models"}}
    """

    async def work(calls: Calls) -> fleet_pb2.ExportFleetResponse:
        return await calls(calls.stub.ExportFleet, fleet_pb2.ExportFleetRequest(version=version))

    told = ask(work)
    if as_json:
        print_json({"version": told.version, "fleet": plain(told.fleet)})
        return
    click.echo(f"# The fleet at version {told.version}.")
    click.echo(write_fleet_file(told.fleet), nl=False)


@fleet.command()
@click.argument("version", required=False, type=click.IntRange(min=1))
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, newest first.")
@json_option
def history(version: int | None, limit: int, as_json: bool) -> None:
    """List the versions of the fleet: who made each, when, and what it changed; with VERSION, all of that one.

    With --json: a list of {"version", "at", "actor", "changes"}; with VERSION one of them
    """
    request = fleet_pb2.ShowFleetVersionsRequest(limit=limit)
    if version is not None:
        request = fleet_pb2.ShowFleetVersionsRequest(limit=1, before_version=version + 1)

    async def work(calls: Calls) -> fleet_pb2.ShowFleetVersionsResponse:
        return await calls(calls.stub.ShowFleetVersions, request)

    versions = ask(work).versions
    if version is not None:
        _show_version(version, versions, as_json=as_json)
        return
    if as_json:
        print_json([plain(v) for v in versions])
        return
    now = time.time()
    print_table(
        ("Version", "When", "Who", "What"),
        ((str(v.version), age(v.at_us, now), escape(v.actor), escape(_in_short(v.changes))) for v in versions),
        nothing="The fleet has not been changed yet.",
    )


def _show_version(version: int, found: Sequence[fleet_pb2.FleetVersion], *, as_json: bool) -> None:
    if not found or found[0].version != version:
        raise NotFound(f"There is no version {version} of the fleet; see: forebay fleet history")
    if as_json:
        print_json(plain(found[0]))
        return
    click.echo(f"Version {version}, by {found[0].actor}, {age(found[0].at_us, time.time())}:")
    _print_changes(found[0].changes)


# --- the calls ---


async def _plan(calls: Calls, source: TextIO, file: FleetFile, *, prune: bool) -> fleet_pb2.ApplyFleetResponse:
    """What applying it would do. Raises BadInput with every problem, those of its form and those of its meaning."""
    request = fleet_pb2.ApplyFleetRequest(
        wanted=file.spec, prune=prune, dry_run=True, with_new_key=sorted(file.key_files)
    )
    planned = await calls(calls.stub.ApplyFleet, request)
    _demand_none(source, file, planned.problems)
    return planned


async def _wanting_keys(
    calls: Calls, keys: dict[str, str], planned: fleet_pb2.ApplyFleetResponse, *, renew: bool
) -> list[str]:
    """Backends that have no key yet, or none any more when they have moved. Which key one has nobody tells, so that one is
    left alone."""
    if not keys:
        return []
    shown = await calls(calls.stub.ShowBackends, admin_pb2.ShowBackendsRequest())
    held = {backend.name for backend in shown.backends if backend.has_credential}
    moved = {
        change.name
        for change in planned.changes
        if change.kind == "backend" and any(field.field == "url" for field in change.fields)
    }
    return sorted(name for name in keys if renew or name not in held or name in moved)


async def _give_key(calls: Calls, name: str, key: str) -> None:
    listed = await calls(calls.stub.ListBackendCredentials, admin_pb2.ListBackendCredentialsRequest(backend=name))
    is_held = any(one.label == _FIRST_LABEL for one in listed.credentials)
    request = admin_pb2.AddBackendCredentialRequest(backend=name, bearer=key, label=_FIRST_LABEL, replace=is_held)
    await calls(calls.stub.AddBackendCredential, request)


# --- the file ---


def _read(source: TextIO) -> FleetFile:
    try:
        return read_fleet_file(source.read())
    except UnicodeDecodeError as error:
        raise BadInput(f"{source.name} is not text in UTF-8.") from error


def _key_in(source: TextIO, path: str) -> str:
    """Next to the fleet file, where the path does not say otherwise."""
    place = Path(source.name).parent if source.name not in ("-", "<stdin>") else Path()
    try:
        key = (place / path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"The key in {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if not key:
        raise BadInput(f"The key in {path} is empty.")
    return key


def _demand_none(source: TextIO, file: FleetFile, told: Iterable[fleet_pb2.FleetProblem]) -> None:
    known = {problem.path for problem in file.problems}
    others = [FileProblem(one.path, one.why, file.line_of(one.path)) for one in told if one.path not in known]
    problems = sorted((*file.problems, *others), key=lambda problem: problem.line or 0)
    if problems:
        number = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"  {_place(source, problem)}: {problem.why}" for problem in problems]
        raise BadInput("\n".join([f"The fleet file has {number}; nothing was changed.", *lines]))


def _place(source: TextIO, problem: FileProblem) -> str:
    line = f":{problem.line}" if problem.line is not None else ""
    path = "".join(char if char.isprintable() else "?" for char in problem.path)
    return f"{source.name}{line}" + (f" {path}" if path else "")


# --- what people read ---


def _print_changes(changes: Iterable[fleet_pb2.FleetChange]) -> None:
    for change in changes:
        click.echo(f"{_SIGNS.get(change.what, '~')} {change.kind} {change.name}")
        for field in change.fields:
            if change.what == fleet_pb2.FLEET_CHANGE_KIND_CREATED:
                click.echo(f"    {field.field}: {_shown(field.after)}")
            elif change.what == fleet_pb2.FLEET_CHANGE_KIND_CHANGED:
                click.echo(f"    {field.field}: {_shown(field.before)} → {_shown(field.after)}")


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        click.echo(f"Note: {note}")


def _summary(changes: Iterable[fleet_pb2.FleetChange]) -> str:
    kinds = [change.what for change in changes]
    created, changed, removed = (kinds.count(kind) for kind in _SIGNS)
    return f"{created} created, {changed} changed, {removed} removed."


def _in_short(changes: Iterable[fleet_pb2.FleetChange]) -> str:
    told = [f"{_SIGNS.get(change.what, '~')}{change.kind} {change.name}" for change in changes]
    return ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")


def _shown(value: str) -> str:
    """JSON as a person would write it."""
    if not value:
        return "not set"
    read = json.loads(value)
    return read if isinstance(read, str) and read.isprintable() and read else value


def _plain(answer: fleet_pb2.ApplyFleetResponse) -> Plain:
    return {
        "version": answer.version,
        "changes": [_plain_change(change) for change in answer.changes],
        "notes": list(answer.notes),
    }


def _plain_change(change: fleet_pb2.FleetChange) -> Plain:
    fields = [
        {
            "field": field.field,
            "before": json.loads(field.before) if field.before else None,
            "after": json.loads(field.after) if field.after else None,
        }
        for field in change.fields
    ]
    return {**plain(change), "fields": fields}
