"""Groups in Postgres. Each function works on the caller's transaction; the counter's lock lets one writer in at a time, so
that what was looked at before a change still holds when it is written, cycles among it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import AlreadyExists, BadInput, NotFound
from forebay_admin.changes import Change
from forebay_admin.people.groups import Group, demand_place
from forebay_admin.people.people import new_group_id
from forebay_admin.people.weights import ONE
from forebay_admin.removals import Removable, note_removal
from forebay_admin.tables import groups, users

_MEMBERS = select(func.count()).where(users.c.group_id == groups.c.id).correlate(groups).scalar_subquery()
_GROUP = select(
    groups.c.id,
    groups.c.name,
    groups.c.parent_id,
    groups.c.weight_milli,
    groups.c.paused,
    groups.c.created_at,
    _MEMBERS.label("members"),
)


async def read_groups(connection: AsyncConnection) -> dict[str, Group]:
    """By id."""
    return {row.id: _group(row) for row in await connection.execute(_GROUP)}


async def group_named(connection: AsyncConnection, name: str) -> Group:
    """Raises NotFound."""
    row = (await connection.execute(_GROUP.where(func.lower(groups.c.name) == name.lower()))).first()
    if row is None:
        raise NotFound(f"There is no group {name}.")
    return _group(row)


async def add_group(change: Change, name: str, parent: str, weight_milli: int | None, now: datetime) -> Group:
    """`parent` is a name, empty for outermost. Raises AlreadyExists, NotFound, BadInput."""
    known = await read_groups(change.connection)
    if _find(known, name) is not None:
        raise AlreadyExists(f"There is a group {name} already.")
    above = _parent(known, parent)
    demand_place(known, None, above)
    made = Group(new_group_id(), name, above.id if above is not None else None, weight_milli or ONE, False, now)
    await change.connection.execute(
        insert(groups).values(
            id=made.id,
            name=made.name,
            parent_id=made.parent_id,
            weight_milli=made.weight_milli,
            paused=False,
            created_at=now,
            version=change.version,
        )
    )
    return made


async def change_group(
    change: Change, name: str, *, parent: str | None, weight_milli: int | None, paused: bool | None
) -> tuple[Group, Group]:
    """Before and after; None stays as it is. Raises NotFound, BadInput."""
    known = await read_groups(change.connection)
    before = _find(known, name)
    if before is None:
        raise NotFound(f"There is no group {name}.")
    after = before
    if parent is not None:
        above = _parent(known, parent)
        demand_place(known, before, above)
        after = replace(after, parent_id=above.id if above is not None else None)
    if weight_milli is not None:
        after = replace(after, weight_milli=weight_milli)
    if paused is not None:
        after = replace(after, paused=paused)
    await change.connection.execute(
        update(groups)
        .where(groups.c.id == before.id)
        .values(
            parent_id=after.parent_id,
            weight_milli=after.weight_milli,
            paused=after.paused,
            version=change.version,
        )
    )
    return before, after


async def remove_group(change: Change, name: str) -> Group:
    """The group as it was. Raises NotFound, BadInput when somebody is in it."""
    known = await read_groups(change.connection)
    group = _find(known, name)
    if group is None:
        raise NotFound(f"There is no group {name}.")
    within = sorted(one.name for one in known.values() if one.parent_id == group.id)
    if group.members:
        some = list(
            await change.connection.scalars(
                select(users.c.name).where(users.c.group_id == group.id).order_by(func.lower(users.c.name)).limit(3)
            )
        )
        more = f" and {group.members - len(some)} more" if group.members > len(some) else ""
        raise BadInput(
            f"{group.name} has members ({', '.join(some)}{more}): move each with `forebay user set NAME --group OTHER`, "
            "then remove it."
        )
    if within:
        raise BadInput(
            f"{group.name} has groups in it ({', '.join(within)}): move each with `forebay group set NAME --parent OTHER` "
            "or --no-parent, or remove it, then remove this one."
        )
    owned = await change.connection.scalar(
        select(users.c.name).where(users.c.owner_group_id == group.id).order_by(func.lower(users.c.name)).limit(1)
    )
    if owned is not None:
        raise BadInput(
            f"{group.name} answers for the service account {owned}: give it to another group with "
            "`forebay user rights NAME --owner-group OTHER`, then remove this one."
        )
    await change.connection.execute(delete(groups).where(groups.c.id == group.id))
    await note_removal(change, Removable.GROUP, group.id)
    return group


def _find(known: Mapping[str, Group], name: str) -> Group | None:
    return next((group for group in known.values() if group.name.lower() == name.lower()), None)


def _parent(known: Mapping[str, Group], name: str) -> Group | None:
    if not name:
        return None
    found = _find(known, name)
    if found is None:
        raise NotFound(f"There is no group {name}.")
    return found


def _group(row: Any) -> Group:
    return Group(row.id, row.name, row.parent_id, row.weight_milli, row.paused, row.created_at, row.members)
