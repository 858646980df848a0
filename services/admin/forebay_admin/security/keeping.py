"""What goes on by itself: acts of the audit log told as events, old days and bans forgotten. One replica at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from forebay.client_addresses import parse_address
from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import Unavailable
from forebay_admin.audit.audit_store import Act, Interface, record
from forebay_admin.audit.chain import Entry, Link
from forebay_admin.audit.log_store import links_after, read_head
from forebay_admin.ledger.partitions import Length, drop_partition, droppable, partitions_of
from forebay_admin.security.event_book import EventBook
from forebay_admin.security.event_store import EVENTS
from forebay_admin.security.events import Kind, SecurityEvent
from forebay_admin.security.rule_store import forget_bans
from forebay_admin.security.tables import security_acts
from forebay_admin.wire_forms import moment

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_LOOK_S = 3600.0
_AT_ONCE = 200
_LOCK = 0x464F5353  # any number; every admin replica uses this one
_ACTS = UUID("5b0f1a52-3c1e-4d3e-9b61-0f3c1b0a7e11")
_NOBODYS = (Interface.START, Interface.SCHEDULE)
_TOLD_OTHERWISE = ("session.refuse", "ban.add", "ban.remove")
"""What is an event of its own already."""


class SecurityKeeping:
    def __init__(self, database: Database, book: EventBook, clock: Clock, *, keep_days: int) -> None:
        """`keep_days`: 0 is for ever."""
        self._database = database
        self._book = book
        self._clock = clock
        self._keep_days = keep_days

    async def tell_acts(self) -> None:
        """For ever."""
        while True:
            try:
                while await self.tell_some():
                    continue
            except (Unavailable, DBAPIError) as error:  # the rest of admin goes on whatever Postgres says to this
                log.warning("acts not told", extra={"action": "security_acts", "why": str(error)})
            await asyncio.sleep(_EVERY_S)

    async def tell_some(self) -> bool:
        """Acts that were not told yet, a few at once. Whether there may be more. Raises Unavailable."""
        async with self._database.reading() as connection:
            if await connection.scalar(select(security_acts.c.told_seq)) == (await read_head(connection)).seq:
                return False
        async with self._database.writing() as connection:
            told = await connection.execute(select(security_acts.c.told_seq).with_for_update(skip_locked=True))
            row = told.first()
            if row is None:
                return False  # another replica is at it
            head = await read_head(connection)
            if row.told_seq is None or row.told_seq > head.seq:  # from now on; or the log is an older copy
                await connection.execute(update(security_acts).values(told_seq=head.seq))
                return False
            links = await links_after(connection, row.told_seq, head.seq, _AT_ONCE)
            if not links:
                return False
            new = await self._book.enter(connection, _acts(links, self._now()))
            await connection.execute(update(security_acts).values(told_seq=links[-1].seq))
        await self._book.tell(new)
        return len(links) == _AT_ONCE

    async def keep_young(self) -> None:
        """For ever."""
        while True:
            try:
                await self.drop_old()
            except (Unavailable, DBAPIError) as error:
                log.warning("old security events not dropped", extra={"action": "security_drop", "why": str(error)})
            await asyncio.sleep(_LOOK_S)

    async def drop_old(self) -> None:
        """Once. Raises Unavailable."""
        now = self._now()
        async with self._database.writing() as connection:
            if not await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}):
                return
            await connection.execute(text("SET LOCAL lock_timeout = '3s'"))
            await forget_bans(connection, now)
            if not self._keep_days:
                return
            first = now.date() - timedelta(days=self._keep_days)
            for day in droppable(await partitions_of(connection, EVENTS), Length.DAY, first):
                await drop_partition(connection, EVENTS, day)
                await record(connection, Act("forebay", "security.drop", str(day), Interface.SCHEDULE), now)
                log.info("old security events dropped", extra={"action": "security_drop", "day": str(day)})

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _acts(links: Sequence[Link], now: datetime) -> list[SecurityEvent]:
    entries = [link.entry for link in links if link.entry is not None]
    return [_act(entry, now) for entry in entries if _is_somebodys(entry)]


def _is_somebodys(entry: Entry) -> bool:
    return entry.interface not in _NOBODYS and entry.action not in _TOLD_OTHERWISE


def _act(entry: Entry, now: datetime) -> SecurityEvent:
    at = moment(entry.at_us)
    if not now - timedelta(days=1) <= at <= now + timedelta(hours=1):
        at = now  # its day may have been dropped, or be far away
    return SecurityEvent(
        Kind.ADMIN_ACT,
        at,
        at,
        # Without the interface of a link-local one.
        address=str(parse_address(entry.address) or ""),
        key_id=entry.actor_key_id,
        user=entry.actor,
        reason=entry.action,
        detail=entry.subject[:300],
        id=uuid5(_ACTS, str(entry.id)),
    )
