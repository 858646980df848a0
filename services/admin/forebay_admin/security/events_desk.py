"""Operators' calls about security events: those that were, and those that come."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from uuid import UUID

from forebay import subjects
from forebay.bus import Bus
from forebay.database import Database
from forebay.errors import BadInput
from forebay.wire.v1 import security_pb2 as wire
from forebay_admin.security.event_store import Sought, search
from forebay_admin.security.events import Kind
from forebay_admin.security.rules import demand_network
from forebay_admin.security.wire import event_to_wire
from forebay_admin.wire_forms import moment, moment_us

_MOST_LISTED, _USUAL_LISTED = 1000, 100


class SecurityEventsDesk:
    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus

    async def list_events(self, request: wire.ListSecurityEventsRequest) -> wire.ListSecurityEventsResponse:
        """Raises BadInput, Unavailable."""
        if request.limit > _MOST_LISTED:
            raise BadInput(f"At most {_MOST_LISTED} events are told at once.")
        limit = request.limit or _USUAL_LISTED
        sought = _sought(request)
        async with self._database.reading() as connection:
            found = await search(connection, sought, limit + 1)
        shown = found[:limit]
        last = shown[-1] if len(found) > limit else None
        return wire.ListSecurityEventsResponse(
            events=[event_to_wire(event) for event in shown],
            next_page=f"{moment_us(last.at)}-{last.id.hex}" if last is not None else "",
        )

    async def watch(
        self, request: wire.WatchSecurityEventsRequest
    ) -> AsyncGenerator[wire.WatchSecurityEventsResponse, None]:
        """Raises BadInput."""
        subject = subjects.security(_kind(request.kind)) if request.kind else subjects.SECURITY_OF_ALL
        async with self._bus.subscribe(subject) as messages:
            yield wire.WatchSecurityEventsResponse()
            async for message in messages:
                yield wire.WatchSecurityEventsResponse(events=[wire.SecurityEvent.FromString(message.payload)])


def _sought(request: wire.ListSecurityEventsRequest) -> Sought:
    """Raises BadInput."""
    return Sought(
        since=moment(request.from_us) if request.from_us else None,
        until=moment(request.to_us) if request.to_us else None,
        kind=_kind(request.kind) if request.kind else "",
        network=str(demand_network(request.address)) if request.address else "",
        key_id=request.key_id.removeprefix("fb-"),
        user=request.user,
        before=_page(request.page) if request.page else None,
    )


def _kind(text: str) -> str:
    """Raises BadInput."""
    if text not in set(Kind):
        raise BadInput(f"There are no events {text[:60]!r}; there are {', '.join(Kind)}.")
    return text


def _page(text: str) -> tuple[datetime, UUID]:
    """Raises BadInput."""
    at, _, event_id = text.partition("-")
    try:
        return moment(int(at)), UUID(hex=event_id)
    except ValueError as error:
        raise BadInput("This is no page of the security events: begin anew.") from error
