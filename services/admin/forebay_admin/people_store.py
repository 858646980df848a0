"""Users and groups in Postgres. Each function works on the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import AlreadyExists, NotFound
from forebay_admin.changes import Change
from forebay_admin.people import Role, User, UserOrder, new_group_id, new_user_id
from forebay_admin.tables import groups, users


@dataclass(frozen=True, slots=True)
class UserShare:
    """What the scheduler is told about a user."""

    user_id: str
    group_id: str
    weight_milli: int
    max_queued: int


_USER = select(
    users.c.id,
    users.c.name,
    users.c.group_id,
    groups.c.name.label("group_name"),
    users.c.role,
    users.c.created_at,
    users.c.disabled,
).join_from(users, groups, users.c.group_id == groups.c.id)


async def add_user(change: Change, order: UserOrder, now: datetime) -> User:
    """The user, in a group that is made when it is new. Raises AlreadyExists."""
    connection = change.connection
    # The counter's lock lets one writer in at a time, so a look before the insert is enough.
    if await _find(connection, order.name) is not None:
        raise AlreadyExists(f"There is a user {order.name} already.")
    group_id, group_name = await _group(change, order.group, now)
    user = User(new_user_id(), order.name, group_id, group_name, order.role, now)
    await connection.execute(
        insert(users).values(
            id=user.id,
            name=user.name,
            group_id=group_id,
            role=user.role.value,
            disabled=False,
            weight_milli=1000,
            max_queued=0,
            created_at=now,
            version=change.version,
        )
    )
    return user


async def _group(change: Change, name: str, now: datetime) -> tuple[str, str]:
    known = select(groups.c.id, groups.c.name).where(func.lower(groups.c.name) == name.lower())
    row = (await change.connection.execute(known)).first()
    if row is not None:
        return row.id, row.name
    group_id = new_group_id()
    await change.connection.execute(
        insert(groups).values(id=group_id, name=name, weight_milli=1000, created_at=now, version=change.version)
    )
    return group_id, name


async def user_named(connection: AsyncConnection, name: str) -> User:
    """Raises NotFound."""
    user = await _find(connection, name)
    if user is None:
        raise NotFound(f"There is no user {name}.")
    return user


async def list_users(connection: AsyncConnection) -> list[User]:
    """By name."""
    return [_user(row) for row in await connection.execute(_USER.order_by(func.lower(users.c.name)))]


async def has_users(connection: AsyncConnection) -> bool:
    return bool(await connection.scalar(select(select(users.c.id).exists())))


async def shares_since(connection: AsyncConnection, after: int) -> Sequence[UserShare]:
    """Of users who changed, or whose group did, at a version above `after`."""
    rows = await connection.execute(
        select(users.c.id, users.c.group_id, users.c.weight_milli, users.c.max_queued)
        .join_from(users, groups, users.c.group_id == groups.c.id)
        .where(or_(users.c.version > after, groups.c.version > after))
        .order_by(users.c.id)
    )
    return [UserShare(row.id, row.group_id, row.weight_milli, row.max_queued) for row in rows]


async def _find(connection: AsyncConnection, name: str) -> User | None:
    row = (await connection.execute(_USER.where(func.lower(users.c.name) == name.lower()))).first()
    return _user(row) if row is not None else None


def _user(row: Any) -> User:
    return User(row.id, row.name, row.group_id, row.group_name, Role(row.role), row.created_at, row.disabled)
