"""Operators' calls that the scheduler answers: authorised and audited here, and given the names that people know."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import text

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotFound, Unavailable
from forebay.wire.v1 import admin_pb2, registry_pb2
from forebay_admin.access import Actor
from forebay_admin.audit_store import Act, record
from forebay_admin.group_store import read_groups
from forebay_admin.people_store import list_users
from forebay_admin.registry_client import RegistryClient
from forebay_admin.scheduler_client import SchedulerClient

log = logging.getLogger(__name__)

_LONGEST_ID = 256
_LONGEST_DRAIN_S = 30 * 86_400


class SchedulerDesk:
    def __init__(self, database: Database, scheduler: SchedulerClient, registry: RegistryClient, clock: Clock) -> None:
        self._database = database
        self._scheduler = scheduler
        self._registry = registry
        self._clock = clock

    async def view_queue(self) -> admin_pb2.ViewQueueResponse:
        return admin_pb2.ViewQueueResponse(queue=await self._scheduler.queue(), names=await self._names())

    async def view_explanation(self, request: admin_pb2.ViewExplanationRequest) -> admin_pb2.ViewExplanationResponse:
        asked = request.request_id.strip()
        if not asked or len(asked) > _LONGEST_ID:
            raise BadInput("Give a request's id, as the answer's header x-request-id tells it, or its ledger id.")
        found = await self._scheduler.explain(request_id=asked)
        ledger_id = _ledger_id(asked)
        if not found and ledger_id is not None:
            found = await self._scheduler.explain(ledger_id=ledger_id)
        if not found:
            raise NotFound(
                f"The scheduler remembers no request {asked}; it keeps the latest only, and those that were refused by a "
                "gateway never reach it. What became of it: forebay usage --rows"
            )
        return admin_pb2.ViewExplanationResponse(explanations=found, names=await self._names())

    async def view_dump(self) -> admin_pb2.ViewDumpResponse:
        return admin_pb2.ViewDumpResponse(dump=await self._scheduler.dump(), names=await self._names())

    async def drain_backend(
        self, request: admin_pb2.DrainBackendRequest, actor: Actor
    ) -> admin_pb2.DrainBackendResponse:
        if request.deadline_s > _LONGEST_DRAIN_S:
            raise BadInput("A drain's deadline is at most 30 days away; without one, everything may finish.")
        if request.undo and request.deadline_s:
            raise BadInput("Undoing a drain has no deadline.")
        async with self._database.reading() as connection:  # what cannot be audited is not begun
            await connection.execute(text("SELECT 1"))
        backend = await self._backend(request.name)
        answer = await self._scheduler.drain(actor.name, backend.id, request.deadline_s, undo=request.undo)
        act = Act(
            actor.name,
            "backend.undrain" if request.undo else "backend.drain",
            backend.name,
            actor_key_id=actor.key_id,
            after=None if request.undo else {"deadline_s": request.deadline_s or None, "running": answer.running},
        )
        try:
            async with self._database.writing() as connection:
                await record(connection, act, datetime.fromtimestamp(self._clock.now(), UTC))
        except Unavailable as error:
            raise Unavailable(
                f"The scheduler has done it for {backend.name}, but Postgres went away before it was audited; do it again."
            ) from error
        return admin_pb2.DrainBackendResponse(
            backend_id=backend.id, name=backend.name, running=answer.running, drained=answer.drained
        )

    async def _backend(self, name: str) -> registry_pb2.Backend:
        """Raises NotFound, Unavailable."""
        backends = await self._registry.backends()
        found = next((backend for backend in backends if backend.name == name), None)
        if found is None:
            raise NotFound(f"There is no backend {name}.")
        return found

    async def _names(self) -> admin_pb2.Names:
        """As far as they can be had: an id is better than no answer."""
        names = admin_pb2.Names()
        try:
            async with self._database.reading() as connection:
                names.users.update({user.id: user.name for user in await list_users(connection)})
                names.groups.update({group.id: group.name for group in (await read_groups(connection)).values()})
            names.backends.update({backend.id: backend.name for backend in await self._registry.backends()})
        except Unavailable as error:
            log.debug("names not known now", extra={"action": "names_away", "why": error.message})
        return names


def _ledger_id(asked: str) -> bytes | None:
    try:
        return UUID(asked).bytes
    except ValueError:
        return None
