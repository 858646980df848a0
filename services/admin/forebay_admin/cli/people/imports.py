"""`forebay user import` and `forebay key import`: a file is shown as a plan, confirmed, and then done as a whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import click
from rich.markup import escape

from forebay.errors import BadInput, ForebayError
from forebay.wire.v1 import bulk_pb2
from forebay_admin.bulk.sheet import decoded
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import F, json_option, print_json, print_table
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import count, span
from forebay_admin.row_files import Column, Kind, writer_of

_SHOWN = 50
_STD = "-"
_SECRETS = (
    Column("user", Kind.TEXT),
    Column("name", Kind.TEXT),
    Column("key_id", Kind.TEXT),
    Column("secret", Kind.TEXT),
)

Told = TypeVar("Told", bulk_pb2.ImportUsersResponse, bulk_pb2.ImportKeysResponse)


def _import_options(command: F) -> F:
    for option in (
        json_option,
        click.option("--yes", is_flag=True, help="Do it without asking."),
        click.option("--dry-run", is_flag=True, help="Only show what would be done, line by line."),
        click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE"),
    ):
        command = option(command)
    return command


@click.command("import", short_help="Add the users of a CSV file.")
@_import_options
def import_users(file: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Add the users of the CSV file FILE (- is standard input): all of them, or none. What would be done is shown first.

    \b
    name,group,role
    alice,research,
    dana,research,operator

    Only `name` must be there. A group is made when it is new, and without one a user is in everyone; without a role they are
    members. At most 2,000 lines; a name may not be one that somebody has.

    \b
    forebay user import people.csv --dry-run
    forebay user import people.csv

    With --json: {"users": [{"line", "name", "group", "role"}], "new_groups", "done", …}; it asks nothing, so that it needs
    --dry-run or --yes.
    """
    csv = _read(file)

    async def call(calls: Calls, plan: str) -> bulk_pb2.ImportUsersResponse:
        return await calls(calls.stub.ImportUsers, bulk_pb2.ImportUsersRequest(csv=csv, plan=plan))

    way = _Way(file, dry_run=dry_run, yes=yes, as_json=as_json)
    shown = _asked(way, lambda calls: call(calls, ""))
    if not as_json:
        _print_users(shown, everything=dry_run)
    if dry_run:
        return way.end(plain(shown), "Nothing was changed.")
    way.demand_yes(f"Add {_number(shown.users, 'user')}?")
    done = _asked(way, lambda calls: call(calls, shown.plan))
    return way.end(plain(done), f"{_number(done.users, 'user')} added.")


