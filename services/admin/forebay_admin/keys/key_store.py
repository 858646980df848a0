"""Keys in Postgres: never their secrets, only what forebay.keys makes of them. Each function works on the caller's
transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound
from forebay_admin.changes import Change
from forebay_admin.keys.keys import Band, Key, KeyOrder, KeyState, Limits, Principal, revoked
from forebay_admin.people.people import Role, User
from forebay_admin.people.weights import ONE
from forebay_admin.tables import keys, signing_keys, users

_LIMITS = (keys.c.allowed_models, keys.c.band_cap, keys.c.pool, keys.c.expires_at)
KEY = select(
    keys.c.public_id,
    keys.c.name,
    keys.c.user_id,
    users.c.name.label("user_name"),
    *_LIMITS,
    keys.c.created_by,
    keys.c.created_at,
    keys.c.revoked_at,
    users.c.disabled,
    keys.c.cut_running,
    keys.c.weight_milli,
).join_from(keys, users, keys.c.user_id == users.c.id)
_SIGNING_KEYS = (
    select(func.array_agg(aggregate_order_by(signing_keys.c.public_key, signing_keys.c.fingerprint)))
    .where(signing_keys.c.key_id == keys.c.public_id)
    .correlate(keys)
    .scalar_subquery()
    .label("signing_keys")
)


async def add_key(
    change: Change, *, public_id: str, secret_hmac: bytes, order: KeyOrder, owner: User, created_by: str, now: datetime
) -> Key:
    limits = order.limits
    await change.connection.execute(
        insert(keys).values(
            public_id=public_id,
            name=order.name,
            user_id=owner.id,
            secret_hmac=secret_hmac,
            allowed_models=list(limits.allowed_models),
            pool=limits.pool,
            band_cap=limits.band_cap.value,
            created_by=created_by,
            created_at=now,
            expires_at=limits.expires_at,
            version=change.version,
            cut_running=False,
            weight_milli=ONE,
            terms_version=0,
        )
    )
    return Key(public_id, order.name, owner.id, owner.name, limits, created_by, now, user_disabled=owner.disabled)


async def key_with_id(connection: AsyncConnection, public_id: str) -> Key:
    """Raises NotFound."""
    row = (await connection.execute(KEY.where(keys.c.public_id == public_id))).first()
    if row is None:
        raise NotFound(f"There is no key {public_id}.")
    return key_from(row)


async def revoke_key(change: Change, key: Key, now: datetime, *, cut_running: bool = False) -> Key:
    """The key as it is afterwards."""
    after = revoked(key, now, cut_running=cut_running)
    await change.connection.execute(
        update(keys)
        .where(keys.c.public_id == key.public_id)
        .values(revoked_at=after.revoked_at, cut_running=after.cut_running, version=change.version)
    )
    return after


async def weigh_key(change: Change, key: Key, weight_milli: int) -> Key:
    """The key as it is afterwards."""
    await change.connection.execute(
        update(keys)
        .where(keys.c.public_id == key.public_id)
        .values(weight_milli=weight_milli, terms_version=change.version)
    )
    return replace(key, weight_milli=weight_milli)


async def list_keys(connection: AsyncConnection, *, user_id: str | None, include_revoked: bool) -> list[Key]:
    """Oldest first; of one user, or of all."""
    query = KEY.order_by(keys.c.created_at, keys.c.public_id)
    if user_id is not None:
        query = query.where(keys.c.user_id == user_id)
    if not include_revoked:
        query = query.where(keys.c.revoked_at.is_(None))
    return [key_from(row) for row in await connection.execute(query)]


async def principals_since(connection: AsyncConnection, after: int) -> Sequence[Principal]:
    """Of keys that changed, or whose users did, at a version above `after`."""
    rows = await connection.execute(
        select(
            keys.c.public_id,
            keys.c.secret_hmac,
            keys.c.user_id,
            users.c.name.label("user_name"),
            users.c.group_id,
            users.c.role,
            users.c.disabled,
            keys.c.revoked_at,
            keys.c.cut_running,
            *_LIMITS,
            _SIGNING_KEYS,
        )
        .join_from(keys, users, keys.c.user_id == users.c.id)
        .where(or_(keys.c.version > after, users.c.version > after))
        .order_by(keys.c.public_id)
    )
    return [
        Principal(
            row.public_id,
            row.secret_hmac,
            row.user_id,
            row.user_name,
            row.group_id,
            Role(row.role),
            _state(row),
            _limits(row),
            row.cut_running,
            tuple(row.signing_keys or ()),
        )
        for row in rows
    ]


def _state(row: Any) -> KeyState:
    if row.revoked_at is not None:
        return KeyState.REVOKED
    return KeyState.USER_DISABLED if row.disabled else KeyState.ACTIVE


def _limits(row: Any) -> Limits:
    return Limits(tuple(row.allowed_models), Band(row.band_cap), row.pool, row.expires_at)


def key_from(row: Any) -> Key:
    """Of a row of `KEY`."""
    return Key(
        row.public_id,
        row.name,
        row.user_id,
        row.user_name,
        _limits(row),
        row.created_by,
        row.created_at,
        row.revoked_at,
        row.disabled,
        row.cut_running,
        row.weight_milli,
    )
