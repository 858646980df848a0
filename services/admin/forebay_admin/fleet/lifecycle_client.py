"""Admin's calls to the registry about drains, maintenance and health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from forebay.rpc import Peer
from forebay.wire.v1 import lifecycle_pb2, lifecycle_pb2_grpc
from forebay_admin.fleet.registry_client import CALL_S, telling_operators

R = TypeVar("R")


class LifecycleClient:
    """Each call raises what the registry raises (BadInput, NotFound …), and Unavailable while it is away."""

    def __init__(self, peer: Peer) -> None:
        self._stub = lifecycle_pb2_grpc.LifecycleStub(peer.channel)
        self._metadata = peer.metadata

    async def order_drain(self, request: lifecycle_pb2.OrderDrainRequest) -> lifecycle_pb2.OrderDrainResponse:
        return await self._call(self._stub.OrderDrain, request)

    async def lift_drain(self, request: lifecycle_pb2.LiftDrainRequest) -> lifecycle_pb2.LiftDrainResponse:
        return await self._call(self._stub.LiftDrain, request)

    async def add_maintenance(
        self, request: lifecycle_pb2.AddMaintenanceRequest
    ) -> lifecycle_pb2.AddMaintenanceResponse:
        return await self._call(self._stub.AddMaintenance, request)

    async def list_maintenance(self) -> lifecycle_pb2.ListMaintenanceResponse:
        return await self._call(self._stub.ListMaintenance, lifecycle_pb2.ListMaintenanceRequest())

    async def remove_maintenance(
        self, request: lifecycle_pb2.RemoveMaintenanceRequest
    ) -> lifecycle_pb2.RemoveMaintenanceResponse:
        return await self._call(self._stub.RemoveMaintenance, request)

    async def show_health(self, request: lifecycle_pb2.ShowHealthRequest) -> lifecycle_pb2.ShowHealthResponse:
        return await self._call(self._stub.ShowHealth, request)

    async def look_now(self, request: lifecycle_pb2.LookNowRequest) -> lifecycle_pb2.LookNowResponse:
        return await self._call(self._stub.LookNow, request)

    async def _call(self, method: Callable[..., Awaitable[R]], request: Message) -> R:
        with telling_operators():
            return await method(request, metadata=self._metadata, timeout=CALL_S, wait_for_ready=True)
