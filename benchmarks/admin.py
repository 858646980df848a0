"""Measures admin's targets and tells them truthfully, met or not.

PostgreSQL and NATS are real, and share the machine with whatever else runs there. The ledger of ten million rows that is
asked is made by PostgreSQL itself, which takes most of the time: about twenty minutes in all; `--short`, for CI, asks
one of half a million and takes two. With `--keep DIRECTORY` nothing but questions is measured, and the ledger stays there:
the next time it is asked at once."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import admin_keys, admin_ledger
from benchmarks.targets import Target, tell
from forebay.database import Database, open_database
from forebay.local.postgres import open_postgres
from forebay_admin.service import MIGRATIONS
from forebay_admin.tables import SCHEMA
from tests.conftest import free_port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="measures less of each")
    parser.add_argument(
        "--keep", type=Path, metavar="DIRECTORY", help="measures questions alone, of a ledger that stays there"
    )
    told = parser.parse_args()
    short: bool = told.short
    if told.keep is not None:
        tell("admin", asyncio.run(_ask(told.keep, short=short)))
        return
    # Open to others, for PostgreSQL's unprivileged user when we are root.
    work = Path(tempfile.mkdtemp(prefix="forebay-targets-"))
    work.chmod(0o711)
    try:
        targets = asyncio.run(_measure(work, short=short))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    tell("admin", targets)


async def _measure(work: Path, *, short: bool) -> list[Target]:
    async with open_postgres(
        work / "postgres", secrets=work / "secrets", port=free_port(), log=work / "postgres.log"
    ) as postgres:
        targets: list[Target] = []
        async with _database(postgres.superuser_url, "sink") as (database, _):
            targets += await admin_ledger.measure_sink(database, work, rows=100_000 if short else 600_000)
        async with _database(postgres.superuser_url, "keys") as database:
            url = f"{postgres.superuser_url.rpartition('/')[0]}/keys"
            targets += await admin_keys.measure_keys(url, work, keys=100_000, revocations=50 if short else 300)
        async with _database(postgres.superuser_url, "usage") as (database, url):
            targets += await admin_ledger.measure_queries(database, url, rows=500_000 if short else 10_000_000)
        return targets


async def _ask(place: Path, *, short: bool) -> list[Target]:
    rows = 500_000 if short else 10_000_000
    place.mkdir(mode=0o711, parents=True, exist_ok=True)
    async with (
        open_postgres(
            place / "postgres", secrets=place / "secrets", port=free_port(), log=place / "postgres.log"
        ) as postgres,
        _database(postgres.superuser_url, f"usage{rows}") as (database, url),
    ):
        return await admin_ledger.measure_queries(database, url, rows=rows)


@asynccontextmanager
async def _database(server: str, name: str) -> AsyncIterator[tuple[Database, str]]:
    """One of its own, with admin's tables in it, and its address; made where it is not there."""
    connection = await asyncpg.connect(server)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    url = f"{server.rpartition('/')[0]}/{name}"
    async with open_database(url, SCHEMA) as database:
        await database.migrate(MIGRATIONS)
        yield database, url


if __name__ == "__main__":
    main()
