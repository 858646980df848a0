"""Takes recordings from the bus, has them redacted and written, and acknowledges them then; drops whole days that are older
than is kept. A message that is no recording is dropped, and counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NoReturn

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from forebay.bus import Bus, Consumer, Delivery
from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import Unavailable
from forebay.metrics import Metrics
from forebay.subjects import RECORDINGS_CONSUMER, RECORDINGS_STREAM
from forebay_admin.audit.audit_store import Act, Interface, record
from forebay_admin.ledger.partitions import Length, drop_partition, droppable, partitions_of
from forebay_admin.recordings.recording_store import RECORDINGS, RecordingStore
from forebay_admin.recordings.redaction import Hook
from forebay_admin.recordings.rows import RecordingRow, parse_batch

log = logging.getLogger(__name__)

_AT_ONCE = 8
_WAIT_S = 1.0
_FIRST_RETRY_S, _LAST_RETRY_S = 0.25, 5.0
_LOOK_S = 3600.0
_LOCK = 0x464F524C  # any number; every admin replica uses this one


class RecordingClerk:
    def __init__(
        self,
        bus: Bus,
        database: Database,
        clock: Clock,
        metrics: Metrics,
        *,
        keep_days: int,
        hooks: Sequence[Hook] = (),
    ) -> None:
        """`keep_days`: 0 is for ever."""
        self._bus = bus
        self._database = database
        self._store = RecordingStore(database)
        self._clock = clock
        self._keep_days = keep_days
        self._hooks = hooks
        kept = metrics.counter("forebay_admin_recordings", "Recordings by what became of them.", ("result",))
        self._written, self._again, self._refused = (kept.child(w) for w in ("written", "duplicate", "refused"))
        self._retry_s = _FIRST_RETRY_S

    async def keep(self) -> None:
        """For ever."""
        while True:
            try:
                await self._bus.wait_connected()
                await self._bus.ensure_stream(RECORDINGS_STREAM)
                await self._read(await self._bus.consumer(RECORDINGS_STREAM, RECORDINGS_CONSUMER))
            except Unavailable as error:
                log.debug("recordings wait", extra={"action": "recordings_wait", "why": error.message})
                await asyncio.sleep(self._retry_s)
                self._retry_s = min(self._retry_s * 2, _LAST_RETRY_S)

    async def keep_young(self) -> None:
        """For ever."""
        while True:
            try:
                await self.drop_old()
            except (Unavailable, DBAPIError) as error:  # the rest of admin goes on whatever Postgres says to this
                log.warning("old recordings not dropped", extra={"action": "recordings_drop", "why": str(error)})
            await asyncio.sleep(_LOOK_S)

    async def drop_old(self) -> None:
        """Once. Raises Unavailable."""
        if not self._keep_days:
            return
        now = self._now()
        first = now.date() - timedelta(days=self._keep_days)
        async with self._database.writing() as connection:
            if not await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}):
                return
            await connection.execute(text("SET LOCAL lock_timeout = '3s'"))
            for day in droppable(await partitions_of(connection, RECORDINGS), Length.DAY, first):
                await drop_partition(connection, RECORDINGS, day)
                act = Act("forebay", "recording.drop", str(day), interface=Interface.SCHEDULE)
                await record(connection, act, now)
                log.info("old recordings dropped", extra={"action": "recordings_drop", "day": str(day)})

    async def _read(self, consumer: Consumer) -> NoReturn:
        while True:
            await self._store.prepare_days(self._now().date())
            deliveries = await consumer.fetch(_AT_ONCE, _WAIT_S)
            if deliveries:
                await self._enter(deliveries)

    async def _enter(self, deliveries: Sequence[Delivery]) -> None:
        rows: list[RecordingRow] = []
        for delivery in deliveries:
            # On a thread: whoever watches for a revocation must not wait for texts to be looked through.
            parsed = await asyncio.to_thread(parse_batch, delivery.payload, self._hooks)
            rows += [row for row in parsed.rows if self._is_of_our_time(row.at.date())]
            for why in parsed.refused:
                log.error("recording dropped", extra={"action": "recording_refused", "why": why})
            self._refused.value += len(parsed.refused)
        fresh = {(row.at, row.ledger_id): row for row in rows}
        try:
            written = await self._write(list(fresh.values()))
        except Unavailable:
            for delivery in deliveries:
                await delivery.give_back(self._retry_s)
            raise
        self._retry_s = _FIRST_RETRY_S
        self._written.value += written
        self._again.value += len(rows) - written
        for delivery in deliveries:
            await delivery.ack()

    async def _write(self, rows: Sequence[RecordingRow]) -> int:
        """Those that were new. Raises Unavailable."""
        try:
            return await self._store.write(rows)
        except DBAPIError as error:  # not away, but unwilling, and it would be so each time
            if len(rows) > 1:
                return sum([await self._write([row]) for row in rows])
            log.error("recording dropped", extra={"action": "recording_refused", "why": type(error.orig).__name__})
            self._refused.value += 1
            return 0

    def _is_of_our_time(self, day: date) -> bool:
        """Whoever's clock is wrong makes no partitions of it."""
        today = self._now().date()
        return today - timedelta(days=self._keep_days or 400) <= day <= today + timedelta(days=1)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)
