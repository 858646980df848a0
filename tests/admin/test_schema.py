"""The tables that queries name are the tables that migrations make; the audit log only grows."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from forebay.database import open_database
from forebay_admin.audit.audit_store import Act, record
from forebay_admin.keys.principal_store import principals_since
from forebay_admin.ledger.usage_rows import LedgerRow
from forebay_admin.service import MIGRATIONS
from forebay_admin.tables import METADATA, SCHEMA


async def test_migrations_make_the_tables_that_queries_name(postgres_url: str) -> None:
    def columns(connection: Connection) -> dict[str, dict[str, tuple[str, bool]]]:
        inspector = inspect(connection)
        names = [name for name in inspector.get_table_names(SCHEMA) if name != "schema_version"]
        return {
            name: {
                c["name"]: (c["type"].compile(connection.dialect), c["nullable"])
                for c in inspector.get_columns(name, SCHEMA)
            }
            for name in names
        }

    async with open_database(postgres_url, SCHEMA) as database:
        await database.migrate(MIGRATIONS)
        await database.migrate(MIGRATIONS)
        async with database.reading() as connection:
            made = await connection.run_sync(columns)
            dialect = connection.dialect
    named = {
        table.name: {c.name: (c.type.compile(dialect), bool(c.nullable)) for c in table.columns}
        for table in METADATA.sorted_tables
    }
    assert made == named


def test_a_ledger_row_has_the_columns_of_the_table() -> None:
    table = METADATA.tables[f"{SCHEMA}.usage_ledger"]
    assert [*LedgerRow._fields, "recorded_at"] == [column.name for column in table.columns]


@pytest.mark.parametrize("change", ["UPDATE admin.audit_log SET actor = 'nobody'", "DELETE FROM admin.audit_log"])
async def test_what_was_audited_stays(postgres_url: str, change: str) -> None:
    async with open_database(postgres_url, SCHEMA) as database:
        await database.migrate(MIGRATIONS)
        async with database.writing() as connection:
            await record(connection, Act("alice", "key.create", "k1"), datetime(2027, 1, 15, tzinfo=UTC))
        with pytest.raises(DBAPIError, match="append-only"):
            async with database.writing() as connection:
                await connection.execute(text(change))
        async with database.reading() as connection:
            assert await connection.scalar(text("SELECT actor FROM admin.audit_log")) == "alice"


async def test_a_replica_of_the_version_before_still_makes_keys_and_they_are_not_cut(postgres_url: str) -> None:
    async with open_database(postgres_url, SCHEMA) as database:
        await database.migrate(MIGRATIONS)
        async with database.writing() as connection:
            for statement in (
                "INSERT INTO admin.groups (id, name, created_at, version) VALUES ('g', 'old', now(), 1)",
                "INSERT INTO admin.users (id, name, group_id, role, created_at, version)"
                " VALUES ('u', 'old', 'g', 'member', now(), 1)",
                "INSERT INTO admin.keys (public_id, name, user_id, secret_hmac, band_cap, created_by, created_at, version)"
                " VALUES ('k', 'old', 'u', decode(repeat('00', 32), 'hex'), 'batch', 'old', now(), 1)",
            ):
                await connection.execute(text(statement))
            assert [p.cut_running for p in await principals_since(connection, 0) if p.key_id == "k"] == [False]
