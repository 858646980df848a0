"""Partitions of the tables of history: made before anything needs them, dropped when all in them is too old."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_registry.keeping.tables import SCHEMA

log = logging.getLogger(__name__)

DAYS_AHEAD = 3
_LOCK = 0x464F5248
"""Any number; every registry uses this one."""


@dataclass(frozen=True, slots=True)
class Partition:
    table: str
    since: datetime
    until: datetime

    @property
    def name(self) -> str:
        return f"{self.table}_{self.since:%Y%m%d}"


def of_minutes(at: datetime) -> Partition:
    """A day."""
    since = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Partition("history_minutes", since, since + timedelta(days=1))


def of_hours(at: datetime) -> Partition:
    """A month."""
    since = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Partition("history_hours", since, (since + timedelta(days=32)).replace(day=1))


def needed(now: datetime) -> set[Partition]:
    """From yesterday to a few days ahead."""
    days = [now + timedelta(days=d) for d in range(-1, DAYS_AHEAD + 1)]
    return {of_minutes(day) for day in days} | {of_hours(day) for day in days}


async def make(connection: AsyncConnection, wanted: Iterable[Partition]) -> None:
    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    for part in sorted(wanted, key=lambda one: one.name):
        whole, table = f"{SCHEMA}.{part.name}", f"{SCHEMA}.{part.table}"
        if await connection.scalar(text("SELECT to_regclass(:name)"), {"name": whole}) is not None:
            continue
        # Made first and attached then: attaching does not shut out those who read and write the other days.
        await connection.execute(text(f"CREATE TABLE {whole} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"))
        await connection.execute(
            text(
                f"ALTER TABLE {table} ATTACH PARTITION {whole} "
                f"FOR VALUES FROM ('{part.since.isoformat()}') TO ('{part.until.isoformat()}')"
            )
        )
        log.info("history partition made", extra={"action": "partition_made", "partition": part.name})


async def drop(connection: AsyncConnection, table: str, before: datetime) -> int:
    """Those that end before then; how many. It gives up after two seconds when somebody reads for long."""
    await connection.execute(text("SET LOCAL lock_timeout = '2s'"))
    names = await connection.scalars(
        text(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = CAST(:t AS regclass)"
        ),
        {"t": f"{SCHEMA}.{table}"},
    )
    old = sorted(name for name in names if (ends := _ends(table, name)) is not None and ends <= before)
    for name in old:
        await connection.execute(text(f"DROP TABLE {SCHEMA}.{name}"))
        log.info("history partition dropped", extra={"action": "partition_dropped", "partition": name})
    return len(old)


def _ends(table: str, name: str) -> datetime | None:
    """None of one that was not made here."""
    try:
        begins = datetime.strptime(name.removeprefix(f"{table}_"), "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return (of_minutes if table == "history_minutes" else of_hours)(begins).until
