"""Alerts, wired: what else of the registry they need comes in, their calls and their work go out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from forebay.bus import Bus
from forebay.clock import Clock
from forebay.database import Database
from forebay.engine_sockets import socket_factory
from forebay.metrics import Metrics
from forebay.webhook import read_webhook_secret
from forebay_registry.alerts.calls import AlertCalls
from forebay_registry.alerts.deliveries import Deliveries
from forebay_registry.alerts.reading import FactReader
from forebay_registry.alerts.rules import AlertSettings, Severity
from forebay_registry.alerts.store import AlertStore
from forebay_registry.alerts.watch import ROUND_S, AlertWatch
from forebay_registry.alerts.webhooks import Webhook
from forebay_registry.backend import Node, NodeId
from forebay_registry.fleet.fleet import View
from forebay_registry.health.lifecycle import Lifecycle
from forebay_registry.nodes.troubles import Trouble

RIGHTS = {"/forebay.wire.v1.Alerts/*": frozenset({"admin"})}


class AlertsPart:
    def __init__(
        self,
        settings: AlertSettings,
        webhooks: Sequence[Webhook],
        session: aiohttp.ClientSession,
        *,
        bus: Bus,
        database: Database,
        tables: asyncio.Event,
        clock: Clock,
        metrics: Metrics,
        lifecycle: Lifecycle,
        views: Callable[[], Sequence[View]],
        nodes: Callable[[], Sequence[Node]],
        troubles_of: Callable[[NodeId], Mapping[Trouble, str]],
        has_postgres: Callable[[], bool],
        flap_window_s: float,
        round_s: float = ROUND_S,
    ) -> None:
        """`views` and `nodes` may raise Unavailable. `tables`: set when the schema is there. Raises CannotStart for a
        webhook without a secret."""
        self.reader = FactReader(
            clock,
            lifecycle,
            views=views,
            nodes=nodes,
            troubles_of=troubles_of,
            has_postgres=has_postgres,
            has_nats=lambda: bus.is_connected,
            flap_window_s=flap_window_s,
        )
        store = AlertStore(database)
        secrets = [(webhook, read_webhook_secret(webhook.secret_file)) for webhook in webhooks]
        deliveries = Deliveries(secrets, session, clock)
        watch = AlertWatch(
            store, bus, clock, settings, deliveries, read=self.reader.facts, tables=tables, round_s=round_s
        )
        self.calls = AlertCalls(watch, store, deliveries, clock)
        self._watch = watch
        metrics.gauge("forebay_registry_alerts", "Open alerts.", ("severity",), lambda: _by_severity(watch))
        metrics.gauge(
            "forebay_registry_webhook_waiting",
            "Messages that wait for a webhook.",
            ("webhook",),
            lambda: [((name,), float(len(r.outbox))) for name, r in deliveries.receivers.items()],
        )
        metrics.counter_reading(
            "forebay_registry_webhook_messages",
            "Messages to webhooks that are over, by how they ended.",
            ("webhook", "outcome"),
            lambda: [
                ((name, outcome), float(number))
                for name, r in deliveries.receivers.items()
                for outcome, number in (("delivered", r.delivered), ("given_up", r.given_up))
            ],
        )

    def run(self) -> Coroutine[Any, Any, None]:
        """Until cancelled, and again whenever this registry acts."""
        return self._watch.run()

    def drain(self) -> Coroutine[Any, Any, None]:
        return self._watch.drain()


@asynccontextmanager
async def open_webhook_session(*, allow_link_local: bool) -> AsyncIterator[aiohttp.ClientSession]:
    """One for all webhooks: to addresses that may be connected to, without cookies or a proxy from the environment."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, socket_factory=socket_factory(allow_link_local=allow_link_local)),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield session


def _by_severity(watch: AlertWatch) -> list[tuple[tuple[str], float]]:
    alerts = list(watch.book.open.values())
    return [((str(severity),), float(sum(a.severity is severity for a in alerts))) for severity in Severity]
