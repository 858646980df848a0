"""Drops what of the ledger and its sums is older than is kept: whole partitions, one replica at a time, each drop
audited."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, date, datetime

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import Unavailable
from forebay.metrics import Metrics
from forebay_admin.audit.audit_store import Act, Interface, record
from forebay_admin.ledger.partitions import LEDGER, Partitioned, beginning, drop_partition, droppable, partitions_of
from forebay_admin.ledger.retention import Keeping, keep_from
from forebay_admin.ledger.rollup_store import LEDGER_WORD, SUMS, standing
from forebay_admin.ledger.usage_sums import Source, Span
from forebay_admin.quotas.quota_store import read_budgets
from forebay_admin.tables import usage_kept

log = logging.getLogger(__name__)

_EVERY_S = 3600.0
_LOCK = 0x464F5248  # any number; every admin replica uses this one
_LOCK_WAIT = "3s"
"""Whoever drops a partition waits for those who use the table, and others wait behind it: rather later than that."""
_KINDS: Mapping[Source, Partitioned] = {None: LEDGER, **{span: SUMS[span] for span in Span}}


class LedgerKeeping:
    def __init__(self, database: Database, keeping: Keeping, clock: Clock, metrics: Metrics) -> None:
        self._database = database
        self._keeping = keeping
        self._clock = clock
        self._dropped = metrics.counter(
            "forebay_admin_usage_partitions_dropped",
            "Partitions of the ledger and its sums dropped as too old.",
            ("table",),
        )

    async def keep(self) -> None:
        """For ever."""
        while True:
            try:
                await self.drop_old()
            except (Unavailable, DBAPIError) as error:  # the rest of admin goes on whatever Postgres says to this
                log.warning("old usage not dropped", extra={"action": "usage_drop", "why": str(error)})
            await asyncio.sleep(_EVERY_S)

    async def drop_old(self) -> None:
        """Once. Raises Unavailable."""
        while await self._drop_one():
            pass

    async def _drop_one(self) -> bool:
        """The oldest that may go. False: there is none, or another replica does it."""
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        async with self._database.writing() as connection:
            if not await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}):
                return False
            await connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'"))
            for what, first in (await self._keep_from(connection, now)).items():
                of = _KINDS[what]
                for partition in droppable(await partitions_of(connection, of), of.length, first):
                    await self._drop(connection, what, partition, now)
                    self._dropped.child(of.table).value += 1
                    return True
        return False

    async def _keep_from(self, connection: AsyncConnection, now: datetime) -> dict[Source, date]:
        touched = (await standing(connection)).touched
        budgets = [budget for some in (await read_budgets(connection)).values() for budget in some]
        return dict(
            keep_from(
                self._keeping,
                now.date(),
                [at for some in touched.values() for at in some],
                [budget.counted_from(now) for budget in budgets],
            )
        )

    async def _drop(self, connection: AsyncConnection, what: Source, partition: date, now: datetime) -> None:
        of = _KINDS[what]
        since = beginning(of.length.after(partition))
        # What it was is told by then, whoever asks: sums are made of what is left, and questions go by what is kept.
        word = LEDGER_WORD if what is None else Span(what).value
        statement = insert(usage_kept).values(what=word, since=since)
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=["what"],
                set_={"since": since},
                where=usage_kept.c.since < since,
            )
        )
        await drop_partition(connection, of, partition)
        act = Act(
            "forebay",
            "usage.drop",
            of.table,
            interface=Interface.SCHEDULE,
            before={"from": str(partition)},
            after={"kept_from": str(since.date())},
        )
        await record(connection, act, now)
        log.info("old usage dropped", extra={"action": "usage_drop", "table": of.table, "from": str(partition)})