@click.command("import", short_help="Make the keys of a CSV file.")
@click.option(
    "--secrets",
    metavar="FILE",
    help="Where the new keys are written, as CSV that only you may read; - is standard output. Default: next to FILE.",
)
@_import_options
def import_keys(file: str, secrets: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Make the keys of the CSV file FILE (- is standard input): all of them, or none. What would be done is shown first.

    \b
    user,name,allowed_models,expires_in_days
    alice,laptop,,
    ci,nightly,llama*;qwen*,365

    \b
    user, name           whose it is and what it is called, neither of which may be missing
    allowed_models, denied_models, pool, other_pools, addresses, calls, band_cap, max_output_tokens, max_context_tokens,
    audit, expires_in_days, description, labels (NAME=VALUE)
                         as `forebay key create` has them; several words of a cell have ; between them

    The keys are told this once: they are written to people.secrets.csv for a FILE people.csv, or where --secrets says, which
    must be a new file. A name that a key of that user has already is refused, so that a file is not imported twice.

    \b
    forebay key import keys.csv --dry-run
    forebay key import keys.csv --secrets new-keys.csv

    With --json: {"keys": [{"line", "user", "name", "key_id", …}], "done", "secrets_file", …}; it asks nothing, so that it
    needs --dry-run or --yes.
    """
    csv = _read(file)

    async def call(calls: Calls, plan: str) -> bulk_pb2.ImportKeysResponse:
        return await calls(calls.stub.ImportKeys, bulk_pb2.ImportKeysRequest(csv=csv, plan=plan))

    way = _Way(file, dry_run=dry_run, yes=yes, as_json=as_json)
    shown = _asked(way, lambda calls: call(calls, ""))
    if not as_json and (dry_run or secrets != _STD):
        _print_keys(shown, everything=dry_run)
    if dry_run:
        return way.end(plain(shown), "Nothing was changed.")
    way.demand_yes(f"Make {_number(shown.keys, 'key')}?")
    place = _SecretsPlace(secrets, file)
    with place:
        done = _asked(way, lambda calls: call(calls, shown.plan))
        if as_json and place.is_stdout:
            return way.end(plain(done), "")
        place.write(done.keys)
    told = {**plain(done), "secrets_file": place.name}
    for key in told["keys"]:
        del key["secret"]
    sentence = (
        "" if place.is_stdout else f"{_number(done.keys, 'key')} made. They are in {place.name}, and nowhere else."
    )
    return way.end(told, sentence)


@dataclass(frozen=True, slots=True)
class _Way:
    """How the command was asked for."""

    file: str
    dry_run: bool
    yes: bool
    as_json: bool

    def demand_yes(self, question: str) -> None:
        """Raises BadInput where nobody can be asked."""
        if self.yes:
            return
        if self.as_json or not somebody_is_there() or self.file == _STD:
            raise BadInput("Nobody can be asked here: look at it with --dry-run, then say --yes.")
        click.confirm(question, abort=True)

    def end(self, told: object, sentence: str) -> None:
        if self.as_json:
            print_json(told)
        elif sentence:
            click.echo(sentence)


def somebody_is_there() -> bool:
    """To be asked, at a terminal."""
    return sys.stdin.isatty()


class _SecretsPlace:
    """A new file that only its owner may read, made before the keys are; it is removed again when none were."""

    def __init__(self, asked: str | None, source: str) -> None:
        if asked is None and source == _STD:
            raise BadInput("Say where the new keys are to be written: --secrets FILE, or --secrets - to see them here.")
        self.name = asked or str(Path(source).with_suffix(".secrets.csv"))
        self._file: IO[bytes] | None = None
        self._is_written = False

    def __enter__(self) -> None:
        if self.is_stdout:
            return
        try:
            descriptor = os.open(self.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise BadInput(f"{self.name} is there already; name another file with --secrets.") from error
        except OSError as error:
            raise BadInput(f"{self.name} cannot be written: {error.strerror}.") from error
        self._file = os.fdopen(descriptor, "wb")

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            if not self._is_written:
                Path(self.name).unlink(missing_ok=True)

    @property
    def is_stdout(self) -> bool:
        return self.name == _STD

    def write(self, keys: Sequence[bulk_pb2.PlannedKey]) -> None:
        file = self._file or sys.stdout.buffer
        self._is_written = True
        try:
            writer = writer_of("csv", file, _SECRETS)
            for key in keys:
                writer.write({column.name: getattr(key, column.name) for column in _SECRETS})
            writer.close()
            file.flush()
        except OSError as error:
            raise ForebayError(
                f"The keys were made, and {self.name} could not be written ({error.strerror}): what it lacks is lost. "
                f"Revoke them: {' '.join(key.key_id for key in keys[:20])}{' …' if len(keys) > 20 else ''}"
            ) from error


def _read(file: str) -> str:
    """Raises BadInput."""
    try:
        return decoded(sys.stdin.buffer.read() if file == _STD else Path(file).read_bytes())
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}.") from error


def _asked(way: _Way, work: Callable[[Calls], Awaitable[Told]]) -> Told:
    """Raises BadInput with everything that is wrong with the file."""
    told = ask(work)
    _demand_none(way, told.problems)
    return told


def _demand_none(way: _Way, problems: Sequence[bulk_pb2.ImportProblem]) -> None:
    if problems:
        number = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"  {way.file}{_place(problem)}: {_shown(problem.why)}" for problem in problems]
        raise BadInput("\n".join([f"The file has {number}; nothing was changed.", *lines]))


def _place(problem: bulk_pb2.ImportProblem) -> str:
    return (f":{problem.line}" if problem.line else "") + (f" {_shown(problem.column)}" if problem.column else "")


def _shown(text: str) -> str:
    """Of a file that somebody else wrote, at this terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _print_users(shown: bulk_pb2.ImportUsersResponse, *, everything: bool) -> None:
    few = shown.users if everything else shown.users[:_SHOWN]
    print_table(
        ("Line", "Name", "Group", "Role"),
        ((str(user.line), escape(user.name), escape(user.group), user.role) for user in few),
        nothing="No users.",
    )
    _print_rest(len(shown.users) - len(few))
    if shown.new_groups:
        click.echo(f"New groups: {', '.join(shown.new_groups)}")


def _print_keys(shown: bulk_pb2.ImportKeysResponse, *, everything: bool) -> None:
    few = shown.keys if everything else shown.keys[:_SHOWN]
    print_table(
        ("Line", "User", "Name", "Models", "Band", "Pool", "Expires"),
        (
            (
                str(key.line),
                escape(key.user),
                escape(key.name),
                escape(", ".join(key.allowed_models)) or "all",
                word(key, "band_cap") or "",
                escape(key.pool) or "default",
                f"after {span(key.expires_in_s)}" if key.HasField("expires_in_s") else "never",
            )
            for key in few
        ),
        nothing="No keys.",
    )
    _print_rest(len(shown.keys) - len(few))


def _print_rest(left: int) -> None:
    if left:
        click.echo(f"… and {count(left)} more; --dry-run shows all.")


def _number(some: Sequence[object], what: str) -> str:
    return f"{count(len(some))} {what}{'' if len(some) == 1 else 's'}"
