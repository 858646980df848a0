"""The registry's gRPC methods: parse, decide, reply. Who may call which is said in RIGHTS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from forebay.rpc import Authorize
from forebay.wire.v1 import fleet_pb2, history_pb2
from forebay.wire.v1 import registry_pb2 as wire
from forebay.wire.v1.registry_pb2_grpc import RegistryServicer
from forebay_registry.backend import Node
from forebay_registry.fleet.watch import Watchers
from forebay_registry.history.calls import HistoryCalls
from forebay_registry.leadership import calls as standing_calls
from forebay_registry.leadership.lead import Lead
from forebay_registry.nodes.ingest import Ingest
from forebay_registry.roster import Roster
from forebay_registry.wanted.calls import FleetCalls
from forebay_registry.wanted.catalog import models_of
from forebay_registry.wire import add_order, to_backend, to_fleet_model, to_node, to_update

RIGHTS = {
    "/forebay.wire.v1.Registry/WatchFleet": frozenset({"gateway", "scheduler", "admin"}),
    # Operators call admin, which authorises and audits; nobody else speaks for them.
    "/forebay.wire.v1.Registry/*": frozenset({"admin"}),
}


_OF_ALL = frozenset({"/forebay.wire.v1.Registry/WatchFleet", standing_calls.METHOD})
"""They say themselves that another one leads."""


def only_of_the_leader(authorize: Authorize, lead: Lead) -> Authorize:
    """Whoever is known is told whom to ask instead, while this registry stands by."""

    def decide(method: str, bearer: str | None) -> str:
        name = authorize(method, bearer)
        if method not in _OF_ALL:
            lead.refuse_standby()
        return name

    return decide


class Calls(RegistryServicer):
    def __init__(
        self,
        roster: Roster,
        watchers: Watchers,
        ingest: Ingest,
        fleet: FleetCalls,
        history: HistoryCalls,
        welcome: Callable[[Node, str], Awaitable[str]],
    ) -> None:
        """`welcome`: told of each node that joins, and from where; the key with which commands to it are signed."""
        self._roster = roster
        self._watchers = watchers
        self._ingest = ingest
        self._fleet = fleet
        self._history = history
        self._welcome = welcome

    async def WatchFleet(self, request: wire.WatchFleetRequest, context: Any) -> AsyncIterator[wire.FleetUpdate]:
        async for told in self._watchers.follow():
            yield to_update(told)

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
        command_key = await self._welcome(node, request.joined_from)
        return wire.EnrolNodeResponse(node=self._node(node), command_key=command_key)

    async def ListNodes(self, request: wire.ListNodesRequest, context: Any) -> wire.ListNodesResponse:
        nodes = self._roster.nodes()
        return wire.ListNodesResponse(nodes=[self._node(node) for node in nodes])

    def _node(self, node: Node) -> wire.Node:
        ingest = self._ingest
        return to_node(node, ingest.heard_of(node.id), ingest.troubles_of(node.id).values(), ingest.drops_of(node.id))

    async def ListModels(self, request: wire.ListModelsRequest, context: Any) -> wire.ListModelsResponse:
        models = models_of(self._roster.views(), self._roster.model_facts())
        return wire.ListModelsResponse(models=[to_fleet_model(model) for model in models])

    async def ChangeFleet(self, request: fleet_pb2.ChangeFleetRequest, context: Any) -> fleet_pb2.ChangeFleetResponse:
        return await self._fleet.change(request)

    async def ReadFleet(self, request: fleet_pb2.ReadFleetRequest, context: Any) -> fleet_pb2.ReadFleetResponse:
        return await self._fleet.read(request)

    async def ListFleetVersions(
        self, request: fleet_pb2.ListFleetVersionsRequest, context: Any
    ) -> fleet_pb2.ListFleetVersionsResponse:
        return await self._fleet.versions(request)

    async def ReadHistory(
        self, request: history_pb2.ReadHistoryRequest, context: Any
    ) -> history_pb2.ReadHistoryResponse:
        return await self._history.read(request)

    async def ListSeries(self, request: history_pb2.ListSeriesRequest, context: Any) -> history_pb2.ListSeriesResponse:
        return await self._history.list_series(request)
