"""Operators' calls that take backends out of service and bring them back: drains and maintenance. The registry keeps them,
the scheduler says what still runs; authorised and audited here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, ForebayError
from forebay.wire.v1 import admin_pb2, lifecycle_pb2, registry_pb2
from forebay_admin.audit.audit import Audit
from forebay_admin.audit.audit_store import Facts
from forebay_admin.fleet.lifecycle_client import LifecycleClient
from forebay_admin.people.access import Actor
from forebay_admin.queue.scheduler_client import SchedulerClient
from forebay_admin.wire_forms import moment

log = logging.getLogger(__name__)

_LONGEST_DRAIN_S = 30 * 86_400
SHOWN_S = 2.0
"""How long the scheduler is given to hear of a drain; it takes milliseconds."""
_LOOK_S = 0.05

_BACKEND, _NODE = lifecycle_pb2.LIFECYCLE_SCOPE_BACKEND, lifecycle_pb2.LIFECYCLE_SCOPE_NODE


class LifecycleDesk:
    def __init__(
        self, database: Database, lifecycle: LifecycleClient, scheduler: SchedulerClient, clock: Clock
    ) -> None:
        self._audit = Audit(database, clock)
        self._lifecycle = lifecycle
        self._scheduler = scheduler

    async def drain_backend(
        self, request: admin_pb2.DrainBackendRequest, actor: Actor
    ) -> admin_pb2.DrainBackendResponse:
        drained = await self._drain(_BACKEND, request.name, request, actor)
        return drained[0]

    async def drain_node(self, request: admin_pb2.DrainNodeRequest, actor: Actor) -> admin_pb2.DrainNodeResponse:
        return admin_pb2.DrainNodeResponse(backends=await self._drain(_NODE, request.node, request, actor))

    async def schedule_maintenance(
        self, request: lifecycle_pb2.AddMaintenanceRequest, actor: Actor
    ) -> lifecycle_pb2.AddMaintenanceResponse:
        await self._audit.demand()
        request.actor = actor.name
        answer = await self._lifecycle.add_maintenance(request)
        await self._record(actor, "maintenance.add", answer.window.id, after=_window_facts(answer.window))
        return answer

    async def show_maintenance(self) -> lifecycle_pb2.ListMaintenanceResponse:
        return await self._lifecycle.list_maintenance()

    async def cancel_maintenance(
        self, request: lifecycle_pb2.RemoveMaintenanceRequest, actor: Actor
    ) -> lifecycle_pb2.RemoveMaintenanceResponse:
        await self._audit.demand()
        request.actor = actor.name
        answer = await self._lifecycle.remove_maintenance(request)
        await self._record(actor, "maintenance.remove", answer.window.id, before=_window_facts(answer.window))
        return answer

    async def show_health(self, request: lifecycle_pb2.ShowHealthRequest) -> lifecycle_pb2.ShowHealthResponse:
        return await self._lifecycle.show_health(request)

    async def probe(self, request: lifecycle_pb2.LookNowRequest, actor: Actor) -> lifecycle_pb2.LookNowResponse:
        await self._audit.demand()
        request.actor = actor.name
        answer = await self._lifecycle.look_now(request)
        health = registry_pb2.BackendHealth.Name(answer.backend.health).removeprefix("BACKEND_HEALTH_").lower()
        await self._record(actor, "backend.probe", request.name, after={"health": health, "looked": answer.looked})
        return answer

    # --- drains -----------------------------------------------------------------------------------------------------

    async def _drain(
        self,
        scope: lifecycle_pb2.LifecycleScope.ValueType,
        name: str,
        request: admin_pb2.DrainBackendRequest | admin_pb2.DrainNodeRequest,
        actor: Actor,
    ) -> list[admin_pb2.DrainBackendResponse]:
        if request.deadline_s > _LONGEST_DRAIN_S:
            raise BadInput("A drain's deadline is at most 30 days away; without one, everything may finish.")
        if request.undo and (request.deadline_s or request.force):
            raise BadInput("Undoing a drain has no deadline, and no force.")
        await self._audit.demand()
        what = "backend" if scope == _BACKEND else "node"
        if request.undo:
            lifted = await self._lifecycle.lift_drain(
                lifecycle_pb2.LiftDrainRequest(actor=actor.name, scope=scope, name=name)
            )
            await self._undo_at_scheduler(actor, lifted.backends)
            before = _drain_facts(lifted.before) if lifted.HasField("before") else None
            await self._record(actor, f"{what}.undrain", name, before=before)
            return [admin_pb2.DrainBackendResponse(backend_id=b.id, name=b.name) for b in lifted.backends]
        ordered = await self._lifecycle.order_drain(
            lifecycle_pb2.OrderDrainRequest(
                actor=actor.name,
                scope=scope,
                name=name,
                deadline_s=request.deadline_s,
                force=request.force,
                reason=request.reason,
            )
        )
        answers = await self._running(ordered.backends)
        before = _drain_facts(ordered.before) if ordered.HasField("before") else None
        after = {**_drain_facts(ordered.order), "running": sum(answer.running for answer in answers)}
        await self._record(actor, f"{what}.drain", name, before=before, after=after)
        return answers

    async def _running(self, backends: Sequence[registry_pb2.Backend]) -> list[admin_pb2.DrainBackendResponse]:
        """What the scheduler still holds there, once it has heard that they drain."""
        held: dict[str, int] = {}
        ends = time.monotonic() + SHOWN_S
        while len(held) < len(backends):
            try:
                queue = await self._scheduler.queue()
            except ForebayError as error:
                log.debug("no scheduler told", extra={"action": "drain_unseen", "why": error.message})
                break
            held = {one.backend_id: one.held + one.quarantined for one in queue.held if one.draining}
            held = {backend.id: held[backend.id] for backend in backends if backend.id in held}
            if time.monotonic() >= ends:
                break
            await asyncio.sleep(_LOOK_S if len(held) < len(backends) else 0.0)
        return [
            admin_pb2.DrainBackendResponse(
                backend_id=backend.id,
                name=backend.name,
                running=held.get(backend.id, 0),
                drained=held.get(backend.id) == 0,
                running_unknown=backend.id not in held,
            )
            for backend in backends
        ]

    async def _undo_at_scheduler(self, actor: Actor, backends: Iterable[registry_pb2.Backend]) -> None:
        """A drain that was asked of the scheduler itself, before the registry kept them."""
        for backend in backends:
            try:
                await self._scheduler.drain(actor.name, backend.id, 0, undo=True)
            except ForebayError as error:
                log.debug("nothing undone at the scheduler", extra={"action": "undrain", "why": error.message})

    async def _record(
        self, actor: Actor, action: str, subject: str, *, before: Facts | None = None, after: Facts | None = None
    ) -> None:
        lost = f"It is done for {subject}, but Postgres went away before it was audited; do it again."
        await self._audit.record(actor, action, subject, before=before, after=after, if_lost=lost)


def _drain_facts(order: lifecycle_pb2.DrainOrder) -> dict[str, str | int | bool | list[str] | None]:
    return {
        "deadline": moment(order.deadline_us).isoformat() if order.HasField("deadline_us") else None,
        "force": order.force,
        "reason": order.reason,
    }


def _window_facts(window: lifecycle_pb2.MaintenanceWindow) -> Facts:
    scope = lifecycle_pb2.LifecycleScope.Name(window.scope).removeprefix("LIFECYCLE_SCOPE_").lower()
    return {
        scope: window.name,
        "from": moment(window.begins_at_us).isoformat(),
        "to": moment(window.ends_at_us).isoformat(),
        "drain_before_s": window.drain_before_s,
        "reason": window.reason,
    }
