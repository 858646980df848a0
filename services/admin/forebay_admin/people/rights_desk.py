"""Operators' calls about what people may do: custom roles, who has them, service accounts, and who is let in at all.

Nobody makes anybody more than they are themselves, nor changes somebody who is."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotAllowed
from forebay.wire.v1 import identity_pb2
from forebay_admin.audit.audit import Note
from forebay_admin.audit.audit_store import Facts
from forebay_admin.changes import Changes
from forebay_admin.people.access import Actor
from forebay_admin.people.directory import Directory
from forebay_admin.people.group_store import group_named
from forebay_admin.people.people import EVERYONE, Role, User, UserOrder, demand_name
from forebay_admin.people.people_store import add_user, user_named
from forebay_admin.people.permissions import GROUPS, known_permissions, parse_permissions
from forebay_admin.people.rights import Rights, demand_no_wider
from forebay_admin.people.role_store import (
    CustomRole,
    find_role,
    give_roles,
    list_roles,
    permissions_of,
    remove_role,
    rights_of,
    roles_of,
    set_role,
)
from forebay_admin.people.roles import Reach
from forebay_admin.quotas.member_store import start_member
from forebay_admin.sign_in.badges import Badges
from forebay_admin.sign_in.identity_store import identities_of
from forebay_admin.sign_in.password_store import forget_resets, hash_of
from forebay_admin.sign_in.session_store import end_sessions
from forebay_admin.tables import groups, users
from forebay_admin.wire_forms import moment_us

_LONGEST_ABOUT = 200
_MOST_ROLES = 20


class RightsDesk:
    def __init__(
        self, database: Database, changes: Changes, directory: Directory, badges: Badges, clock: Clock
    ) -> None:
        self._database = database
        self._changes = changes
        self._directory = directory
        self._badges = badges
        self._clock = clock
        self._note = Note(clock)

    async def show_user(self, request: identity_pb2.ShowUserRequest, actor: Actor) -> identity_pb2.ShowUserResponse:
        name = request.name or actor.name
        if actor.reach("ShowUser") is not Reach.ALL and name.lower() != actor.name.lower():
            raise NotAllowed(f"{actor.name} may see only what is their own.")
        async with self._database.reading() as connection:
            user = await user_named(connection, name)
            return identity_pb2.ShowUserResponse(user=await _to_wire(connection, user))

    async def add_service_account(
        self, request: identity_pb2.AddServiceAccountRequest, actor: Actor
    ) -> identity_pb2.AddServiceAccountResponse:
        name = demand_name(request.name, "A service account's name")
        group = demand_name(request.group or EVERYONE, "A group's name")
        role = _role(request.role) if request.role else Role.MEMBER
        if not request.owner_group:
            raise BadInput("Say which group answers for the service account: owner_group.")
        demand_no_wider(Rights(role), actor.rights, f"With the role {role} one")
        async with self._changes.make(self._database) as change:
            owner = await group_named(change.connection, request.owner_group)
            order = UserOrder(name, group, role, is_service_account=True, owner_group_id=owner.id)
            user = await add_user(change, order, self._now())
            facts: Facts = {"group": user.group_name, "role": role.value, "owner_group": owner.name}
            await self._note(change, actor, "service_account.add", user.name, after=facts)
            await start_member(change, user, actor.name, self._now())
            made = await _to_wire(change.connection, user)
        return identity_pb2.AddServiceAccountResponse(user=made)

    async def set_user_rights(
        self, request: identity_pb2.SetUserRightsRequest, actor: Actor
    ) -> identity_pb2.SetUserRightsResponse:
        if len(request.ListFields()) < 2:
            raise BadInput("Say what is to be changed; nothing was named.")
        async with self._changes.make(self._database) as change:
            connection = change.connection
            user = await user_named(connection, request.name)
            roles = await roles_of(connection, user.id)
            demand_no_wider(await rights_of(connection, user), actor.rights, user.name)
            role = _role(request.role) if request.HasField("role") else user.role
            wanted = roles
            if request.HasField("custom_roles"):
                wanted = await _canonical(connection, request.custom_roles.names)
            disabled = request.disabled if request.HasField("disabled") else user.disabled
            owner_id = await _owner_id(connection, user)
            if request.HasField("owner_group"):
                if not user.is_service_account:
                    raise BadInput(f"{user.name} is a person, for whom no group answers.")
                owner_id = (await group_named(connection, request.owner_group)).id
            after = Rights(role, await permissions_of(connection, wanted))
            demand_no_wider(after, actor.rights, f"{user.name} would be somebody who")
            if user.role is Role.ADMIN and not user.disabled and (role is not Role.ADMIN or disabled):
                await _demand_another_admin(connection, user)
            await connection.execute(
                update(users)
                .where(users.c.id == user.id)
                .values(role=role.value, disabled=disabled, owner_group_id=owner_id, version=change.version)
            )
            if wanted != roles:
                await give_roles(change, user.id, wanted)
            if (role, wanted) != (user.role, roles):
                await forget_resets(connection, user.id)  # whoever holds one was let set the password of somebody else
            ended = await end_sessions(change, user.id, self._now()) if disabled and not user.disabled else 0
            await self._note(
                change,
                actor,
                "user.rights",
                user.name,
                before={"role": user.role.value, "custom_roles": list(roles), "disabled": user.disabled},
                after={
                    "role": role.value,
                    "custom_roles": list(wanted),
                    "disabled": disabled,
                    "sessions_ended": ended,
                    "owner_group_id": owner_id,
                },
            )
            told = await _to_wire(connection, await user_named(connection, user.name))
        await self._directory.caught_up(change.version)
        await self._badges.caught_up(change.version)
        return identity_pb2.SetUserRightsResponse(user=told, version=change.version)

    async def set_role(
        self, request: identity_pb2.SetCustomRoleRequest, actor: Actor
    ) -> identity_pb2.SetCustomRoleResponse:
        name = demand_name(request.name, "A role's name")
        if name.lower() in set(Role):
            raise BadInput(f"{name} is one of the built-in roles ({', '.join(Role)}); take another name.")
        about = request.about.strip()
        if len(about) > _LONGEST_ABOUT or not about.isprintable():
            raise BadInput(f"What a role is about has at most {_LONGEST_ABOUT} characters, all of them printable.")
        permissions = parse_permissions(request.permissions)
        # As if on its own: a member's rights are what everybody has.
        demand_no_wider(Rights(Role.MEMBER, permissions), actor.rights, "Who had this role")
        async with self._changes.make(self._database) as change:
            before = await find_role(change.connection, name)
            if before is not None:
                held = Rights(Role.MEMBER, known_permissions(before.permissions))
                demand_no_wider(held, actor.rights, f"Who has the role {before.name}")
            role = CustomRole(
                before.name if before is not None else name,
                tuple(str(one) for one in permissions),
                about,
                before.users if before is not None else 0,
            )
            await set_role(change, role)
            facts = _role_facts(before) if before is not None else None
            await self._note(change, actor, "role.set", role.name, before=facts, after=_role_facts(role))
        await self._badges.caught_up(change.version)
        return identity_pb2.SetCustomRoleResponse(role=_role_to_wire(role), version=change.version)

    async def list_roles(self) -> identity_pb2.ListCustomRolesResponse:
        async with self._database.reading() as connection:
            found = await list_roles(connection)
        return identity_pb2.ListCustomRolesResponse(roles=[_role_to_wire(role) for role in found], permissions=GROUPS)

    async def remove_role(
        self, request: identity_pb2.RemoveCustomRoleRequest, actor: Actor
    ) -> identity_pb2.RemoveCustomRoleResponse:
        async with self._changes.make(self._database) as change:
            role = await remove_role(change, request.name)
            await self._note(change, actor, "role.remove", role.name, before=_role_facts(role))
        return identity_pb2.RemoveCustomRoleResponse(role=_role_to_wire(role))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _role(text: str) -> Role:
    try:
        return Role(text.lower())
    except ValueError as error:
        raise BadInput(f"There is no role {text[:60]!r}; there are {', '.join(Role)}, and custom roles.") from error


async def _canonical(connection: AsyncConnection, names: object) -> tuple[str, ...]:
    """As the roles are written, each once. Raises NotFound, BadInput."""
    texts = [str(name) for name in names]  # type: ignore[attr-defined]
    if len(texts) > _MOST_ROLES:
        raise BadInput(f"A user has at most {_MOST_ROLES} custom roles.")
    await permissions_of(connection, texts)
    known = {role.name.lower(): role.name for role in await list_roles(connection)}
    return tuple(sorted({known[text.lower()] for text in texts}))


async def _demand_another_admin(connection: AsyncConnection, user: User) -> None:
    """The counter's lock lets one writer in at a time, so what is counted still holds when it is written."""
    others = await connection.scalar(
        select(func.count())
        .select_from(users)
        .where(users.c.role == Role.ADMIN.value, users.c.disabled.is_(False), users.c.id != user.id)
    )
    if not others:
        raise BadInput(f"{user.name} is the last admin: make another one first.")


