"""Where security events are written down, in the transaction of what they tell, and told of once that is committed: to the
bus, for whoever listens now, and by the outbox to those who have subscribed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay import subjects
from forebay.bus import Bus
from forebay.clock import Clock
from forebay.database import Database
from forebay_admin.ledger.partitions import make_partitions
from forebay_admin.notify import kinds
from forebay_admin.notify.outbox import Outbox
from forebay_admin.security.event_store import EVENTS, enter
from forebay_admin.security.events import Few, SecurityEvent
from forebay_admin.security.wire import event_to_wire


class EventBook:
    def __init__(self, database: Database, outbox: Outbox, bus: Bus, clock: Clock) -> None:
        self._database = database
        self._outbox = outbox
        self._bus = bus
        self._clock = clock
        self._few = Few()
        self._days: set[date] = set()
        """That have partitions."""

    async def enter(self, connection: AsyncConnection, events: Sequence[SecurityEvent]) -> Sequence[SecurityEvent]:
        """In the caller's transaction. Gives those that were new, which are to be told of once it is committed."""
        days = {event.at.date() for event in events}
        if not days <= self._days:
            await make_partitions(connection, EVENTS, days)
        new = await enter(connection, events)
        for event in self._few.of(new, self._clock.monotonic()):
            await self._put(connection, event)
        return new

    async def tell(self, events: Sequence[SecurityEvent]) -> None:
        """What is committed."""
        self._days |= {event.at.date() for event in events}
        for event in events:
            await self._bus.publish(subjects.security(event.kind), event_to_wire(event).SerializeToString())

    async def write(self, events: Sequence[SecurityEvent]) -> None:
        """In a transaction of its own, with what was too much to be told of before. Raises Unavailable."""
        if not events and not self._few.is_due(self._clock.monotonic()):
            return
        async with self._database.writing() as connection:
            new = await self.enter(connection, events)
        await self.tell(new)

    async def _put(self, connection: AsyncConnection, event: SecurityEvent) -> None:
        try:
            kind = kinds.Kind(f"security.{event.kind}")
        except ValueError:
            return  # of a gateway that is newer than this
        body = {
            kinds.SUMMARY: event.summary,
            "id": event.id.hex,
            "at": event.at.isoformat(),
            "last_at": event.last_at.isoformat(),
            "count": event.count,
            "source": event.source,
            "address": event.address,
            "key_id": event.key_id,
            "user": event.user,
            "reason": event.reason,
            "detail": event.detail,
        }
        await self._outbox.put(connection, kind, event.address or event.user or event.key_id or event.kind, body)
