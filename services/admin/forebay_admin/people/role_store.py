"""Custom roles in Postgres, and who has them. Each function works on the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import BadInput, NotFound
from forebay_admin.changes import Change
from forebay_admin.people.people import User
from forebay_admin.people.permissions import Permission, known_permissions
from forebay_admin.people.rights import Rights
from forebay_admin.sign_in.tables import custom_roles, user_roles
from forebay_admin.tables import users

Given = Mapping[str, tuple[Permission, ...]]
"""User id → what their custom roles give them."""


@dataclass(frozen=True, slots=True)
class CustomRole:
    name: str
    permissions: tuple[str, ...]
    about: str = ""
    users: int = 0
    """Who have it."""


async def list_roles(connection: AsyncConnection) -> list[CustomRole]:
    """By name."""
    rows = await connection.execute(
        select(custom_roles.c.name, custom_roles.c.permissions, custom_roles.c.about).order_by(custom_roles.c.name)
    )
    counted = {
        row.role: row.number
        for row in await connection.execute(
            select(func.unnest(user_roles.c.roles).label("role"), func.count().label("number")).group_by("role")
        )
    }
    return [CustomRole(row.name, tuple(row.permissions), row.about, counted.get(row.name, 0)) for row in rows]


async def find_role(connection: AsyncConnection, name: str) -> CustomRole | None:
    return next((role for role in await list_roles(connection) if role.name.lower() == name.lower()), None)


async def set_role(change: Change, role: CustomRole) -> None:
    """In place of the one of this name, if there is one."""
    values = {"permissions": list(role.permissions), "about": role.about, "version": change.version}
    await change.connection.execute(
        insert(custom_roles)
        .values(name=role.name, **values)
        .on_conflict_do_update(index_elements=[custom_roles.c.name], set_=values)
    )


async def remove_role(change: Change, name: str) -> CustomRole:
    """The role as it was. Raises NotFound, BadInput when somebody has it."""
    role = await find_role(change.connection, name)
    if role is None:
        raise NotFound(f"There is no custom role {name}.")
    if role.users:
        some = await change.connection.scalars(
            select(users.c.name)
            .join_from(user_roles, users, user_roles.c.user_id == users.c.id)
            .where(user_roles.c.roles.contains([role.name]))
            .order_by(func.lower(users.c.name))
            .limit(3)
        )
        raise BadInput(
            f"{role.users} users have the role {role.name} ({', '.join(some)} …): take it from each with "
            "`forebay role take NAME --user USER`, then remove it."
        )
    await change.connection.execute(delete(custom_roles).where(custom_roles.c.name == role.name))
    return role


async def roles_of(connection: AsyncConnection, user_id: str) -> tuple[str, ...]:
    found = await connection.scalar(select(user_roles.c.roles).where(user_roles.c.user_id == user_id))
    return tuple(found or ())


async def permissions_of(connection: AsyncConnection, names: Iterable[str]) -> tuple[Permission, ...]:
    """All that these roles give together. Raises NotFound."""
    known = {role.name.lower(): role for role in await list_roles(connection)}
    found: set[Permission] = set()
    for name in names:
        role = known.get(name.lower())
        if role is None:
            raise NotFound(f"There is no custom role {name}.")
        found |= set(known_permissions(role.permissions))
    return tuple(sorted(found, key=str))


async def give_roles(change: Change, user_id: str, names: Sequence[str]) -> None:
    """These, and no others."""
    values = {"roles": list(names), "version": change.version}
    await change.connection.execute(
        insert(user_roles)
        .values(user_id=user_id, **values)
        .on_conflict_do_update(index_elements=[user_roles.c.user_id], set_=values)
    )


async def given_since(connection: AsyncConnection, after: int) -> Given | None:
    """Of everybody who has custom roles; None when nothing has changed about any since the version `after`. A role that was
    removed was nobody's."""
    newest = await connection.scalar(
        select(
            func.greatest(
                select(func.coalesce(func.max(custom_roles.c.version), 0)).scalar_subquery(),
                select(func.coalesce(func.max(user_roles.c.version), 0)).scalar_subquery(),
            )
        )
    )
    if after and (newest or 0) <= after:
        return None
    roles = {row.name: known_permissions(row.permissions) for row in await connection.execute(select(custom_roles))}
    given: dict[str, tuple[Permission, ...]] = {}
    for row in await connection.execute(select(user_roles.c.user_id, user_roles.c.roles)):
        found = {permission for name in row.roles for permission in roles.get(name, ())}
        if found:
            given[row.user_id] = tuple(sorted(found, key=str))
    return given


async def rights_of(connection: AsyncConnection, user: User) -> Rights:
    return Rights(user.role, await permissions_of(connection, await roles_of(connection, user.id)))


async def rights_of_each(connection: AsyncConnection, some: Iterable[User]) -> dict[str, Rights]:
    """By the user's id."""
    given = await given_since(connection, 0) or {}
    return {user.id: Rights(user.role, given.get(user.id, ())) for user in some}
