"""Users and groups in Postgres. Each function works on the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Text, any_, cast, func, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import AlreadyExists, NotFound
from forebay_admin.changes import Change
from forebay_admin.people.groups import Group
from forebay_admin.people.people import Role, User, UserOrder, new_group_id, new_user_id
from forebay_admin.people.weights import ONE
from forebay_admin.tables import groups, users

_USER = select(
    users.c.id,
    users.c.name,
    users.c.group_id,
    groups.c.name.label("group_name"),
    users.c.role,
    users.c.created_at,
    users.c.disabled,
    users.c.weight_milli,
    users.c.max_queued,
    users.c.paused,
    users.c.is_service_account,
).join_from(users, groups, users.c.group_id == groups.c.id)


@dataclass(frozen=True, slots=True)
class UserWish:
    """Which users are looked for; what is empty or None is no condition."""

    name: str = ""
    """All of it, whatever its letters' case."""
    text: str = ""
    """In their name, whatever its letters' case."""
    group_id: str = ""
    role: Role | None = None
    disabled: bool | None = None


EVERYBODY = UserWish()


async def add_user(change: Change, order: UserOrder, now: datetime) -> User:
    """The user, in a group that is made when it is new. Raises AlreadyExists."""
    connection = change.connection
    # The counter's lock lets one writer in at a time, so a look before the insert is enough.
    if await _find(connection, order.name) is not None:
        raise AlreadyExists(f"There is a user {order.name} already.")
    group_id, group_name = await group_or_new(change, order.group, now)
    user = made_of(order, group_id, group_name, now)
    await insert_users(change, (user,), owner_group_id=order.owner_group_id)
    return user


def made_of(order: UserOrder, group_id: str, group_name: str, now: datetime) -> User:
    """The user whom the order makes, who has an id and stands nowhere yet."""
    return User(
        new_user_id(), order.name, group_id, group_name, order.role, now, is_service_account=order.is_service_account
    )


async def insert_users(change: Change, made: Sequence[User], *, owner_group_id: str | None = None) -> None:
    """Of whose names none is taken."""
    await change.connection.execute(
        insert(users),
        [
            {
                "id": user.id,
                "name": user.name,
                "group_id": user.group_id,
                "role": user.role.value,
                "disabled": False,
                "weight_milli": user.weight_milli,
                "max_queued": user.max_queued,
                "paused": user.paused,
                "terms_version": change.version,
                "created_at": user.created_at,
                "version": change.version,
                "is_service_account": user.is_service_account,
                "owner_group_id": owner_group_id,
            }
            for user in made
        ],
    )


async def users_named(connection: AsyncConnection, names: Iterable[str]) -> dict[str, User]:
    """Those that there are, by their names in lower case."""
    wanted = sorted({name.lower() for name in names})
    found = await connection.execute(_USER.where(func.lower(users.c.name) == any_(cast(wanted, ARRAY(Text)))))
    return {row.name.lower(): _user(row) for row in found}


async def change_user(
    change: Change,
    before: User,
    *,
    group: Group | None,
    weight_milli: int | None,
    max_queued: int | None,
    paused: bool | None,
) -> User:
    """The user as they are afterwards; None stays as it is."""
    after = replace(
        before,
        group_id=group.id if group is not None else before.group_id,
        group_name=group.name if group is not None else before.group_name,
        weight_milli=before.weight_milli if weight_milli is None else weight_milli,
        max_queued=before.max_queued if max_queued is None else max_queued,
        paused=before.paused if paused is None else paused,
    )
    versions = {"terms_version": change.version}
    if after.group_id != before.group_id:  # which gateways need to know too
        versions["version"] = change.version
    await change.connection.execute(
        update(users)
        .where(users.c.id == before.id)
        .values(
            group_id=after.group_id,
            weight_milli=after.weight_milli,
            max_queued=after.max_queued,
            paused=after.paused,
            **versions,
        )
    )
    return after


async def group_or_new(change: Change, name: str, now: datetime) -> tuple[str, str]:
    """Its id and its name as it is written there; made if there is none of that name, in whatever case."""
    known = select(groups.c.id, groups.c.name).where(func.lower(groups.c.name) == name.lower())
    row = (await change.connection.execute(known)).first()
    if row is not None:
        return row.id, row.name
    group_id = new_group_id()
    await change.connection.execute(
        insert(groups).values(
            id=group_id, name=name, weight_milli=ONE, paused=False, created_at=now, version=change.version
        )
    )
    return group_id, name


async def groups_named(connection: AsyncConnection, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Those that there are, by their names in lower case: id, and the name as it is written there."""
    wanted = sorted({name.lower() for name in names})
    found = await connection.execute(
        select(groups.c.id, groups.c.name).where(func.lower(groups.c.name) == any_(cast(wanted, ARRAY(Text))))
    )
    return {row.name.lower(): (row.id, row.name) for row in found}


async def user_named(connection: AsyncConnection, name: str) -> User:
    """Raises NotFound."""
    user = await _find(connection, name)
    if user is None:
        raise NotFound(f"There is no user {name}.")
    return user


async def user_with_id(connection: AsyncConnection, user_id: str) -> User:
    """Raises NotFound."""
    row = (await connection.execute(_USER.where(users.c.id == user_id))).first()
    if row is None:
        raise NotFound("There is no such user any more.")
    return _user(row)


async def list_users(
    connection: AsyncConnection, *, limit: int = 0, after: str = "", wish: UserWish = EVERYBODY
) -> list[User]:
    """By name. `limit`: so many at most; 0: all. `after`: only those after the user with this id. Raises NotFound when there
    is none."""
    by_name = func.lower(users.c.name)
    query = _USER.order_by(by_name)
    if wish.name:
        query = query.where(by_name == wish.name.lower())
    if wish.text:
        query = query.where(func.strpos(by_name, wish.text.lower()) > 0)
    if wish.group_id:
        query = query.where(users.c.group_id == wish.group_id)
    if wish.role is not None:
        query = query.where(users.c.role == wish.role.value)
    if wish.disabled is not None:
        query = query.where(users.c.disabled.is_(wish.disabled))
    if after:
        last = await connection.scalar(select(by_name).where(users.c.id == after))
        if last is None:
            raise NotFound(f"There is no user with the id {after} after whom the list could go on.")
        query = query.where(by_name > last)
    return [_user(row) for row in await connection.execute(query.limit(limit) if limit else query)]


async def has_users(connection: AsyncConnection) -> bool:
    return bool(await connection.scalar(select(select(users.c.id).exists())))


async def _find(connection: AsyncConnection, name: str) -> User | None:
    row = (await connection.execute(_USER.where(func.lower(users.c.name) == name.lower()))).first()
    return _user(row) if row is not None else None


def _user(row: Any) -> User:
    return User(
        row.id,
        row.name,
        row.group_id,
        row.group_name,
        Role(row.role),
        row.created_at,
        row.disabled,
        row.weight_milli,
        row.max_queued,
        row.paused,
        row.is_service_account,
    )
