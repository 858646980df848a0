"""Who is let in by address, who is banned, and what is told of it, put together from the settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from forebay.bus import Bus
from forebay.clock import Clock
from forebay.database import Database
from forebay.forwarded import Forwards
from forebay.metrics import Number
from forebay_admin.changes import Changes
from forebay_admin.config import AdminSettings
from forebay_admin.notify.outbox import Outbox
from forebay_admin.security.addresses_desk import AddressesDesk
from forebay_admin.security.banning import Banning
from forebay_admin.security.entrance import Entrance
from forebay_admin.security.event_book import EventBook
from forebay_admin.security.events_desk import SecurityEventsDesk
from forebay_admin.security.gatekeeper import Gatekeeper
from forebay_admin.security.keeping import SecurityKeeping
from forebay_admin.security.servicer import SecurityServicer
from forebay_admin.security.watchman import Watchman


@dataclass(frozen=True, slots=True)
class Security:
    settings: AdminSettings
    database: Database
    changes: Changes
    clock: Clock
    gatekeeper: Gatekeeper
    watchman: Watchman
    banning: Banning
    book: EventBook
    addresses: AddressesDesk
    events: SecurityEventsDesk

    def servicer(self, watchers: Callable[[str], Number]) -> SecurityServicer:
        return SecurityServicer(self.database, self.changes, self.banning, self.book, self.clock, watchers)

    def entrance(self, forwards: Forwards, lets_in: Callable[[web.Request, str], bool]) -> Entrance:
        """As Entrance has it."""
        return Entrance(self.gatekeeper, self.watchman, self.settings.proxies, forwards, self.clock, lets_in)

    async def keep(self) -> None:
        """For ever, from the moment the database is there."""
        keeping = SecurityKeeping(self.database, self.book, self.clock, keep_days=self.settings.security_event_days)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.gatekeeper.follow(self.database, self.changes), name="gatekeeper")
            tasks.create_task(self.watchman.keep(), name="watchman")
            tasks.create_task(keeping.tell_acts(), name="security-acts")
            tasks.create_task(keeping.keep_young(), name="security-keeping")


@asynccontextmanager
async def open_security(
    settings: AdminSettings, database: Database, changes: Changes, outbox: Outbox, bus: Bus, clock: Clock
) -> AsyncIterator[Security]:
    gatekeeper, book = Gatekeeper(clock), EventBook(database, outbox, bus, clock)
    banning = Banning(gatekeeper, book, settings.proxies, clock)
    yield Security(
        settings=settings,
        database=database,
        changes=changes,
        clock=clock,
        gatekeeper=gatekeeper,
        watchman=Watchman(database, changes, banning, book, clock),
        banning=banning,
        book=book,
        addresses=AddressesDesk(database, changes, gatekeeper, book, clock),
        events=SecurityEventsDesk(database, bus),
    )
