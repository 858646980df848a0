"""Operators' calls that the scheduler answers: authorised here, and given the names that people know."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from forebay.database import Database
from forebay.errors import BadInput, NotFound, Unavailable
from forebay.wire.v1 import admin_pb2, registry_pb2
from forebay_admin.people.group_store import read_groups
from forebay_admin.people.people_store import list_users
from forebay_admin.queue.scheduler_client import SchedulerClient

log = logging.getLogger(__name__)

_LONGEST_ID = 256


class KnowsBackends(Protocol):
    async def backends(self) -> Sequence[registry_pb2.Backend]: ...


class SchedulerDesk:
    def __init__(self, database: Database, scheduler: SchedulerClient, registry: KnowsBackends) -> None:
        self._database = database
        self._scheduler = scheduler
        self._registry = registry

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
