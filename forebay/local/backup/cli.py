"""`forebay backup` and `forebay restore`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from forebay.errors import BadInput
from forebay.local.backup.archive import Manifest, verify_archive
from forebay.local.backup.making import as_json, make_backup
from forebay.local.backup.restoring import restore_backup, settings_of
from forebay.local.data_dir_option import Folder, data_dir_option
from forebay.local.data_directory import DataDirectory, default_root

_FILE = click.Path(path_type=Path)
_LEAST_PASSPHRASE = 12
_Function = TypeVar("_Function", bound=Callable[..., Any])


class _OrVerify(click.Group):
    """`forebay backup WHERE` makes one; only the words below are verbs."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, "to")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = ["to", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ("-h", "--help"):
            args = ["to", *args]
        return super().parse_args(ctx, args)


def _passphrase_option(help_text: str) -> Callable[[_Function], _Function]:
    return click.option(
        "--passphrase-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help=help_text,
    )


_json = click.option("--json", "as_json_", is_flag=True, help="Answer as JSON.")


@click.group(
    cls=_OrVerify, short_help="Copy all that a Forebay here must not lose into one file.", subcommand_metavar="WHERE"
)
def backup() -> None:
    """Copy all that a Forebay on this machine must not lose into one file: tables, uploaded files, secrets, settings, and
    records that are still on their way. It may run meanwhile; nobody waits for it.

    WHERE is a file, or a folder in which it gets a name with the time in it. `forebay restore` makes a Forebay of it again.

    \b
    forebay backup /mnt/backups
    forebay backup /mnt/backups --passphrase-file /etc/forebay/backup.passphrase
    forebay backup verify /mnt/backups/forebay-20261130T120000Z.backup

    Without a passphrase whoever reads the file has every secret that is in it; it is readable by its owner alone.

    Not in it: models, logs, and files that settings only name, such as certificates of your own.

    `forebay backup to --help` shows the options.
    """


@backup.command("to", short_help="Make one. The word may be left out.")
@click.argument("where")
@data_dir_option
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings file, when another than in use."
)
@_passphrase_option("Seal it under what this file says: at least 12 characters.")
@_json
def make(where: str, data_dir: Path | None, config: Path | None, passphrase_file: Path | None, as_json_: bool) -> None:
    """Make a backup: a file WHERE, or one with the time in its name in the folder WHERE. With a slash at its end WHERE is a
    folder, and made if it is not there yet.

    \b
    forebay backup to /mnt/backups

    With --json: {"file", "made_at", "forebay", "postgres", "streams": {stream: messages}, "sealed", "warnings", "members",
    "bytes", "file_bytes"}.
    """
    console = Console(stderr=True, highlight=False)
    data = DataDirectory((data_dir or default_root()).absolute())
    passphrase = read_passphrase(passphrase_file)
    file, manifest = asyncio.run(
        make_backup(data, _target(where), passphrase=passphrase, config=config, say=_teller(console, as_json_))
    )
    if as_json_:
        click.echo(as_json(file, manifest))
    else:
        size = file.stat().st_size / 1000**2
        click.echo(f"{file}: {len(manifest.members)} files, {size:.1f} MB, of Forebay {manifest.facts['forebay']}.")
    for warning in manifest.facts["warnings"]:
        click.echo(f"Warning: {warning}", err=True)
    if passphrase is None:
        click.echo(
            "It is not sealed: whoever reads it has this Forebay's secrets. Keep it as closed as the data directory, or "
            "give --passphrase-file.",
            err=True,
        )


def _target(where: str) -> Path:
    place = Path(where)
    if where.endswith("/"):
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{where} cannot be made a folder: {error.strerror}.") from error
    return place


@backup.command(short_help="Say whether a backup is what was written.")
@click.argument("file", type=_FILE)
@_passphrase_option("Its passphrase, when it is sealed.")
@_json
def verify(file: Path, passphrase_file: Path | None, as_json_: bool) -> None:
    """Read the whole of a backup and compare each file in it with its digest.

    \b
    forebay backup verify /mnt/backups/forebay-20261130T120000Z.backup

    With --json: as `forebay backup`. Exit status 1: it is damaged.
    """
    manifest = verify_archive(file, read_passphrase(passphrase_file))
    if as_json_:
        click.echo(as_json(file, manifest))
        return
    click.echo(f"{file} is whole: {_told(manifest)}")


@click.command(short_help="Make a Forebay of a backup, in a new data directory.")
@click.argument("file", type=_FILE)
@click.option(
    "--data-dir",
    type=Folder(),
    required=True,
    help="Where everything shall be kept: an empty folder, or one that is not there yet.",
)
@_passphrase_option("Its passphrase, when it is sealed.")
@_json
def restore(file: Path, data_dir: Path, passphrase_file: Path | None, as_json_: bool) -> None:
    """Make a Forebay again from the backup FILE, in a data directory that is empty. Every file is verified first, and
    nothing is left behind if it cannot be finished. Start it with `forebay up --data-dir DIRECTORY`; keys and passwords are
    as before.

    DATABASE_URL names a server of your own, into which the tables then go; they must not be there yet. PostgreSQL may be
    newer than the one that the backup is of, not older. Records that were on their way need the NATS that comes along: with
    NATS_URL set, a backup that has some is refused.

    \b
    forebay restore /mnt/backups/forebay-20261130T120000Z.backup --data-dir /srv/forebay

    With --json: {"data_dir", "config", "made_at", "forebay", "members"}; config is null without a settings file.
    """
    console = Console(stderr=True, highlight=False)
    data, manifest = asyncio.run(
        restore_backup(
            file, data_dir.absolute(), passphrase=read_passphrase(passphrase_file), say=_teller(console, as_json_)
        )
    )
    settings = settings_of(data)
    if as_json_:
        told = {
            "data_dir": str(data.root),
            "config": str(settings) if settings else None,
            "made_at": manifest.facts["made_at"],
            "forebay": manifest.facts["forebay"],
            "members": len(manifest.members),
        }
        click.echo(json.dumps(told, indent=2))
        return
    start = f"forebay up --data-dir {data.root}" + (f" --config {settings}" if settings else "")
    click.echo(f"Restored: {_told(manifest)}\nStart it with: {start}")


def _told(manifest: Manifest) -> str:
    facts = manifest.facts
    return f"{len(manifest.members)} files, made at {facts['made_at']} by Forebay {facts['forebay']}."


def _teller(console: Console, is_quiet: bool) -> Any:
    return (lambda line: None) if is_quiet else lambda line: console.print(f"{line} …", markup=False)


def read_passphrase(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        passphrase = file.read_bytes().strip()
    except OSError as error:
        raise BadInput(f"The passphrase file {file} cannot be read: {error.strerror}.") from error
    if len(passphrase) < _LEAST_PASSPHRASE:
        raise BadInput(f"The passphrase in {file} is shorter than {_LEAST_PASSPHRASE} characters: choose a longer one.")
    return passphrase
