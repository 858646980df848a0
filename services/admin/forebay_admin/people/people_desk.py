"""Operators' calls about people and their keys: parse, look at who asks, decide, write the change and its audit in one
transaction."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotAllowed, NotFound
from forebay.keys import new_key, seal_secret
from forebay.wire.v1 import admin_pb2
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Changes
from forebay_admin.keys.key_life import demand_audit_unchanged
from forebay_admin.keys.key_search import MOST as MOST_KEYS
from forebay_admin.keys.key_search import KeyWish, find_keys
from forebay_admin.keys.key_store import add_key, key_with_id, list_keys, revoke_key
from forebay_admin.keys.key_terms import parse_labels
from forebay_admin.keys.keys import Key, KeyOrder, key_id_from, narrowed, order_key
from forebay_admin.keys.terms_wire import terms_from
from forebay_admin.people.access import Actor
from forebay_admin.people.directory import Directory
from forebay_admin.people.group_store import group_named
from forebay_admin.people.people import User, order_user
from forebay_admin.people.people_store import UserWish, add_user, list_users, user_named, user_with_id
from forebay_admin.people.rights import Rights, demand_no_wider, too_wide
from forebay_admin.people.role_store import rights_of
from forebay_admin.people.roles import Reach
from forebay_admin.quotas.member_store import start_member
from forebay_admin.wire_forms import band_from, key_to_wire, role_from, state_from, user_to_wire

_MOST_USERS = 1000


class PeopleDesk:
    def __init__(self, database: Database, changes: Changes, directory: Directory, pepper: bytes, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._directory = directory
        self._pepper = pepper
        self._clock = clock

    async def create_key(self, request: admin_pb2.CreateKeyRequest, actor: Actor) -> admin_pb2.CreateKeyResponse:
        now = self._now()
        order = order_key(
            user=request.user,
            name=request.name,
            allowed_models=request.allowed_models,
            band_cap=band_from(request.band_cap),
            pool=request.pool,
            expires_in_s=request.expires_in_s if request.HasField("expires_in_s") else None,
            now=now,
            terms=terms_from(request.terms),
            description=request.description,
            labels=request.labels,
        )
        order = for_owner(order, actor, band_was_named=request.band_cap != 0)
        made = new_key()
        async with self._changes.make(self._database) as change:
            owner = await user_named(change.connection, order.user)
            if owner.disabled:
                raise BadInput(f"The user {owner.name} is disabled; a key would not work.")
            await demand_may_be(change.connection, owner.id, actor, f"With a key of {owner.name} one")
            key = await add_key(
                change,
                public_id=made.public_id,
                secret_hmac=seal_secret(self._pepper, made.secret),
                order=order,
                owner=owner,
                created_by=actor.name,
                now=now,
            )
            await record(change.connection, _act(actor, "key.create", key.public_id, after=key_facts(key)), now)
        await self._directory.caught_up(change.version)
        return admin_pb2.CreateKeyResponse(key=key_to_wire(key), secret=str(made))

    async def list_keys(self, request: admin_pb2.ListKeysRequest, actor: Actor) -> admin_pb2.ListKeysResponse:
        name = whose(request.user, actor, "ListKeys")
        if request.limit > MOST_KEYS:
            raise BadInput(f"At most {MOST_KEYS} keys are told at once; ask for those after the last one.")
        async with self._database.reading() as connection:
            wish = KeyWish(
                user_id=(await user_named(connection, name)).id if name else "",
                group_id=(await group_named(connection, request.group)).id if request.group else "",
                text=request.text.strip(),
                state=state_from(request.state),
                labels=parse_labels(request.labels),
                include_revoked=request.include_revoked,
                limit=request.limit,
                after=key_id_from(request.after) if request.after else "",
            )
            found, has_more = await find_keys(connection, wish)
        return admin_pb2.ListKeysResponse(keys=[key_to_wire(key) for key in found], has_more=has_more)

    async def revoke_key(self, request: admin_pb2.RevokeKeyRequest, actor: Actor) -> admin_pb2.RevokeKeyResponse:
        now = self._now()
        key_id = key_id_from(request.key_id)
        async with self._changes.make(self._database) as change:
            before = await reachable_key(change.connection, key_id, actor, "RevokeKey")
            after = await revoke_key(change, before, now, cut_running=request.now)
            act = _act(actor, "key.revoke", key_id, before=key_facts(before), after=key_facts(after))
            await record(change.connection, act, now)
        return admin_pb2.RevokeKeyResponse(key=key_to_wire(after), version=change.version)

    async def add_user(self, request: admin_pb2.AddUserRequest, actor: Actor) -> admin_pb2.AddUserResponse:
        now = self._now()
        order = order_user(request.name, request.group, role_from(request.role))
        demand_no_wider(Rights(order.role), actor.rights, f"With the role {order.role} one")
        async with self._changes.make(self._database) as change:
            user = await add_user(change, order, now)
            await record(change.connection, _act(actor, "user.add", user.name, after=user_facts(user)), now)
            await start_member(change, user, actor.name, now)
        return admin_pb2.AddUserResponse(user=user_to_wire(user))

    async def list_users(self, request: admin_pb2.ListUsersRequest) -> admin_pb2.ListUsersResponse:
        limit = request.limit
        if limit > _MOST_USERS:
            raise BadInput(f"At most {_MOST_USERS} users are told at once; ask for those after the last one.")
        async with self._database.reading() as connection:
            wish = UserWish(
                name=request.name.strip(),
                text=request.text.strip(),
                group_id=(await group_named(connection, request.group)).id if request.group else "",
                role=role_from(request.role),
                disabled=request.disabled if request.HasField("disabled") else None,
            )
            found = await list_users(connection, limit=limit + 1 if limit else 0, after=request.after, wish=wish)
        shown = found[:limit] if limit else found
        return admin_pb2.ListUsersResponse(
            users=[user_to_wire(user) for user in shown], has_more=len(found) > len(shown)
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


async def reachable_key(connection: AsyncConnection, key_id: str, actor: Actor, call: str) -> Key:
    """The key, when the actor may make this call about it. Raises NotFound, in the same words for somebody else's key as for
    one that there is not: which keys others have is nobody's business."""
    if actor.reach(call) is Reach.ALL:
        return await key_with_id(connection, key_id)
    own = await list_keys(connection, user_id=actor.user_id, include_revoked=True)
    found = next((key for key in own if key.public_id == key_id), None)
    if found is None:
        raise NotFound(f"There is no key {key_id} of yours.")
    return found


