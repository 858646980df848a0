"""Members' requests for more, and what those who decide do about them: what was asked for is done, audited, in the same
transaction in which the request is closed."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

from google.protobuf import json_format

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotAllowed, NotPossible
from forebay.wire.v1 import key_terms_pb2
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Change, Changes
from forebay_admin.keys.change_wire import change_from
from forebay_admin.keys.key_life import revised
from forebay_admin.keys.key_store import key_with_id
from forebay_admin.keys.keys import key_id_from
from forebay_admin.keys.keys_desk import KeysDesk
from forebay_admin.notify.kinds import SUMMARY, Kind
from forebay_admin.notify.outbox import Outbox
from forebay_admin.people.access import Actor
from forebay_admin.people.people_desk import reachable_key, whose
from forebay_admin.people.people_store import user_named
from forebay_admin.quotas.quota_desk import QuotaDesk, that_apply
from forebay_admin.quotas.quota_requests import QuotaRequest, RequestState, decided, order_request
from forebay_admin.quotas.quota_store import budget_with_id, caps_of, find_subject
from forebay_admin.quotas.quotas import Caps, Subject, SubjectKind, demand_amount, demand_caps
from forebay_admin.quotas.request_store import (
    add_request,
    count_open,
    keep_decision,
    list_requests,
    request_with_id,
)
from forebay_admin.wire_forms import moment_us

log = logging.getLogger(__name__)

_STATES = {
    RequestState.OPEN: key_terms_pb2.QUOTA_REQUEST_STATE_OPEN,
    RequestState.APPROVED: key_terms_pb2.QUOTA_REQUEST_STATE_APPROVED,
    RequestState.DENIED: key_terms_pb2.QUOTA_REQUEST_STATE_DENIED,
}


class QuotaRequestsDesk:
    def __init__(
        self, database: Database, changes: Changes, quotas: QuotaDesk, keys: KeysDesk, outbox: Outbox, clock: Clock
    ) -> None:
        self._outbox = outbox
        self._database = database
        self._changes = changes
        self._quotas = quotas
        self._keys = keys
        self._clock = clock

    async def request(
        self, request: key_terms_pb2.RequestQuotaRequest, actor: Actor
    ) -> key_terms_pb2.RequestQuotaResponse:
        if not actor.user_id:
            raise BadInput("Only somebody who is a user can ask for more.")
        now = self._now()
        async with self._changes.make(self._database) as change:
            wish = _without_secrets(request.wish)
            await self._demand_meant(change, wish, actor)
            made = order_request(
                user_id=actor.user_id,
                user_name=actor.name,
                wish=json_format.MessageToDict(wish, preserving_proto_field_name=True),
                reason=request.reason,
                open_already=await count_open(change.connection, actor.user_id),
                now=now,
            )
            await add_request(change.connection, made)
            await self._note(change, actor, "quota.request", made, after=_facts(made))
            await self._tell(change, Kind.QUOTA_ASKED, made, f"{made.user_name} asks for more: {made.reason}")
        log.info("more is asked for", extra={"action": "quota_request", "request": made.id, "user": actor.name})
        return key_terms_pb2.RequestQuotaResponse(request=_to_wire(made))

    async def list_all(
        self, request: key_terms_pb2.ListQuotaRequestsRequest, actor: Actor
    ) -> key_terms_pb2.ListQuotaRequestsResponse:
        name = whose(request.user, actor, "ListQuotaRequests")
        async with self._database.reading() as connection:
            user_id = (await user_named(connection, name)).id if name else ""
            found = await list_requests(connection, user_id=user_id, include_decided=request.include_decided)
        return key_terms_pb2.ListQuotaRequestsResponse(requests=[_to_wire(one) for one in found])

    async def decide(
        self, request: key_terms_pb2.DecideQuotaRequestRequest, actor: Actor
    ) -> key_terms_pb2.DecideQuotaRequestResponse:
        async with self._changes.make(self._database) as change:
            before = await request_with_id(change.connection, request.id)
            after = decided(before, approve=request.approve, answer=request.answer, by=actor.name, now=self._now())
            if request.approve:
                if before.user_id == actor.user_id:
                    raise NotAllowed("Nobody approves what they asked for themselves: have somebody else decide.")
                await self._do(change, before, actor)
            await keep_decision(change.connection, after)
            action = "quota.approve" if request.approve else "quota.deny"
            await self._note(change, actor, action, after, before=_facts(before), after=_facts(after))
            said = f": {after.answer}" if after.answer else ""
            what = f"{after.decided_by} {after.state} what {after.user_name} asked for{said}"
            await self._tell(change, Kind.QUOTA_DECIDED, after, what)
        log.info(
            "a request for more is decided",
            extra={"action": "quota_decision", "request": after.id, "user": after.user_name, "state": str(after.state)},
        )
        return key_terms_pb2.DecideQuotaRequestResponse(request=_to_wire(after), version=change.version)

    async def _demand_meant(self, change: Change, wish: key_terms_pb2.QuotaWish, actor: Actor) -> None:
        """That it can be done, and is about what is theirs. Raises BadInput, NotFound, NotAllowed."""
        connection = change.connection
        match wish.WhichOneof("of"):
            case "limits":
                demand_caps(_caps(wish.limits, Caps()))
                if wish.limits.key_id:
                    await reachable_key(connection, key_id_from(wish.limits.key_id), actor, "RequestQuota")
            case "budget":
                subject, budget = await budget_with_id(connection, wish.budget.id)
                demand_amount(budget.unit, wish.budget.amount)
                if subject not in await self._theirs(change, subject, actor):
                    raise NotAllowed(f"The budget {budget.id} is none of yours.")
            case "key_terms":
                key_id = key_id_from(wish.key_terms.key_id)
                key = await reachable_key(connection, key_id, actor, "RequestQuota")
                revised(key, change_from(wish.key_terms), only_narrower=False)
            case _:
                raise BadInput("Say what is asked for: limits, a budget's amount, or what a key may.")

    async def _theirs(self, change: Change, subject: Subject, actor: Actor) -> list[Subject]:
        """Themselves, their groups, and their key if that is what it is about."""
        if subject.kind is SubjectKind.KEY:
            return [subject] if subject.user_name == actor.name else []
        return await that_apply(change.connection, Subject(SubjectKind.USER, actor.user_id, actor.name))

    async def _do(self, change: Change, request: QuotaRequest, actor: Actor) -> None:
        """Raises NotPossible where what it was about is gone, and what the changes themselves raise."""
        wish = _wish(request)
        match wish.WhichOneof("of"):
            case "limits":
                named = wish.limits.key_id
                kind = SubjectKind.KEY if named else SubjectKind.USER
                subject = await find_subject(change.connection, kind, named or request.user_name)
                caps = demand_caps(_caps(wish.limits, await caps_of(change.connection, subject)))
                await self._quotas.keep_limits(change, subject, caps, actor)
            case "budget":
                await self._quotas.keep_amount(change, wish.budget.id, wish.budget.amount, actor)
            case "key_terms":
                key = await key_with_id(change.connection, key_id_from(wish.key_terms.key_id))
                if key.user_id != request.user_id:
                    raise NotPossible(f"The key {key.public_id} is not {request.user_name}'s any more.")
                await self._keys.revise(change, key, change_from(wish.key_terms), actor, only_narrower=False)
            case _:
                raise NotPossible("This version does not know what was asked for; deny it.")

    async def _tell(self, change: Change, kind: Kind, request: QuotaRequest, summary: str) -> None:
        body = {SUMMARY: summary, "request": request.id, **_facts(request)}
        await self._outbox.put(change.connection, kind, f"user {request.user_name}", body, user_id=request.user_id)

    async def _note(
        self,
        change: Change,
        actor: Actor,
        action: str,
        request: QuotaRequest,
        *,
        after: Facts,
        before: Facts | None = None,
    ) -> None:
        act = Act(actor.name, action, request.id, actor_key_id=actor.key_id, before=before, after=after)
        await record(change.connection, act, self._now())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _caps(wish: key_terms_pb2.LimitsWish, before: Caps) -> Caps:
    """Raises BadInput when it names none."""
    named = {
        name: getattr(wish, name)
        for name in ("requests_per_minute", "tokens_per_minute", "concurrency")
        if wish.HasField(name)
    }
    if not named:
        raise BadInput("Say which limit is asked for; none was named.")
    return replace(before, **named)


def _without_secrets(wish: key_terms_pb2.QuotaWish) -> key_terms_pb2.QuotaWish:
    """With public ids: a key may be named by itself, and what is asked for is kept and shown. Raises BadInput."""
    meant = key_terms_pb2.QuotaWish()
    meant.CopyFrom(wish)
    for of in (meant.limits, meant.key_terms):
        if of.key_id:
            of.key_id = key_id_from(of.key_id)
    return meant


def _wish(request: QuotaRequest) -> key_terms_pb2.QuotaWish:
    return json_format.ParseDict(dict(request.wish), key_terms_pb2.QuotaWish(), ignore_unknown_fields=True)


def _facts(request: QuotaRequest) -> Facts:
    return {
        "user": request.user_name,
        "state": request.state.value,
        "wish": json_format.MessageToJson(_wish(request), preserving_proto_field_name=True, indent=None),
        "reason": request.reason,
        "answer": request.answer,
    }


def _to_wire(request: QuotaRequest) -> key_terms_pb2.QuotaRequest:
    return key_terms_pb2.QuotaRequest(
        id=request.id,
        user_name=request.user_name,
        wish=_wish(request),
        reason=request.reason,
        state=_STATES[request.state],
        created_at_us=moment_us(request.created_at),
        decided_at_us=moment_us(request.decided_at) if request.decided_at is not None else None,
        decided_by=request.decided_by,
        answer=request.answer,
    )
