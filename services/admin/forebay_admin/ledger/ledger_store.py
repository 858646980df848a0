"""The usage ledger in Postgres: rows in partitions of one day each, the first row of a ledger id wins, and what cannot be a
row goes to the dead letters.

Writing copies the rows straight into the table, which is the fast way and the usual one. COPY knows no ON CONFLICT: when a
row is there already (a message that came again), the batch is staged and inserted from there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database
from forebay.errors import Unavailable
from forebay_admin.ledger.partitions import LEDGER, make_partitions
from forebay_admin.ledger.rollup_store import touch
from forebay_admin.ledger.usage_rows import LedgerRow, Poison
from forebay_admin.tables import SCHEMA, dead_letters

log = logging.getLogger(__name__)

AHEAD = 3
"""Days for which partitions are made before anything needs them."""

_LEDGER = LEDGER.table
_COLUMNS = LedgerRow._fields
_STAGE = "incoming_usage"
_REFUSED = (asyncpg.DataError, ValueError, OverflowError)
"""What Postgres, or the driver before it, says of a value that no column takes."""


@dataclass(frozen=True, slots=True)
class Written:
    rows: int
    duplicates: int
    """Rows whose ledger id was there already."""
    dead_letters: int
    new: Sequence[LedgerRow] = field(default=(), compare=False, repr=False)
    """Those that were entered."""


Charge = Callable[[AsyncConnection, Sequence[LedgerRow]], Awaitable[None]]
"""Done for rows that are new, in the transaction that enters them."""


async def _charge_nobody(connection: AsyncConnection, rows: Sequence[LedgerRow]) -> None:
    return


class LedgerStore:
    def __init__(self, database: Database, charge: Charge = _charge_nobody) -> None:
        self._database = database
        self._charge = charge
        self._partitions: set[date] = set()

    async def write(self, rows: Sequence[LedgerRow], poison: Sequence[Poison]) -> Written:
        """All of it in one transaction; when this returns it is on disk. Raises Unavailable, and then it may or may not be
        there: writing it again does no harm."""
        with _not_now():
            return await self._write(rows, poison)

    async def prepare_days(self, today: date) -> None:
        """Makes the partitions from yesterday to a few days ahead. Raises Unavailable."""
        with _not_now():
            await self._ensure_partitions({today + timedelta(days=d) for d in range(-1, AHEAD + 1)})

    async def _write(self, rows: Sequence[LedgerRow], poison: Sequence[Poison]) -> Written:
        fresh = rows
        if len({row.ledger_id for row in rows}) < len(rows):
            fresh = list({row.ledger_id: row for row in reversed(rows)}.values())[::-1]
        try:
            added = await self._add(fresh, poison)
        except _REFUSED as error:
            log.warning("a row is refused, finding it", extra={"action": "ledger_refused", "why": str(error)})
            return await self._one_by_one(fresh, poison, len(rows))
        return Written(len(added), len(rows) - len(added), len(poison), added)

    async def _add(self, rows: Sequence[LedgerRow], poison: Sequence[Poison]) -> Sequence[LedgerRow]:
        """Those that were new."""
        await self._ensure_partitions({row.day for row in rows})
        try:
            await self._copy(rows, poison)
            return rows
        except asyncpg.UniqueViolationError:
            return await self._insert(rows, poison)
        except asyncpg.CheckViolationError:  # a partition that we knew is gone: somebody dropped an old day
            self._partitions.clear()
            await self._ensure_partitions({row.day for row in rows})
            return await self._insert(rows, poison)

    async def _copy(self, rows: Sequence[LedgerRow], poison: Sequence[Poison]) -> None:
        async with self._database.writing() as connection:
            await self._keep_dead_letters(connection, poison)
            driver = await _driver(connection)
            await driver.copy_records_to_table(_LEDGER, schema_name=SCHEMA, columns=_COLUMNS, records=rows)
            await touch(connection, _minutes(rows))
            await self._charge(connection, rows)

    async def _insert(self, rows: Sequence[LedgerRow], poison: Sequence[Poison]) -> Sequence[LedgerRow]:
        async with self._database.writing() as connection:
            await self._keep_dead_letters(connection, poison)
            driver = await _driver(connection)
            await driver.execute(
                f"CREATE TEMPORARY TABLE {_STAGE} (LIKE {SCHEMA}.{_LEDGER} INCLUDING DEFAULTS) ON COMMIT DROP"
            )
            await driver.copy_records_to_table(_STAGE, columns=_COLUMNS, records=rows)
            names = ", ".join(_COLUMNS)
            entered = await driver.fetch(
                f"INSERT INTO {SCHEMA}.{_LEDGER} ({names}) SELECT {names} FROM {_STAGE} ON CONFLICT DO NOTHING "
                "RETURNING ledger_id"
            )
            ids = {record["ledger_id"] for record in entered}
            new = [row for row in rows if row.ledger_id in ids]
            await touch(connection, _minutes(new))
            await self._charge(connection, new)
        return new

    async def _one_by_one(self, rows: Sequence[LedgerRow], poison: Sequence[Poison], came: int) -> Written:
        """The slow way, for a batch in which Postgres refuses a row that parsed: that one becomes a dead letter."""
        added: list[LedgerRow] = []
        letters = list(poison)
        for row in rows:
            try:
                added += await self._insert([row], ())
            except _REFUSED as error:
                payload = repr(row).encode(errors="backslashreplace")
                letters.append(Poison("row", payload, f"refused by PostgreSQL: {error}"))
        async with self._database.writing() as connection:
            await self._keep_dead_letters(connection, letters)
        refused = len(letters) - len(poison)
        return Written(len(added), came - len(added) - refused, len(letters), added)

    async def _keep_dead_letters(self, connection: AsyncConnection, poison: Sequence[Poison]) -> None:
        # Said in each transaction, since a role may have been given another default: the acknowledgement that follows
        # promises that these rows survive.
        await connection.execute(text("SET LOCAL synchronous_commit = on"))
        for letter in poison:
            digest = hashlib.sha256(letter.subject.encode() + b"\0" + letter.payload).digest()
            await connection.execute(
                insert(dead_letters)
                .values(digest=digest, subject=letter.subject, payload=letter.payload, why=letter.why)
                .on_conflict_do_nothing()
            )

    async def _ensure_partitions(self, days: Iterable[date]) -> None:
        missing = sorted(set(days) - self._partitions)
        if not missing:
            return
        async with self._database.writing() as connection:
            await make_partitions(connection, LEDGER, missing)
        self._partitions.update(missing)


@contextmanager
def _not_now() -> Iterator[None]:
    """What Postgres refuses for reasons that are not the row's (a full disk, a deadlock, a missing right) may pass: the
    message waits on the bus until it has, and the log says what it waits for."""
    try:
        yield
    except (asyncpg.PostgresError, DBAPIError) as error:
        log.error("the ledger cannot be written", extra={"action": "ledger_stuck", "why": str(error)})
        raise Unavailable(f"PostgreSQL refuses to write the ledger: {error}") from error


def _minutes(rows: Iterable[LedgerRow]) -> set[datetime]:
    return {row.started_at.replace(second=0, microsecond=0) for row in rows}


async def _driver(connection: AsyncConnection) -> Any:
    """asyncpg's own connection, for COPY. SQLAlchemy has begun the transaction on it with the statement before."""
    return (await connection.get_raw_connection()).driver_connection