async def demand_may_be(connection: AsyncConnection, user_id: str, actor: Actor, what: str) -> None:
    """Raises NotAllowed when the user may do more than the actor, who is about to hold what signs that user's calls."""
    demand_may_hold(await rights_of(connection, await user_with_id(connection, user_id)), user_id, actor, what)


def demand_may_hold(rights: Rights, user_id: str, actor: Actor, what: str) -> None:
    """The same, of a user with these rights."""
    demand_no_wider(rights, actor.rights, what)
    if actor.within is not None and user_id == actor.user_id and (more := too_wide(rights, actor.rights)):
        raise NotAllowed(
            f"{what} may do what the token you use may not: {more[0]}. Use a session, or a key of your own."
        )


def whose(user: str, actor: Actor, call: str) -> str:
    """The name of the user whose things are meant, empty for everyone's. Raises NotAllowed."""
    if actor.reach(call) is Reach.ALL:
        return user
    if user and user.lower() != actor.name.lower():
        raise NotAllowed(f"{actor.name} may see only what is their own.")
    return actor.name


def for_owner(order: KeyOrder, actor: Actor, *, band_was_named: bool) -> KeyOrder:
    """The order with its owner's name, and no wider than the actor may make it. Raises BadInput, NotAllowed."""
    owner = order.user or (actor.name if actor.user_id else "")
    if not owner:
        raise BadInput("Say for whom the key is: this caller is no user.")
    limits = order.limits
    if actor.reach("CreateKey") is not Reach.ALL:
        if owner.lower() != actor.name.lower():
            raise NotAllowed(f"{actor.name} may make keys only for themselves.")
        demand_audit_unchanged(limits.terms.audit or actor.limits.terms.audit, actor.limits.terms.audit)
        limits = narrowed(limits, actor.limits, band_was_named)
    return replace(order, user=owner, limits=limits)


def _act(actor: Actor, action: str, subject: str, *, before: Facts | None = None, after: Facts | None = None) -> Act:
    return Act(actor.name, action, subject, actor_key_id=actor.key_id, before=before, after=after)


def user_facts(user: User) -> Facts:
    return {"name": user.name, "group": user.group_name, "role": user.role.value}


def key_facts(key: Key) -> Facts:
    limits, terms, block = key.limits, key.limits.terms, key.block
    return {
        "name": key.name,
        "user": key.user_name,
        "state": key.state.value,
        "cut_running": key.cut_running,
        "allowed_models": list(limits.allowed_models),
        "band_cap": limits.band_cap.value,
        "pool": limits.pool,
        "expires_at": limits.expires_at.isoformat() if limits.expires_at else None,
        "description": key.description,
        "labels": [f"{name}={value}" for name, value in key.labels.items()],
        "denied_models": list(terms.denied_models),
        "other_pools": list(terms.other_pools),
        "addresses": list(terms.addresses),
        "calls": list(terms.calls),
        "max_output_tokens": terms.max_output_tokens,
        "max_context_tokens": terms.max_context_tokens,
        "audit": terms.audit.value if terms.audit else None,
        "block_reason": block.reason if block else None,
        "blocked_until": block.until.isoformat() if block and block.until else None,
        "old_secret_until": key.old_secret_until.isoformat() if key.old_secret_until else None,
    }
