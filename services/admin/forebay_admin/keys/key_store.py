"""Keys in Postgres: never their secrets, only what forebay.keys makes of them. Each function works on the caller's
transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Text, any_, cast, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound
from forebay_admin.changes import Change
from forebay_admin.keys.key_terms import NO_TERMS, AuditPolicy, KeyTerms
from forebay_admin.keys.keys import Band, Block, Key, KeyOrder, Limits, revoked
from forebay_admin.people.people import User
from forebay_admin.people.weights import ONE
from forebay_admin.tables import keys, users

_LIMITS = (
    keys.c.allowed_models,
    keys.c.band_cap,
    keys.c.pool,
    keys.c.expires_at,
    keys.c.denied_models,
    keys.c.other_pools,
    keys.c.addresses,
    keys.c.calls,
    keys.c.max_output_tokens,
    keys.c.max_context_tokens,
    keys.c.audit_policy,
)
_BLOCK = (keys.c.blocked, keys.c.block_reason, keys.c.blocked_until)
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
    keys.c.description,
    keys.c.labels,
    keys.c.old_secret_until,
    *_BLOCK,
).join_from(keys, users, keys.c.user_id == users.c.id)


async def add_key(
    change: Change, *, public_id: str, secret_hmac: bytes, order: KeyOrder, owner: User, created_by: str, now: datetime
) -> Key:
    key = made_of(public_id, order, owner, created_by, now)
    await insert_keys(change, ((key, secret_hmac),))
    return key


def made_of(public_id: str, order: KeyOrder, owner: User, created_by: str, now: datetime) -> Key:
    """The key that the order makes, which stands nowhere yet."""
    return Key(
        public_id,
        order.name,
        owner.id,
        owner.name,
        order.limits,
        created_by,
        now,
        user_disabled=owner.disabled,
        description=order.description,
        labels=order.labels,
    )


async def insert_keys(change: Change, made: Sequence[tuple[Key, bytes]]) -> None:
    """Each with what is stored of its secret."""
    await change.connection.execute(
        insert(keys),
        [
            {
                "public_id": key.public_id,
                "name": key.name,
                "description": key.description,
                "labels": dict(key.labels),
                "user_id": key.user_id,
                "secret_hmac": secret_hmac,
                "created_by": key.created_by,
                "created_at": key.created_at,
                "version": change.version,
                "cut_running": False,
                "weight_milli": ONE,
                "terms_version": 0,
                "blocked": False,
                "block_reason": "",
                **_limits_columns(key.limits),
            }
            for key, secret_hmac in made
        ],
    )


async def names_in_use(connection: AsyncConnection, user_ids: Iterable[str]) -> set[tuple[str, str]]:
    """What these users' keys are called that were not revoked: the user's id, and the name in lower case."""
    found = await connection.execute(
        select(keys.c.user_id, keys.c.name).where(
            keys.c.user_id == any_(cast(sorted(set(user_ids)), ARRAY(Text))), keys.c.revoked_at.is_(None)
        )
    )
    return {(row.user_id, row.name.lower()) for row in found}


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


async def keep_key(change: Change, after: Key) -> None:
    """What its owner and operators may change of it, but for its secret, its share and its revocation."""
    block = after.block
    await change.connection.execute(
        update(keys)
        .where(keys.c.public_id == after.public_id)
        .values(
            name=after.name,
            description=after.description,
            labels=dict(after.labels),
            blocked=block is not None,
            block_reason=block.reason if block is not None else "",
            blocked_until=block.until if block is not None else None,
            version=change.version,
            **_limits_columns(after.limits),
        )
    )


async def keep_secret(change: Change, after: Key, secret_hmac: bytes) -> None:
    """A new secret; the one there was is kept for as long as it still works."""
    overlaps = after.old_secret_until is not None
    await change.connection.execute(
        update(keys)
        .where(keys.c.public_id == after.public_id)
        .values(
            secret_hmac=secret_hmac,
            old_secret_hmac=keys.c.secret_hmac if overlaps else None,
            old_secret_until=after.old_secret_until,
            version=change.version,
        )
    )


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


def _block(row: Any) -> Block | None:
    return Block(row.block_reason, row.blocked_until) if row.blocked else None


def _limits(row: Any) -> Limits:
    return Limits(tuple(row.allowed_models), Band(row.band_cap), row.pool, row.expires_at, _terms(row))


def _terms(row: Any) -> KeyTerms:
    terms = KeyTerms(
        tuple(row.denied_models),
        tuple(row.other_pools),
        tuple(row.addresses),
        tuple(row.calls),
        row.max_output_tokens,
        row.max_context_tokens,
        AuditPolicy(row.audit_policy) if row.audit_policy else None,
    )
    return NO_TERMS if terms == NO_TERMS else terms  # one of a hundred thousand


def _limits_columns(limits: Limits) -> dict[str, Any]:
    terms = limits.terms
    return {
        "allowed_models": list(limits.allowed_models),
        "band_cap": limits.band_cap.value,
        "pool": limits.pool,
        "expires_at": limits.expires_at,
        "denied_models": list(terms.denied_models),
        "other_pools": list(terms.other_pools),
        "addresses": list(terms.addresses),
        "calls": list(terms.calls),
        "max_output_tokens": terms.max_output_tokens,
        "max_context_tokens": terms.max_context_tokens,
        "audit_policy": terms.audit.value if terms.audit is not None else "",
    }


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
        row.description,
        row.labels,
        _block(row),
        row.old_secret_until,
    )
