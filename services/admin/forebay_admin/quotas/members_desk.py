"""Operators' calls about what new members of groups start with."""

from __future__ import annotations

from datetime import UTC, datetime

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2
from forebay_admin.audit.audit_store import Act, record
from forebay_admin.changes import Changes
from forebay_admin.people.access import Actor
from forebay_admin.people.group_store import group_named, read_groups
from forebay_admin.quotas.member_limits import NO_LIMITS, changed
from forebay_admin.quotas.member_store import keep_member_limits, read_member_limits
from forebay_admin.quotas.policy_wire import caps_changed, member_limits_to_wire, plan_from


class MembersDesk:
    def __init__(self, database: Database, changes: Changes, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock

    async def set_limits(
        self, request: admin_pb2.SetMemberLimitsRequest, actor: Actor
    ) -> admin_pb2.SetMemberLimitsResponse:
        added = [plan_from(one) for one in request.budgets]
        if caps_changed(NO_LIMITS.caps, request) is None and not added and not request.no_budgets:
            raise BadInput("Say what new members start with: limits, budgets, or that there are no budgets any more.")
        async with self._changes.make(self._database) as change:
            group = await group_named(change.connection, request.group)
            before = (await read_member_limits(change.connection)).get(group.id, NO_LIMITS)
            caps = caps_changed(before.caps, request) or before.caps
            after = changed(before, caps, added, drops_budgets=request.no_budgets)
            await keep_member_limits(change, group.id, after)
            act = Act(
                actor.name,
                "group.members.set",
                group.name,
                actor_key_id=actor.key_id,
                before=before.facts(),
                after=after.facts(),
            )
            await record(change.connection, act, datetime.fromtimestamp(self._clock.now(), UTC))
        return admin_pb2.SetMemberLimitsResponse(
            limits=member_limits_to_wire(group.name, after), version=change.version
        )

    async def show_limits(self, request: admin_pb2.ShowMemberLimitsRequest) -> admin_pb2.ShowMemberLimitsResponse:
        async with self._database.reading() as connection:
            known = await read_member_limits(connection)
            if request.group:
                group = await group_named(connection, request.group)
                named = {group.name: known.get(group.id, NO_LIMITS)}
            else:
                groups = await read_groups(connection)
                named = {groups[group_id].name: limits for group_id, limits in known.items()}
        return admin_pb2.ShowMemberLimitsResponse(
            limits=[member_limits_to_wire(name, named[name]) for name in sorted(named, key=str.lower)]
        )
