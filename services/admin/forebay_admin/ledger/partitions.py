"""Partitions of the ledger and its sums: made before something needs them, and dropped whole."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.tables import SCHEMA

log = logging.getLogger(__name__)

_LOCK = 0x464F5245  # any number; every admin replica uses this one


class Length(Enum):
    """Of the time in one partition."""

    DAY = "%Y%m%d"
    MONTH = "%Y%m"
    YEAR = "%Y"

    def first(self, day: date) -> date:
        if self is Length.DAY:
            return day
        return day.replace(day=1) if self is Length.MONTH else day.replace(month=1, day=1)

    def after(self, first: date) -> date:
        if self is Length.DAY:
            return first + timedelta(days=1)
        return self.first(first + timedelta(days=32 if self is Length.MONTH else 366))


def droppable(partitions: Sequence[date], length: Length, first: date) -> list[date]:
    """Those that end before the first day that is kept."""
    return [one for one in partitions if length.after(one) <= first]


@dataclass(frozen=True, slots=True)
class Partitioned:
    table: str
    length: Length


LEDGER = Partitioned("usage_ledger", Length.DAY)


async def make_partitions(connection: AsyncConnection, of: Partitioned, days: Iterable[date]) -> None:
    """Those in which the days lie, where they are not there yet. In the transaction of the connection."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    for first in sorted({of.length.first(day) for day in days}):
        await _make(connection, of, first)


async def partitions_of(connection: AsyncConnection, of: Partitioned) -> list[date]:
    """The first day of each."""
    names = await connection.scalars(
        text(
            "SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid "
            "WHERE inhparent = CAST(:parent AS regclass)"
        ),
        {"parent": f"{SCHEMA}.{of.table}"},
    )
    words = [name.removeprefix(f"{of.table}_") for name in names]
    return sorted(datetime.strptime(word, of.length.value).replace(tzinfo=UTC).date() for word in words)


async def drop_partition(connection: AsyncConnection, of: Partitioned, first: date) -> None:
    """Waits for those who read any of the table; whoever comes later waits for it."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    await connection.execute(text(f"DROP TABLE IF EXISTS {SCHEMA}.{_name(of, first)}"))


def beginning(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


async def _make(connection: AsyncConnection, of: Partitioned, first: date) -> None:
    name = _name(of, first)
    if await connection.scalar(text("SELECT to_regclass(:name)"), {"name": f"{SCHEMA}.{name}"}) is not None:
        return
    # Made first and attached then: attaching does not shut out those who read and write the other partitions.
    await connection.execute(
        text(f"CREATE TABLE {SCHEMA}.{name} (LIKE {SCHEMA}.{of.table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    )
    is_by_day = of == LEDGER
    since, until = (f"{day}" if is_by_day else f"{beginning(day)}" for day in (first, of.length.after(first)))
    await connection.execute(
        text(
            f"ALTER TABLE {SCHEMA}.{of.table} ATTACH PARTITION {SCHEMA}.{name} FOR VALUES FROM ('{since}') TO ('{until}')"
        )
    )
    log.info("partition made", extra={"action": "partition_made", "table": of.table, "first": str(first)})


def _name(of: Partitioned, first: date) -> str:
    return f"{of.table}_{first.strftime(of.length.value)}"
