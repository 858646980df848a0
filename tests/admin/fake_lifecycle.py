"""A registry's drains, maintenance and health, in memory; schedulers hear of drains as they would by watching the fleet."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from forebay.errors import NotFound
from forebay.wire.v1 import lifecycle_pb2 as wire
from forebay.wire.v1 import registry_pb2, scheduler_pb2
from forebay.wire.v1.lifecycle_pb2_grpc import LifecycleServicer

if TYPE_CHECKING:
    from tests.admin.replica import FakeScheduler

BACKEND = wire.LIFECYCLE_SCOPE_BACKEND


class FakeLifecycle(LifecycleServicer):
    def __init__(self, known: dict[str, registry_pb2.Backend]) -> None:
        self._known = known
        self.schedulers: list[FakeScheduler] = []
        self.on_node: dict[str, list[str]] = {}
        """Node → names of its backends."""
        self.drains: dict[tuple[int, str], wire.DrainOrder] = {}
        self.windows: dict[str, wire.MaintenanceWindow] = {}
        self.changes: list[wire.HealthChange] = []
        self.looks: list[tuple[str, str]] = []
        """Name of the backend, and who asked."""
        self.looks_end = True
        self.answers = asyncio.Event()
        """While it is not set, what is ordered is done, and nobody is told yet."""
        self.answers.set()

    async def OrderDrain(self, request: wire.OrderDrainRequest, context: Any) -> wire.OrderDrainResponse:
        backends = self._concerned(request.scope, request.name)
        key = request.scope, request.name
        order = wire.DrainOrder(
            scope=request.scope,
            name=request.name,
            since_us=1_000_000,
            by=request.actor,
            deadline_us=request.deadline_s * 1_000_000 if request.deadline_s else None,
            force=request.force,
            reason=request.reason,
        )
        before, self.drains[key] = self.drains.get(key), order
        self._tell(backends, is_draining=True)
        await self.answers.wait()
        return wire.OrderDrainResponse(order=order, before=before, backends=backends)

    async def LiftDrain(self, request: wire.LiftDrainRequest, context: Any) -> wire.LiftDrainResponse:
        backends = self._concerned(request.scope, request.name)
        self._tell(backends, is_draining=False)
        before = self.drains.pop((request.scope, request.name), None)
        await self.answers.wait()
        return wire.LiftDrainResponse(before=before, backends=backends)

    async def AddMaintenance(self, request: wire.AddMaintenanceRequest, context: Any) -> wire.AddMaintenanceResponse:
        window = wire.MaintenanceWindow()
        window.CopyFrom(request.window)
        window.id, window.by, window.added_at_us = f"mw-{len(self.windows) + 1}", request.actor, 1_000_000
        self.windows[window.id] = window
        await self.answers.wait()
        return wire.AddMaintenanceResponse(window=window)

    async def ListMaintenance(self, request: wire.ListMaintenanceRequest, context: Any) -> wire.ListMaintenanceResponse:
        return wire.ListMaintenanceResponse(windows=self.windows.values())

    async def RemoveMaintenance(
        self, request: wire.RemoveMaintenanceRequest, context: Any
    ) -> wire.RemoveMaintenanceResponse:
        if request.id not in self.windows:
            raise NotFound(f"There is no maintenance {request.id}.")
        window = self.windows.pop(request.id)
        await self.answers.wait()
        return wire.RemoveMaintenanceResponse(window=window)

    async def ShowHealth(self, request: wire.ShowHealthRequest, context: Any) -> wire.ShowHealthResponse:
        (backend,) = self._concerned(BACKEND, request.name)
        return wire.ShowHealthResponse(
            backend=backend, changes=self.changes, drains=self.drains.values(), windows=self.windows.values()
        )

    async def LookNow(self, request: wire.LookNowRequest, context: Any) -> wire.LookNowResponse:
        (backend,) = self._concerned(BACKEND, request.name)
        self.looks.append((request.name, request.actor))
        return wire.LookNowResponse(backend=backend, looked=self.looks_end)

    def _concerned(self, scope: int, name: str) -> list[registry_pb2.Backend]:
        if scope == BACKEND and name not in self._known:
            raise NotFound(f"There is no backend {name}.")
        names = [name] if scope == BACKEND else self.on_node.get(name, [])
        return [self._known[one] for one in names]

    def _tell(self, backends: list[registry_pb2.Backend], *, is_draining: bool) -> None:
        for scheduler in self.schedulers:
            for backend in backends:
                held = next((one for one in scheduler.queue.held if one.backend_id == backend.id), None)
                if held is None:
                    scheduler.queue.held.append(scheduler_pb2.HeldSlots(backend_id=backend.id, held=scheduler.running))
                    held = scheduler.queue.held[-1]
                held.draining = is_draining
