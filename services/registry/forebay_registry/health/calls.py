"""Operators' calls about drains, maintenance and health: parse, decide, store, act, reply."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from forebay.clock import Clock, micros
from forebay.errors import BadInput, NotFound
from forebay.wire.v1 import lifecycle_pb2 as wire
from forebay.wire.v1 import registry_pb2
from forebay.wire.v1.lifecycle_pb2_grpc import LifecycleServicer
from forebay_registry.backend import BackendId, Desired, Node
from forebay_registry.fleet.fleet import View
from forebay_registry.health.lifecycle import Lifecycle
from forebay_registry.health.orders import Drain, Scope, Window, concerns, demand_drain, demand_window
from forebay_registry.health.reports import to_change
from forebay_registry.health.store import LifecycleStore
from forebay_registry.wire import to_backend

RIGHTS = {"/forebay.wire.v1.Lifecycle/*": frozenset({"admin"})}

_SCOPES = {
    wire.LIFECYCLE_SCOPE_BACKEND: Scope.BACKEND,
    wire.LIFECYCLE_SCOPE_NODE: Scope.NODE,
    wire.LIFECYCLE_SCOPE_POOL: Scope.POOL,
}
LOOK_S = 5.0
"""How long whoever asks for a look waits for it; an engine that hangs takes longer to be given up."""
_WATCH_S = 0.05

_SCOPES_BACK = {scope: number for number, scope in _SCOPES.items()}


class Fleet(Protocol):
    """As much of the roster as these calls need."""

    writing: asyncio.Lock

    def views(self) -> Sequence[View]: ...
    def nodes(self) -> Sequence[Node]: ...
    def wanted_of(self, backend_id: BackendId) -> Desired: ...
    async def demand_store(self) -> None: ...
    def look_now(self, backend_id: BackendId) -> None: ...


class LifecycleCalls(LifecycleServicer):
    def __init__(self, fleet: Fleet, lifecycle: Lifecycle, store: LifecycleStore, clock: Clock) -> None:
        self._fleet = fleet
        self._lifecycle = lifecycle
        self._store = store
        self._clock = clock

    async def OrderDrain(self, request: wire.OrderDrainRequest, context: Any) -> wire.OrderDrainResponse:
        scope, subject = self._subject(request.scope, request.name, may_be_pool=False)
        now = self._clock.now()
        ends_at = now + request.deadline_s if request.deadline_s else None
        demand_drain(ends_at, is_forced=request.force, reason=request.reason)
        drain = Drain(scope, subject, now, request.actor, ends_at, request.force, request.reason)
        await self._fleet.demand_store()
        async with self._fleet.writing:
            before = self._lifecycle.orders.drain_of(scope, subject)
            if before is not None:
                drain = replace(drain, since=before.since)
            await self._store.put_drain(drain)
            self._lifecycle.orders.put_drain(drain)
        return wire.OrderDrainResponse(
            order=self._to_drain(drain),
            before=self._to_drain(before) if before is not None else None,
            backends=self._concerned(scope, subject),
        )

    async def LiftDrain(self, request: wire.LiftDrainRequest, context: Any) -> wire.LiftDrainResponse:
        scope, subject = self._subject(request.scope, request.name, may_be_pool=False)
        await self._fleet.demand_store()
        async with self._fleet.writing:
            before = self._lifecycle.orders.drain_of(scope, subject)
            if before is not None:
                await self._store.lift_drain(scope, subject)
                self._lifecycle.orders.lift_drain(scope, subject)
        return wire.LiftDrainResponse(
            before=self._to_drain(before) if before is not None else None, backends=self._concerned(scope, subject)
        )

    async def AddMaintenance(self, request: wire.AddMaintenanceRequest, context: Any) -> wire.AddMaintenanceResponse:
        told, now = request.window, self._clock.now()
        scope, subject = self._subject(told.scope, told.name, may_be_pool=True)
        window = Window(
            id=f"mw-{secrets.token_hex(4)}",
            scope=scope,
            subject=subject,
            begins_at=told.begins_at_us / 1_000_000,
            ends_at=told.ends_at_us / 1_000_000,
            drain_before_s=told.drain_before_s,
            reason=told.reason,
            by=request.actor,
            added_at=now,
        )
        await self._fleet.demand_store()
        async with self._fleet.writing:
            demand_window(window, len(self._lifecycle.orders.windows()), now)
            await self._store.put_window(window)
            self._lifecycle.orders.put_window(window)
        return wire.AddMaintenanceResponse(window=self._to_window(window))

    async def ListMaintenance(self, request: wire.ListMaintenanceRequest, context: Any) -> wire.ListMaintenanceResponse:
        self._fleet.views()  # not before the fleet is known
        return wire.ListMaintenanceResponse(windows=[self._to_window(w) for w in self._lifecycle.orders.windows()])

    async def RemoveMaintenance(
        self, request: wire.RemoveMaintenanceRequest, context: Any
    ) -> wire.RemoveMaintenanceResponse:
        await self._fleet.demand_store()
        async with self._fleet.writing:
            window = next((w for w in self._lifecycle.orders.windows() if w.id == request.id), None)
            if window is None:
                raise NotFound(
                    f"There is no maintenance {request.id[:80]}. `forebay maintenance list` shows what there is."
                )
            await self._store.remove_window(window.id)
            self._lifecycle.orders.remove_window(window.id)
        return wire.RemoveMaintenanceResponse(window=self._to_window(window))

    async def ShowHealth(self, request: wire.ShowHealthRequest, context: Any) -> wire.ShowHealthResponse:
        view = self._view(request.name)
        orders = self._lifecycle.orders.of(self._fleet.wanted_of(view.id))
        return wire.ShowHealthResponse(
            backend=to_backend(view),
            changes=[to_change(change) for change in self._lifecycle.changes_of(view.id)],
            drains=[self._to_drain(drain) for drain in orders.drains],
            windows=[self._to_window(window) for window in orders.windows],
        )

    async def LookNow(self, request: wire.LookNowRequest, context: Any) -> wire.LookNowResponse:
        before = self._view(request.name)
        self._fleet.look_now(before.id)
        ends_at = self._clock.monotonic() + LOOK_S
        after = before
        while after.checked_at == before.checked_at and self._clock.monotonic() < ends_at:
            await asyncio.sleep(_WATCH_S)
            after = self._view(request.name)
        return wire.LookNowResponse(backend=to_backend(after), looked=after.checked_at != before.checked_at)

    # --- names and ids ----------------------------------------------------------------------------------------------

    def _view(self, name: str) -> View:
        """Raises NotFound, Unavailable."""
        view = next((one for one in self._fleet.views() if one.name == name), None)
        if view is None:
            raise NotFound(f"There is no backend {name[:80]}.")
        return view

    def _subject(self, told: wire.LifecycleScope.ValueType, name: str, *, may_be_pool: bool) -> tuple[Scope, str]:
        """Raises BadInput, NotFound, Unavailable."""
        scope = _SCOPES.get(told)
        if scope is None or (scope is Scope.POOL and not may_be_pool):
            raise BadInput(f"Say whether it is a backend or a node{' or a pool' if may_be_pool else ''}.")
        views = self._fleet.views()
        match scope:
            case Scope.BACKEND:
                found = next((str(view.id) for view in views if view.name == name), None)
            case Scope.NODE:
                found = next((str(node.id) for node in self._fleet.nodes() if node.name == name), None)
            case Scope.POOL:
                found = next((view.pool for view in views if view.pool == name), None)
        if found is None:
            raise NotFound(f"There is no {scope} {name[:80]}.")
        return scope, found

    def _name_of(self, scope: Scope, subject: str) -> str:
        """The id itself of what is gone."""
        match scope:
            case Scope.BACKEND:
                return next((v.name for v in self._fleet.views() if v.id == subject), subject)
            case Scope.NODE:
                return next((n.name for n in self._fleet.nodes() if n.id == subject), subject)
            case Scope.POOL:
                return subject

    def _concerned(self, scope: Scope, subject: str) -> Sequence[registry_pb2.Backend]:
        def is_concerned(view: View) -> bool:
            return concerns(self._fleet.wanted_of(view.id), scope, subject)

        return [to_backend(view) for view in self._fleet.views() if is_concerned(view)]

    def _to_drain(self, drain: Drain) -> wire.DrainOrder:
        return wire.DrainOrder(
            scope=_SCOPES_BACK[drain.scope],
            name=self._name_of(drain.scope, drain.subject),
            since_us=micros(drain.since),
            by=drain.by,
            deadline_us=micros(drain.ends_at) if drain.ends_at is not None else None,
            force=drain.is_forced,
            reason=drain.reason,
        )

    def _to_window(self, window: Window) -> wire.MaintenanceWindow:
        return wire.MaintenanceWindow(
            id=window.id,
            scope=_SCOPES_BACK[window.scope],
            name=self._name_of(window.scope, window.subject),
            begins_at_us=micros(window.begins_at),
            ends_at_us=micros(window.ends_at),
            drain_before_s=window.drain_before_s,
            reason=window.reason,
            by=window.by,
            added_at_us=micros(window.added_at),
        )
