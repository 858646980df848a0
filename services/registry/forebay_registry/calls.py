"""The registry's gRPC methods: parse, decide, reply. Who may call which is said in RIGHTS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from forebay.wire.v1 import registry_pb2 as wire
from forebay.wire.v1.registry_pb2_grpc import RegistryServicer
from forebay_registry.fleet.watch import Watchers
from forebay_registry.nodes.ingest import Ingest
from forebay_registry.roster import Roster
from forebay_registry.wanted.catalog import models_of
from forebay_registry.wire import add_order, to_backend, to_fleet_model, to_node, to_update

RIGHTS = {
    "/forebay.wire.v1.Registry/WatchFleet": frozenset({"gateway", "scheduler", "admin"}),
    # Operators call admin, which authorises and audits; nobody else speaks for them.
    "/forebay.wire.v1.Registry/*": frozenset({"admin"}),
}


class Calls(RegistryServicer):
    def __init__(self, roster: Roster, watchers: Watchers, ingest: Ingest, term_us: int) -> None:
        self._roster = roster
        self._watchers = watchers
        self._ingest = ingest
        self._term_us = term_us

    async def WatchFleet(self, request: wire.WatchFleetRequest, context: Any) -> AsyncIterator[wire.FleetUpdate]:
        async for update in self._watchers.follow():
            yield to_update(update, self._term_us)

    async def AddBackend(self, request: wire.AddBackendRequest, context: Any) -> wire.AddBackendResponse:
        view, created = await self._roster.add_backend(add_order(request))
        return wire.AddBackendResponse(backend=to_backend(view), created=created)

    async def ListBackends(self, request: wire.ListBackendsRequest, context: Any) -> wire.ListBackendsResponse:
        return wire.ListBackendsResponse(backends=[to_backend(view) for view in self._roster.views()])

    async def RemoveBackend(self, request: wire.RemoveBackendRequest, context: Any) -> wire.RemoveBackendResponse:
        view = await self._roster.remove_backend(request.name, request.actor)
        return wire.RemoveBackendResponse(backend=to_backend(view))

    async def NameModels(self, request: wire.NameModelsRequest, context: Any) -> wire.NameModelsResponse:
        view = await self._roster.name_models(request.name, dict(request.put), list(request.removed), request.actor)
        return wire.NameModelsResponse(backend=to_backend(view))

    async def EnrolNode(self, request: wire.EnrolNodeRequest, context: Any) -> wire.EnrolNodeResponse:
        node = await self._roster.enrol_node(request.name, request.actor)
        return wire.EnrolNodeResponse(node=to_node(node, self._ingest.heard_of(node.id)))

    async def ListNodes(self, request: wire.ListNodesRequest, context: Any) -> wire.ListNodesResponse:
        nodes = self._roster.nodes()
        return wire.ListNodesResponse(nodes=[to_node(node, self._ingest.heard_of(node.id)) for node in nodes])

    async def ListModels(self, request: wire.ListModelsRequest, context: Any) -> wire.ListModelsResponse:
        return wire.ListModelsResponse(models=[to_fleet_model(m) for m in models_of(self._roster.views())])
