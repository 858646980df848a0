"""Upgrades of admin's schema: from every revision with rows in it, and while the version before still writes.

The version before is told by the schema that it was written for: each of its rows is written again after the upgrade. That
holds for every revision of the chain, in a clone with any depth of history, and of the next migration without anybody
recording anything; what a version means by its rows it cannot tell."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from forebay.database import open_database
from forebay_admin.keys.key_search import KeyWish, find_keys
from forebay_admin.keys.principal_store import principals_since
from forebay_admin.people.people_store import list_users
from forebay_admin.service import MIGRATIONS
from forebay_admin.tables import SCHEMA
from tests.migration_walk import Column, Form, Forms, Walk, taken_away

KNOWN = {
    "0008_provider_credentials": {
        "backend_credentials is not unique by btree (backend_id) any more",  # a backend may have several
    },
}
"""What migrations took away."""
VALUES = {
    "budgets.group_id": "(SELECT id FROM admin.groups ORDER BY ctid DESC LIMIT 1)",  # one of three
    "budgets.user_id": "NULL",
    "budgets.key_id": "NULL",
    "model_rules.kind": "'model'",
    "batch_lines.state": "'done'",
    "batch_lines.ledger_id": "gen_random_uuid()",
    "batch_lines.status_code": "200",
    "batch_lines.answer": "'v'",
    "recording_policies.permille": "1",
    "keys.audit_policy": "'full'",
    "balance_accounts.user_id": "NULL",  # one of two
    "balance_accounts.group_id": "(SELECT id FROM admin.groups ORDER BY ctid DESC LIMIT 1 OFFSET {n} % 2)",
}
"""What fits where more than a type is asked for."""
UNTOUCHED = frozenset({"audit_chain", "usage_kept"})
"""What triggers alone write, and what has four rows at most."""


def form(**columns: Column) -> Forms:
    return {"keys": Form(columns, {}, frozenset(), {}, False)}


NAME, POOL = Column("text", True, False, False), Column("text", False, False, False)


@pytest.mark.parametrize(
    ("after", "taken"),
    [
        (form(name=NAME, pool=POOL), set()),
        (form(name=NAME, pool=POOL, band=Column("text", True, True, False)), set()),
        (form(name=NAME, pool=NAME), {"keys.pool has to be there now"}),
        (form(name=NAME), {"keys.pool is gone or of another type"}),
        (form(name=Column("bytea", True, False, False), pool=POOL), {"keys.name is gone or of another type"}),
        (
            form(name=NAME, pool=POOL, band=NAME),
            {"keys.band has to be there, and the version before does not know it"},
        ),
        ({}, {"keys is gone"}),
    ],
)
def test_what_a_version_before_would_miss_is_named(after: Forms, taken: set[str]) -> None:
    assert taken_away(form(name=NAME, pool=POOL), after) == taken


async def test_every_revision_is_reached_with_rows_of_all_before_it_and_those_still_write(
    postgres_url: str, tmp_path: Path
) -> None:
    walk = Walk(SCHEMA, MIGRATIONS, tmp_path / "migrations", postgres_url, VALUES, UNTOUCHED)
    before: Forms = {}
    taken = {}
    connection = await asyncpg.connect(postgres_url)
    try:
        for revision in walk.revisions:
            await walk.step(revision)
            forms = await walk.forms(connection)
            if lost := taken_away(before, forms):
                taken[revision.stem] = lost
            async with connection.transaction():
                await walk.write(connection, before)  # by a replica that is not upgraded yet
                await walk.write(connection, forms)
            before = forms
        for name, written in walk.rows.items():
            assert await connection.fetchval(f"SELECT count(*) FROM {SCHEMA}.{name}") >= written, name
    finally:
        await connection.close()
    assert taken == KNOWN
    async with open_database(postgres_url, SCHEMA) as database:
        await database.migrate(MIGRATIONS)  # nothing is left to do
        async with database.reading() as connection:
            assert len(await list_users(connection)) == walk.rows["users"]
            found, _ = await find_keys(connection, KeyWish(include_revoked=True))
            assert len(found) == walk.rows["keys"]
            assert {told.key_id for told in await principals_since(connection, 0)} == {key.public_id for key in found}
