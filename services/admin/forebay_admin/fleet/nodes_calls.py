"""The operators' calls of `nodes_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from forebay.wire.v1 import commands_pb2, discovery_pb2
from forebay_admin.fleet.nodes_desk import NodesDesk
from forebay_admin.people.access import Access
from forebay_admin.unbroken import to_its_end


class NodesCalls:
    _access: Access
    _nodes: NodesDesk

    async def ShowFoundBackends(
        self, request: discovery_pb2.ListFoundBackendsRequest, context: Any
    ) -> discovery_pb2.ListFoundBackendsResponse:
        return await self._nodes.show_found()

    async def AdoptBackend(
        self, request: discovery_pb2.AdoptBackendRequest, context: Any
    ) -> discovery_pb2.AdoptBackendResponse:
        return await to_its_end(self._nodes.adopt(request, self._access.actor()))

    async def SetNodeDiscovery(
        self, request: discovery_pb2.SetNodeDiscoveryRequest, context: Any
    ) -> discovery_pb2.SetNodeDiscoveryResponse:
        return await to_its_end(self._nodes.set_discovery(request, self._access.actor()))

    async def CommandNode(
        self, request: commands_pb2.CommandNodeRequest, context: Any
    ) -> AsyncIterator[commands_pb2.CommandNodeResponse]:
        async with aclosing(self._nodes.command(request, self._access.actor())) as answers:
            async for answer in answers:
                yield answer
