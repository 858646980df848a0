"""The operators' calls of `lifecycle_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import admin_pb2, lifecycle_pb2
from forebay_admin.fleet.lifecycle_desk import LifecycleDesk
from forebay_admin.people.access import Access
from forebay_admin.unbroken import to_its_end


class LifecycleCalls:
    _access: Access
    _lifecycle: LifecycleDesk

    async def DrainBackend(
        self, request: admin_pb2.DrainBackendRequest, context: Any
    ) -> admin_pb2.DrainBackendResponse:
        return await to_its_end(self._lifecycle.drain_backend(request, self._access.actor()))

    async def DrainNode(self, request: admin_pb2.DrainNodeRequest, context: Any) -> admin_pb2.DrainNodeResponse:
        return await to_its_end(self._lifecycle.drain_node(request, self._access.actor()))

    async def ScheduleMaintenance(
        self, request: lifecycle_pb2.AddMaintenanceRequest, context: Any
    ) -> lifecycle_pb2.AddMaintenanceResponse:
        return await to_its_end(self._lifecycle.schedule_maintenance(request, self._access.actor()))

    async def ShowMaintenance(
        self, request: lifecycle_pb2.ListMaintenanceRequest, context: Any
    ) -> lifecycle_pb2.ListMaintenanceResponse:
        return await self._lifecycle.show_maintenance()

    async def CancelMaintenance(
        self, request: lifecycle_pb2.RemoveMaintenanceRequest, context: Any
    ) -> lifecycle_pb2.RemoveMaintenanceResponse:
        return await to_its_end(self._lifecycle.cancel_maintenance(request, self._access.actor()))

    async def ShowBackendHealth(
        self, request: lifecycle_pb2.ShowHealthRequest, context: Any
    ) -> lifecycle_pb2.ShowHealthResponse:
        return await self._lifecycle.show_health(request)

    async def ProbeBackend(self, request: lifecycle_pb2.LookNowRequest, context: Any) -> lifecycle_pb2.LookNowResponse:
        return await to_its_end(self._lifecycle.probe(request, self._access.actor()))