async def _owner_id(connection: AsyncConnection, user: User) -> str | None:
    found: str | None = await connection.scalar(select(users.c.owner_group_id).where(users.c.id == user.id))
    return found


async def _to_wire(connection: AsyncConnection, user: User) -> identity_pb2.UserIdentity:
    owner = await connection.scalar(
        select(groups.c.name)
        .join_from(users, groups, users.c.owner_group_id == groups.c.id)
        .where(users.c.id == user.id)
    )
    return identity_pb2.UserIdentity(
        name=user.name,
        role=user.role.value,
        custom_roles=await roles_of(connection, user.id),
        is_service_account=user.is_service_account,
        owner_group=owner or "",
        disabled=user.disabled,
        has_password=await hash_of(connection, user.id) is not None,
        identities=[
            identity_pb2.LinkedIdentity(
                provider=one.provider, issuer=one.issuer, subject=one.subject, linked_at_us=moment_us(one.linked_at)
            )
            for one in await identities_of(connection, user.id)
        ],
    )


def _role_to_wire(role: CustomRole) -> identity_pb2.CustomRole:
    return identity_pb2.CustomRole(name=role.name, permissions=role.permissions, about=role.about, users=role.users)


def _role_facts(role: CustomRole) -> Facts:
    return {"permissions": list(role.permissions), "about": role.about, "users": role.users}
