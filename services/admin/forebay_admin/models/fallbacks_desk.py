"""Operators' calls about the models that are asked instead of one that does not answer."""

from __future__ import annotations

from datetime import UTC, datetime

from forebay.clock import Clock
from forebay.database import Database
from forebay.wire.v1 import admin_pb2
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Change, Changes
from forebay_admin.models.fallbacks import Fallback, demand_fallback
from forebay_admin.models.fallbacks_store import find_fallback, keep_fallback, remove_fallback
from forebay_admin.models.fallbacks_wire import fallback_from, fallback_to_wire
from forebay_admin.people.access import Actor


class FallbacksDesk:
    def __init__(self, database: Database, changes: Changes, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock

    async def set(self, request: admin_pb2.SetModelFallbackRequest, actor: Actor) -> admin_pb2.SetModelFallbackResponse:
        wanted = demand_fallback(fallback_from(request.fallback))
        async with self._changes.make(self._database) as change:
            before = await find_fallback(change.connection, wanted.model, wanted.pool)
            await keep_fallback(change, wanted)
            await self._note(change, actor, wanted.model, before, wanted)
        return admin_pb2.SetModelFallbackResponse(fallback=fallback_to_wire(wanted), version=change.version)

    async def remove(
        self, request: admin_pb2.RemoveModelFallbackRequest, actor: Actor
    ) -> admin_pb2.RemoveModelFallbackResponse:
        async with self._changes.make(self._database) as change:
            before = await remove_fallback(change, request.model, request.pool)
            await self._note(change, actor, before.model, before, None)
        return admin_pb2.RemoveModelFallbackResponse(fallback=fallback_to_wire(before), version=change.version)

    async def _note(
        self, change: Change, actor: Actor, model: str, before: Fallback | None, after: Fallback | None
    ) -> None:
        act = Act(
            actor.name, "model.fallback", model, actor_key_id=actor.key_id, before=_facts(before), after=_facts(after)
        )
        await record(change.connection, act, datetime.fromtimestamp(self._clock.now(), UTC))


def _facts(fallback: Fallback | None) -> Facts | None:
    if fallback is None:
        return None
    return {
        "pool": fallback.pool,
        "others": list(fallback.others),
        "order": fallback.order.value,
        "after_ms": fallback.after_ms,
    }
