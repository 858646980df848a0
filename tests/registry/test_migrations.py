"""Upgrades of the registry's schema, as `tests/migration_walk` walks them."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from forebay.database import open_database
from forebay_registry.keeping.store import MIGRATIONS
from tests.migration_walk import Forms, Walk, taken_away

SCHEMA = "registry"
ONE_ROW = frozenset({"fleet_counter", "leadership"})
THINNED = frozenset({"node_samples"})
"""Whose newest of each node 0005 moves elsewhere."""


async def test_every_revision_is_reached_with_rows_of_all_before_it_and_those_still_write(
    postgres_url: str, tmp_path: Path
) -> None:
    walk = Walk(SCHEMA, MIGRATIONS, tmp_path / "migrations", postgres_url, untouched=ONE_ROW)
    before: Forms = {}
    connection = await asyncpg.connect(postgres_url)
    try:
        for revision in walk.revisions:
            await walk.step(revision)
            forms = await walk.forms(connection)
            assert taken_away(before, forms) == set(), revision.stem
            async with connection.transaction():
                await walk.write(connection, before)  # by one that is not upgraded yet
                await walk.write(connection, forms)
            before = forms
        for name, written in walk.rows.items():
            if name in THINNED:
                continue
            assert await connection.fetchval(f"SELECT count(*) FROM {SCHEMA}.{name}") >= written, name
    finally:
        await connection.close()
    async with open_database(postgres_url, SCHEMA) as database:
        await database.migrate(MIGRATIONS)  # nothing is left to do
