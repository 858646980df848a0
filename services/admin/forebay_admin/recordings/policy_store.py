"""Recording policies in Postgres. Who sets one has the keys of all whom it is about told to gateways again."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.changes import Change
from forebay_admin.keys.key_terms import AuditPolicy
from forebay_admin.recordings.policies import Policy, groups_within, of_group
from forebay_admin.tables import groups, recording_policies, users


async def read_policies(connection: AsyncConnection) -> Mapping[str, Policy]:
    """By group, EVERYBODY among them."""
    rows = await connection.execute(select(recording_policies))
    return {row.group_id: Policy(AuditPolicy(row.policy), row.permille) for row in rows}


async def read_parents(connection: AsyncConnection) -> Mapping[str, str | None]:
    return {row.id: row.parent_id for row in await connection.execute(select(groups.c.id, groups.c.parent_id))}


async def policies_by_group(connection: AsyncConnection) -> Mapping[str, Policy]:
    """What holds for the members of each group, where somebody says something."""
    policies = await read_policies(connection)
    if not policies:
        return {}
    parents = await read_parents(connection)
    found = {group_id: of_group(group_id, policies, parents) for group_id in parents}
    return {group_id: policy for group_id, policy in found.items() if policy is not None}


async def set_policy(change: Change, group_id: str, policy: Policy | None) -> None:
    if policy is None:
        await change.connection.execute(delete(recording_policies).where(recording_policies.c.group_id == group_id))
    else:
        values = {"policy": policy.audit.value, "permille": policy.permille}
        statement = insert(recording_policies).values(group_id=group_id, **values)
        await change.connection.execute(statement.on_conflict_do_update(index_elements=["group_id"], set_=values))
    await tell_again(change, group_id)


async def tell_again(change: Change, group_id: str) -> None:
    """Of all members of the group and of those within it."""
    within = groups_within(group_id, await read_parents(change.connection))
    await change.connection.execute(
        update(users).where(users.c.group_id.in_(list(within))).values(version=change.version)
    )
