"""How the whole is: every part is asked at once, each within its own time; `status` makes one answer of what they said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from importlib.metadata import version
from typing import TypeVar

from forebay.clock import Clock, micros
from forebay.errors import ForebayError
from forebay.rpc import Peer
from forebay.since import Since
from forebay.wire.v1 import alerts_pb2, status_pb2
from forebay_admin.fleet.alerts_client import AlertsClient, RegistryStanding, registry_standings
from forebay_admin.fleet.registry_client import RegistryClient
from forebay_admin.fleet.status import RegistrySaid, Said, SchedulerSaid, judge
from forebay_admin.queue.scheduler_client import SchedulerClient

DATABASE, NATS = "database", "nats"
"""What `Since` has to know of admin's own."""

T = TypeVar("T")


class StatusDesk:
    def __init__(
        self,
        *,
        address: str,
        own: Since,
        scheduler: SchedulerClient,
        scheduler_addresses: Sequence[str],
        registry: RegistryClient,
        registry_peers: Sequence[tuple[str, Peer]],
        alerts: AlertsClient,
        clock: Clock,
    ) -> None:
        """`own`: DATABASE, with why it is not there or empty, and NATS, with whether it is."""
        self._address = address
        self._own = own
        self._scheduler = scheduler
        self._scheduler_addresses = scheduler_addresses
        self._registry = registry
        self._registry_peers = registry_peers
        self._alerts = alerts
        self._clock = clock
        self._since = clock.now()

    async def show(self) -> status_pb2.ShowStatusResponse:
        schedulers, registries, backends, nodes, models, alerts = await asyncio.gather(
            self._scheduler.standings(),
            registry_standings(self._registry_peers),
            _maybe(self._registry.backends()),
            _maybe(self._registry.nodes()),
            _maybe(self._registry.models()),
            _maybe(self._alerts.list(alerts_pb2.ListAlertsRequest())),
        )
        why, database_since = self._own.of(DATABASE)
        has_nats, nats_since = self._own.of(NATS)
        queue = next((standing.queue for standing in schedulers if standing.queue is not None), None)
        said = Said(
            now=self._clock.now(),
            admin=self._address,
            admin_since_us=micros(self._since),
            database=(not why, micros(database_since), str(why)),
            nats=(bool(has_nats), micros(nats_since)),
            schedulers=[
                SchedulerSaid(address, standing.role, standing.detail)
                for address, standing in zip(self._scheduler_addresses, schedulers, strict=True)
            ],
            registries=[_registry_said(standing) for standing in registries],
            queue=queue,
            backends=backends,
            nodes=nodes,
            models=models,
            alerts=alerts,
        )
        return judge(said, version("forebay"))


def _registry_said(standing: RegistryStanding) -> RegistrySaid:
    told = standing.told
    if told is None:
        return RegistrySaid(standing.address, "", error=standing.error)
    return RegistrySaid(
        address=standing.address,
        standing=told.standing,
        since_us=told.since_us,
        postgres=(told.postgres, told.postgres_since_us),
        nats=(told.nats, told.nats_since_us),
        hears_admin=told.admin,
    )


async def _maybe(asked: Awaitable[T]) -> T | None:
    """None: it could not be had, which is what the status then says."""
    try:
        return await asked
    except ForebayError:
        return None
