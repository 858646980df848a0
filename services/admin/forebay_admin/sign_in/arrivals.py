"""Who a provider sends becomes a user here, the first time; each time, their group and role follow what the provider says,
where its settings say so. On the caller's transaction."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotAuthenticated, NotFound
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Change
from forebay_admin.people.people import Role, User, UserOrder, new_group_id
from forebay_admin.people.people_store import add_user, group_or_new, user_named, user_with_id
from forebay_admin.people.role_store import roles_of
from forebay_admin.people.weights import ONE
from forebay_admin.quotas.member_store import start_member
from forebay_admin.sign_in.claims import Arrival
from forebay_admin.sign_in.identity_store import identities_of, link, user_id_of
from forebay_admin.sign_in.password_store import hash_of
from forebay_admin.sign_in.providers import Provider
from forebay_admin.sign_in.session_store import list_tokens
from forebay_admin.tables import groups, keys, users


class NameTaken(NotAuthenticated):
    """Somebody else has this name here."""


async def receive(change: Change, arrival: Arrival, provider: Provider, now: datetime) -> User:
    """The user that they are. Raises NameTaken."""
    connection = change.connection
    user_id = await user_id_of(connection, arrival.issuer, arrival.subject)
    if user_id is not None:
        return await _follow(change, await user_with_id(connection, user_id), arrival, provider, now)
    user = await _unclaimed(connection, arrival, provider)
    if user is None:
        user = await _make(change, arrival, provider, now)
    await link(
        connection,
        issuer=arrival.issuer,
        subject=arrival.subject,
        user_id=user.id,
        provider=provider.name,
        now=now,
    )
    facts: Facts = {"provider": provider.name, "issuer": arrival.issuer, "subject": arrival.subject}
    await record(connection, Act(user.name, "user.link", user.name, after=facts), now)
    return await _follow(change, user, arrival, provider, now)


async def _unclaimed(connection: AsyncConnection, arrival: Arrival, provider: Provider) -> User | None:
    """The user of that name, when it was made for them and nobody has been it yet; None when the name is free."""
    try:
        user = await user_named(connection, arrival.name)
    except NotFound:
        return None
    is_theirs = provider.link_by_email and arrival.email and user.name.lower() == arrival.email
    has_key = await connection.scalar(select(select(keys.c.public_id).where(keys.c.user_id == user.id).exists()))
    if (
        not is_theirs
        or user.is_service_account
        or user.role is not Role.MEMBER
        or has_key
        or await hash_of(connection, user.id) is not None
        or await identities_of(connection, user.id)
        or await roles_of(connection, user.id)
        or await list_tokens(connection, user_id=user.id, include_revoked=True)
    ):
        raise NameTaken(
            f"There is a user {user.name} here already, who has not signed in with {provider.title} before: ask an admin."
        )
    return user


async def _make(change: Change, arrival: Arrival, provider: Provider, now: datetime) -> User:
    group = arrival.group or provider.default_group
    if group == provider.default_group:
        await _ensure_group(change, group, provider, now)
    user = await add_user(change, UserOrder(arrival.name, group, arrival.role or Role.MEMBER), now)
    facts: Facts = {"group": user.group_name, "role": user.role.value, "provider": provider.name}
    await record(change.connection, Act(f"provider {provider.name}", "user.add", user.name, after=facts), now)
    await start_member(change, user, f"provider {provider.name}", now)
    return user


async def _ensure_group(change: Change, name: str, provider: Provider, now: datetime) -> None:
    """The default group, with its limits from the first moment; limits of one that is there are its own."""
    known = await change.connection.scalar(select(groups.c.id).where(func.lower(groups.c.name) == name.lower()))
    if known is not None:
        return
    await change.connection.execute(
        insert(groups).values(
            id=new_group_id(),
            name=name,
            weight_milli=ONE,
            paused=False,
            created_at=now,
            version=change.version,
            **provider.default_limits,
        )
    )
    facts: Facts = dict(provider.default_limits)
    await record(change.connection, Act(f"provider {provider.name}", "group.add", name, after=facts), now)


async def _follow(change: Change, user: User, arrival: Arrival, provider: Provider, now: datetime) -> User:
    """Their group and role as the provider has them now."""
    connection = change.connection
    role = arrival.role if arrival.role is not None else user.role
    if user.role is Role.ADMIN and role is not Role.ADMIN and await _is_last_admin(connection, user):
        role = user.role  # somebody has to be left who can put the provider's settings right
    group_id, group_name = user.group_id, user.group_name
    if arrival.group is not None and arrival.group.lower() != user.group_name.lower():
        group_id, group_name = await group_or_new(change, arrival.group, now)
    if (role, group_id) == (user.role, user.group_id):
        return user
    await connection.execute(
        update(users)
        .where(users.c.id == user.id)
        .values(role=role.value, group_id=group_id, version=change.version, terms_version=change.version)
    )
    before: Facts = {"role": user.role.value, "group": user.group_name}
    after: Facts = {"role": role.value, "group": group_name}
    act = Act(f"provider {provider.name}", "user.follow", user.name, before=before, after=after)
    await record(connection, act, now)
    return await user_with_id(connection, user.id)


async def _is_last_admin(connection: AsyncConnection, user: User) -> bool:
    others = select(users.c.id).where(
        users.c.role == Role.ADMIN.value, users.c.disabled.is_(False), users.c.id != user.id
    )
    return not await connection.scalar(select(others.exists()))
