"""The discovery, wired: what else of the registry it needs comes in, its calls and its work go out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from forebay.clock import Clock
from forebay.database import Database
from forebay.metrics import Metrics
from forebay.wire.v1 import discovery_pb2 as wire
from forebay.wire.v1.discovery_pb2_grpc import DiscoveryServicer
from forebay_registry.discovery.calls import DiscoveryCalls
from forebay_registry.discovery.discovery import Discovery, Wanted
from forebay_registry.discovery.kubernetes.cluster import Cluster, Tally
from forebay_registry.discovery.kubernetes.settings import KubernetesSettings
from forebay_registry.discovery.memory import DiscoveryStore
from forebay_registry.discovery.offers import FoundBy, Policy
from forebay_registry.discovery.settings import FindingSettings

RIGHTS = {"/forebay.wire.v1.Discovery/*": frozenset({"admin"})}


class Finding(DiscoveryServicer):
    """Runs, and answers for admin."""

    def __init__(
        self,
        wanted: Wanted,
        database: Database,
        clock: Clock,
        metrics: Metrics,
        settings: FindingSettings,
        *,
        ready: asyncio.Event,
    ) -> None:
        """`ready`: the tables are there, and the fleet."""
        kubernetes = settings.kubernetes
        self._ready = ready
        self._cluster = _open_cluster(kubernetes, metrics) if kubernetes is not None else None
        forget: Mapping[str, float] = {
            FoundBy.AGENT: settings.forget_s,
            FoundBy.KUBERNETES: kubernetes.forget_s if kubernetes is not None else settings.forget_s,
        }
        self.discovery = Discovery(
            wanted,
            DiscoveryStore(database),
            clock,
            usual=Policy.AUTO if settings.auto else Policy.SUGGEST,
            forget_s=forget,
            cluster=self._cluster,
        )
        self._calls = DiscoveryCalls(self.discovery)
        self.hear = self.discovery.hear

    async def run(self) -> None:
        """Until cancelled, and again afterwards."""
        await self._ready.wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.discovery.run(), name="discovery")
            if self._cluster is not None:
                tasks.create_task(self._cluster.run(), name="kubernetes")

    async def ListFoundBackends(
        self, request: wire.ListFoundBackendsRequest, context: Any
    ) -> wire.ListFoundBackendsResponse:
        return await self._calls.list_found()

    async def AdoptBackend(self, request: wire.AdoptBackendRequest, context: Any) -> wire.AdoptBackendResponse:
        return await self._calls.adopt(request)

    async def SetNodeDiscovery(
        self, request: wire.SetNodeDiscoveryRequest, context: Any
    ) -> wire.SetNodeDiscoveryResponse:
        return await self._calls.set_node(request)


def _open_cluster(settings: KubernetesSettings, metrics: Metrics) -> Cluster:
    def counter(name: str, about: str) -> Any:
        return metrics.counter(f"forebay_registry_kubernetes_{name}", about).child()

    cluster = Cluster(
        settings,
        Tally(
            lists=counter("lists", "Lists of Services or endpoints that were read."),
            events=counter("events", "Events of watches."),
            failures=counter("failures", "Calls of the API that failed."),
        ),
    )

    def known() -> Iterable[tuple[tuple[str, ...], float]]:
        return [((), float(cluster.is_known))]

    metrics.gauge("forebay_registry_kubernetes_known", "1 while the cluster is heard.", (), known)
    return cluster
