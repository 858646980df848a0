"""`forebay apply` and `forebay diff`: the fleet made what a file says, and how it differs from one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import click

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2, fleet_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.fleet.changes import plain_change, print_changes, summary
from forebay_admin.cli.output import json_option, print_json
from forebay_admin.cli.plain import Plain
from forebay_admin.fleet.fleet_file import FileProblem, FleetFile, read_fleet_file

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
    print_changes(done.changes)
    _print_notes(done.notes)
    for name in given:
        click.echo(f"The backend {name} has its key.")
    if not done.changes:
        click.echo(f"No changes: the fleet is at version {done.version}.")
    elif dry_run:
        click.echo(f"{summary(done.changes)} Nothing was changed: the fleet is at version {done.version}.")
    else:
        click.echo(f"{summary(done.changes)} The fleet is at version {done.version}.")


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
        print_changes(planned.changes)
        _print_notes(planned.notes)
        click.echo(summary(planned.changes) if planned.changes else "No difference.")
    if planned.changes:
        context.exit(1)


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


# --- what people and scripts read ---


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        click.echo(f"Note: {note}")


def _plain(answer: fleet_pb2.ApplyFleetResponse) -> Plain:
    return {
        "version": answer.version,
        "changes": [plain_change(change) for change in answer.changes],
        "notes": list(answer.notes),
    }
