"""What new users of groups start with, in Postgres. Each function works on the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.audit.audit_store import Act, record_all
from forebay_admin.changes import Change
from forebay_admin.people.group_store import read_groups
from forebay_admin.people.people import User
from forebay_admin.quotas.member_limits import NO_LIMITS, MemberLimits, limits_for, plans_from_json, plans_to_json
from forebay_admin.quotas.quota_store import add_budget, keep_caps
from forebay_admin.quotas.quotas import Caps, Subject, SubjectKind, order_budget
from forebay_admin.tables import member_limits


async def read_member_limits(connection: AsyncConnection) -> dict[str, MemberLimits]:
    """By the group's id."""
    return {
        row.group_id: MemberLimits(
            Caps(row.requests_per_minute, row.tokens_per_minute, row.concurrency), plans_from_json(row.budgets)
        )
        for row in await connection.execute(select(member_limits))
    }


async def keep_member_limits(change: Change, group_id: str, limits: MemberLimits) -> None:
    if limits == NO_LIMITS:
        await change.connection.execute(delete(member_limits).where(member_limits.c.group_id == group_id))
        return
    values = {**asdict(limits.caps), "budgets": plans_to_json(limits.budgets)}
    await change.connection.execute(
        insert(member_limits)
        .values(group_id=group_id, **values)
        .on_conflict_do_update(index_elements=["group_id"], set_=values)
    )


async def start_member(change: Change, user: User, by: str, now: datetime) -> None:
    """Gives a user who was made just now what their group's new members start with; audited. `by`: who made them."""
    await start_members(change, (user,), by, now)


async def start_members(change: Change, users: Iterable[User], by: str, now: datetime) -> None:
    """The same, of many at once."""
    of_groups = await read_member_limits(change.connection)
    if not of_groups:
        return
    groups = await read_groups(change.connection)
    acts: list[Act] = []
    for user in users:
        found = limits_for(groups, of_groups, user.group_id)
        if found is None:
            continue
        group_name, limits = found
        subject = Subject(SubjectKind.USER, user.id, user.name)
        if limits.caps != Caps():
            await keep_caps(change, subject, limits.caps)
        for plan in limits.budgets:
            await add_budget(change, subject, order_budget(plan, now), by)
        acts.append(Act(by, "quota.start", str(subject), after={**limits.facts(), "group": group_name}))
    if acts:
        await record_all(change.connection, acts, now)
