"""The operators' calls of `parts_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import fleet_parts_pb2 as wire
from forebay_admin.fleet.parts_desk import FleetPartsDesk
from forebay_admin.people.access import Access
from forebay_admin.unbroken import to_its_end


class FleetPartsCalls:
    _access: Access
    _fleet_parts: FleetPartsDesk

    async def ChangeBackend(self, request: wire.ChangeBackendRequest, context: Any) -> wire.ChangeBackendResponse:
        return await to_its_end(self._fleet_parts.change_backend(request, self._access.actor()))

    async def ChangeNode(self, request: wire.ChangeNodeRequest, context: Any) -> wire.ChangeNodeResponse:
        return await to_its_end(self._fleet_parts.change_node(request, self._access.actor()))

    async def ChangePool(self, request: wire.ChangePoolRequest, context: Any) -> wire.ChangePoolResponse:
        return await to_its_end(self._fleet_parts.change_pool(request, self._access.actor()))
