"""Notifications, put together from the settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from forebay.bus import Bus
from forebay.clock import Clock
from forebay.database import Database
from forebay.engine_sockets import socket_factory
from forebay.metrics import Metrics
from forebay.sealed import Seal
from forebay_admin.config import AdminSettings
from forebay_admin.notify import subscription_store
from forebay_admin.notify.deliverer import Deliverer
from forebay_admin.notify.delivery_store import DeliveryStore
from forebay_admin.notify.mail import Mailer, mail_server
from forebay_admin.notify.notify_desk import NotifyDesk
from forebay_admin.notify.outbox import Outbox
from forebay_admin.notify.threshold_watch import ThresholdWatch


@dataclass(frozen=True, slots=True)
class Notifying:
    outbox: Outbox
    desk: NotifyDesk
    thresholds: ThresholdWatch
    deliverer: Deliverer

    async def keep(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.deliverer.keep(), name="events")
            tasks.create_task(self.thresholds.keep(), name="thresholds")


@asynccontextmanager
async def open_notifying(
    settings: AdminSettings, database: Database, bus: Bus, clock: Clock, metrics: Metrics
) -> AsyncIterator[Notifying]:
    """Raises CannotStart."""
    server = mail_server(settings)
    seal = Seal.from_file(settings.seal_key_file, subscription_store.PURPOSE)
    outbox = Outbox(clock, mails=server is not None)
    # To addresses that may be connected to, whatever a name resolves to by then; without cookies or the environment's proxy.
    connector = aiohttp.TCPConnector(limit=0, socket_factory=socket_factory(allow_link_local=False))
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield Notifying(
            outbox,
            NotifyDesk(database, outbox, seal, clock, has_mail=server is not None),
            ThresholdWatch(database, outbox, clock),
            Deliverer(
                DeliveryStore(database, seal),
                session,
                Mailer(server),
                bus,
                clock,
                metrics,
                keep_days=settings.event_days,
            ),
        )
