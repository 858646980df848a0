"""Who is no user yet and asks to be one: anybody may ask, those who decide make the user, with a link by which a password is
set, in the same transaction in which the request is closed."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from forebay.client_addresses import neighbourhood
from forebay.clock import Clock
from forebay.database import Database
from forebay.keys import seal_secret
from forebay.wire.v1 import access_requests_pb2 as wire
from forebay_admin.audit.audit import Note
from forebay_admin.audit.audit_store import Facts
from forebay_admin.changes import Changes
from forebay_admin.notify.kinds import SUMMARY, Kind
from forebay_admin.notify.outbox import Outbox
from forebay_admin.people.access import Actor
from forebay_admin.people.people import Role, order_user
from forebay_admin.people.people_desk import user_facts
from forebay_admin.people.people_store import add_user
from forebay_admin.people.rights import Rights, demand_no_wider
from forebay_admin.quotas.member_store import start_member
from forebay_admin.sign_in.access_request_store import (
    access_request_with_id,
    add_access_request,
    forget_access_requests,
    keep_access_decision,
    list_access_requests,
    open_access_requests,
)
from forebay_admin.sign_in.access_requests import (
    AccessRequest,
    AccessState,
    decided,
    demand_room,
    order_access,
)
from forebay_admin.sign_in.bearers import BearerKind, new_bearer
from forebay_admin.sign_in.pace import Pace
from forebay_admin.sign_in.password_store import set_reset
from forebay_admin.sign_in.passwords import RESET_LIFE
from forebay_admin.wire_forms import moment_us

log = logging.getLogger(__name__)

_STATES = {
    AccessState.OPEN: wire.ACCESS_REQUEST_STATE_OPEN,
    AccessState.APPROVED: wire.ACCESS_REQUEST_STATE_APPROVED,
    AccessState.DENIED: wire.ACCESS_REQUEST_STATE_DENIED,
}


class AccessRequestsDesk:
    def __init__(
        self, database: Database, changes: Changes, outbox: Outbox, pepper: bytes, clock: Clock, *, reset_url: str
    ) -> None:
        """`reset_url`: the page where a password is set, to which a token is added."""
        self._database = database
        self._changes = changes
        self._outbox = outbox
        self._pepper = pepper
        self._clock = clock
        self._note = Note(clock)
        self._reset_url = reset_url
        self._pace = Pace(at_once=5, every_s=60.0)

    async def ask(self, *, name: str, mail: str, reason: str, address: str) -> None:
        """Anybody's. Whether the same mail address has asked before is not told. Raises WrongAnswer, NotPossible,
        TooOften, Unavailable."""
        place = neighbourhood(address)
        made = order_access(name=name, mail=mail, reason=reason, address=place, now=self._now())
        self._pace.demand(place, self._clock.monotonic())
        async with self._database.writing() as connection:
            await forget_access_requests(connection, made.created_at)
            demand_room(*await open_access_requests(connection, place))
            if not await add_access_request(connection, made):
                return
            body = {SUMMARY: f"{made.name} ({made.mail}) asks to be let in: {made.reason}", "request": made.id}
            await self._outbox.put(connection, Kind.ACCESS_ASKED, f"request {made.id}", {**body, **_facts(made)})
        log.info("somebody asks to be let in", extra={"action": "access_request", "request": made.id})

    async def list_all(self, request: wire.ListAccessRequestsRequest) -> wire.ListAccessRequestsResponse:
        async with self._database.reading() as connection:
            found = await list_access_requests(connection, include_decided=request.include_decided)
        return wire.ListAccessRequestsResponse(requests=[_to_wire(one) for one in found])

    async def decide(self, request: wire.DecideAccessRequestRequest, actor: Actor) -> wire.DecideAccessRequestResponse:
        now = self._now()
        reset, expires_at = new_bearer(BearerKind.RESET), now + RESET_LIFE
        async with self._changes.make(self._database) as change:
            before = await access_request_with_id(change.connection, request.id)
            name = (request.user.strip() or before.mail) if request.approve else ""
            after = decided(
                before, approve=request.approve, answer=request.answer, user_name=name, by=actor.name, now=now
            )
            if request.approve:
                order = order_user(name, request.group, Role.MEMBER)
                demand_no_wider(Rights(order.role), actor.rights, f"With the role {order.role} one")
                user = await add_user(change, order, now)
                await self._note(change, actor, "user.add", user.name, after=user_facts(user))
                await start_member(change, user, actor.name, now)
                await set_reset(
                    change.connection,
                    token_hmac=seal_secret(self._pepper, reset.secret),
                    user_id=user.id,
                    created_by=actor.name,
                    expires_at=expires_at,
                )
            await keep_access_decision(change.connection, after)
            action = "access.approve" if request.approve else "access.deny"
            await self._note(change, actor, action, after.id, before=_facts(before), after=_facts(after))
        log.info(
            "a request to be let in is decided",
            extra={"action": "access_decision", "request": after.id, "state": str(after.state)},
        )
        told = wire.DecideAccessRequestResponse(request=_to_wire(after))
        if request.approve:
            told.url, told.url_expires_at_us = f"{self._reset_url}?token={reset}", moment_us(expires_at)
        return told

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _facts(request: AccessRequest) -> Facts:
    return {
        "name": request.name,
        "mail": request.mail,
        "reason": request.reason,
        "address": request.address,
        "state": request.state.value,
        "answer": request.answer,
        "user": request.user_name,
    }


def _to_wire(request: AccessRequest) -> wire.AccessRequest:
    return wire.AccessRequest(
        id=request.id,
        name=request.name,
        mail=request.mail,
        reason=request.reason,
        state=_STATES[request.state],
        created_at_us=moment_us(request.created_at),
        address=request.address,
        decided_at_us=moment_us(request.decided_at) if request.decided_at is not None else None,
        decided_by=request.decided_by,
        answer=request.answer,
        user_name=request.user_name,
    )
