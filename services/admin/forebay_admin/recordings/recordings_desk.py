"""Recordings, for those who may read them: what is kept of whom, what was said, and its deletion. Each look is audited
before anything is told."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.engine import Row

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotFound
from forebay.wire.v1 import recordings_pb2 as wire
from forebay_admin.audit.audit import Audit, Note
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Changes
from forebay_admin.keys.key_terms import AuditPolicy
from forebay_admin.keys.terms_wire import audit_from, audit_to_wire
from forebay_admin.people.access import Actor
from forebay_admin.people.group_store import group_named, read_groups
from forebay_admin.people.people_store import user_named
from forebay_admin.recordings.policies import EVERYBODY, Policy, demand_permille
from forebay_admin.recordings.policy_store import read_policies, set_policy
from forebay_admin.recordings.recording_store import Sought, delete_of, find, search
from forebay_admin.recordings.rows import unpack
from forebay_admin.wire_forms import moment, moment_us

_MOST, _USUAL = 500, 50
_LONGEST_TEXT = 500


class RecordingsDesk:
    def __init__(self, database: Database, changes: Changes, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock
        self._audit = Audit(database, clock)
        self._note = Note(clock)

    async def search(self, request: wire.SearchRecordingsRequest, actor: Actor) -> wire.SearchRecordingsResponse:
        """Raises BadInput, NotFound, Unavailable."""
        if request.limit > _MOST:
            raise BadInput(f"At most {_MOST} recordings are told at once.")
        limit = request.limit or _USUAL
        sought = await self._sought(request)
        about = {"text": request.text, "user": request.user, "key_id": request.key_id, "model": request.model}
        after: Facts = {name: value for name, value in about.items() if value}
        await self._audit.record(
            actor, "recording.search", request.user or request.text[:100] or "everything", after=after
        )
        async with self._database.reading() as connection:
            found = await search(connection, sought, limit + 1)
        shown = found[:limit]
        return wire.SearchRecordingsResponse(
            recordings=[_told(row) for row in shown], next_page=_page(shown[-1]) if len(found) > limit else ""
        )

    async def show(self, request: wire.ShowRecordingRequest, actor: Actor) -> wire.ShowRecordingResponse:
        """Raises BadInput, NotFound, Unavailable."""
        name = _demand_name(request.id)
        async with self._database.reading() as connection:
            row = await find(connection, name)
        await self._audit.record(actor, "recording.read", row.request_id, after={"user": row.user_name or row.user_id})
        return wire.ShowRecordingResponse(recording=_told(row), request=unpack(row.request), answer=unpack(row.answer))

    async def delete(self, request: wire.DeleteRecordingsRequest, actor: Actor) -> wire.DeleteRecordingsResponse:
        """Raises BadInput, NotFound, Unavailable."""
        if bool(request.user) == bool(request.id):
            raise BadInput("Say whose recordings are to be deleted, or which one; not both.")
        async with self._database.writing() as connection:
            if request.user:
                user = await user_named(connection, request.user)
                deleted = await delete_of(connection, user_id=user.id)
            else:
                deleted = await delete_of(connection, name=_demand_name(request.id))
                if not deleted:
                    raise NotFound(f"Nothing is kept of a request {request.id[:80]}.")
            act = Act(
                actor.name,
                "recording.delete",
                request.user or request.id,
                actor_key_id=actor.key_id,
                before={"recordings": deleted},
            )
            await record(connection, act, datetime.fromtimestamp(self._clock.now(), UTC))
        return wire.DeleteRecordingsResponse(deleted=deleted)

    async def list_policies(self) -> wire.ListRecordingPoliciesResponse:
        async with self._database.reading() as connection:
            policies = await read_policies(connection)
            names = {group.id: group.name for group in (await read_groups(connection)).values()}
        return wire.ListRecordingPoliciesResponse(policies=_policies(policies, names))

    async def set_policy(
        self, request: wire.SetRecordingPolicyRequest, actor: Actor
    ) -> wire.SetRecordingPolicyResponse:
        """Raises BadInput, NotFound, Unavailable."""
        asked = request.policy
        audit = audit_from(asked.policy)
        policy = Policy(audit, demand_permille(asked.permille)) if audit is not None else None
        async with self._changes.make(self._database) as change:
            group_id = (await group_named(change.connection, asked.group)).id if asked.group else EVERYBODY
            before = await read_policies(change.connection)
            if policy is None and group_id not in before:
                raise NotFound(f"Nothing is said of what is kept of {asked.group or 'everybody'}.")
            await set_policy(change, group_id, policy)
            await self._note(
                change,
                actor,
                "recording.policy",
                asked.group or "everybody",
                before=_facts(before.get(group_id)),
                after=_facts(policy),
            )
            names = {group.id: group.name for group in (await read_groups(change.connection)).values()}
            after = await read_policies(change.connection)
        return wire.SetRecordingPolicyResponse(policies=_policies(after, names), version=change.version)

    async def _sought(self, request: wire.SearchRecordingsRequest) -> Sought:
        if len(request.text) > _LONGEST_TEXT:
            raise BadInput(f"A text to look for has at most {_LONGEST_TEXT} letters.")
        return Sought(
            text=request.text.replace("\0", ""),
            since=moment(request.from_us) if request.from_us else None,
            until=moment(request.to_us) if request.to_us else None,
            user_id=await self._user_id(request.user) if request.user else "",
            key_id=request.key_id,
            model=request.model,
            before=_before(request.page) if request.page else None,
        )

    async def _user_id(self, name: str) -> str:
        async with self._database.reading() as connection:
            return (await user_named(connection, name)).id


def _demand_name(name: str) -> str:
    if not name or len(name) > 512 or "\0" in name:
        raise BadInput("Say which: the id of a request, as its answer had it in x-request-id.")
    return name


def _told(row: Row[Any]) -> wire.RecordedRequest:
    return wire.RecordedRequest(
        id=row.ledger_id.hex,
        request_id=row.request_id,
        started_at_us=moment_us(row.at),
        user_name=row.user_name or row.user_id,
        key_id=row.key_id,
        group_name=row.group_name or row.group_id,
        model_requested=row.model_requested,
        model=row.model,
        route=row.route,
        stream=row.stream,
        policy=audit_to_wire(AuditPolicy(row.policy)),
        outcome=row.outcome,
        reason=row.reason,
        http_status=row.http_status,
        duration_ms=row.duration_ms,
        address=row.address,
        gateway=row.gateway,
        request_bytes=row.request_bytes,
        answer_bytes=row.answer_bytes,
        request_cut=row.request_cut,
        answer_cut=row.answer_cut,
        redacted=row.redacted,
    )


def _policies(policies: Mapping[str, Policy], names: Mapping[str, str]) -> list[wire.RecordingPolicy]:
    told = [
        wire.RecordingPolicy(
            group=names.get(group_id, ""), policy=audit_to_wire(policy.audit), permille=policy.permille
        )
        for group_id, policy in policies.items()
        if group_id == EVERYBODY or group_id in names
    ]
    return sorted(told, key=lambda policy: policy.group.lower())


def _facts(policy: Policy | None) -> Facts | None:
    return {"policy": policy.audit.value, "permille": policy.permille} if policy is not None else None


def _page(row: Row[Any]) -> str:
    return base64.urlsafe_b64encode(f"{row.at.isoformat()} {row.ledger_id.hex}".encode()).decode()


def _before(page: str) -> tuple[datetime, UUID]:
    """Raises BadInput."""
    try:
        at, _, ledger_id = base64.urlsafe_b64decode(page).decode().partition(" ")
        found = datetime.fromisoformat(at), UUID(hex=ledger_id)
        if found[0].tzinfo is None:
            raise ValueError(at)
    except ValueError as error:
        raise BadInput("This is no page of recordings: begin anew.") from error
    return found
