"""What gateways are told of keys, as Postgres has it. Of a hundred thousand keys little is done for each, and the loop is
given back between a thousand and the next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select, type_coerce, union
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import NullType

from forebay.uncollected import uncollected
from forebay_admin.keys.key_terms import NO_TERMS, AuditPolicy, KeyTerms
from forebay_admin.keys.keys import Band, Block, Limits, Principal, state_of
from forebay_admin.people.people import Role
from forebay_admin.tables import keys, signing_keys, users

AT_ONCE = 1000
"""Keys between two turns of the loop."""

_TRUSTED = (
    select(func.array_agg(aggregate_order_by(signing_keys.c.public_key, signing_keys.c.fingerprint)))
    .where(signing_keys.c.key_id == keys.c.public_id)
    .correlate(keys)
    .scalar_subquery()
)
_LISTS = (keys.c.denied_models, keys.c.other_pools, keys.c.addresses, keys.c.calls)
_TERMS = (*_LISTS, keys.c.max_output_tokens, keys.c.max_context_tokens, keys.c.audit_policy)
_HAS_TERMS = or_(
    *(func.cardinality(column) > 0 for column in _LISTS),
    keys.c.max_output_tokens.is_not(None),
    keys.c.max_context_tokens.is_not(None),
    keys.c.audit_policy != "",
)
_BLOCK = (keys.c.blocked, keys.c.block_reason, keys.c.blocked_until)
_COLUMNS = (
    keys.c.public_id,
    keys.c.secret_hmac,
    keys.c.user_id,
    users.c.name,
    users.c.group_id,
    users.c.role,
    users.c.disabled,
    keys.c.revoked_at,
    keys.c.cut_running,
    keys.c.allowed_models,
    keys.c.band_cap,
    keys.c.pool,
    keys.c.expires_at,
    keys.c.old_secret_hmac,
    keys.c.old_secret_until,
    _TRUSTED,
)
# As the driver gives them: SQLAlchemy would look at each element of each list once more.
_QUERY = (
    select(*(type_coerce(column, NullType()) for column in (*_COLUMNS, *_BLOCK, _HAS_TERMS, *_TERMS)))
    .join_from(keys, users, keys.c.user_id == users.c.id)
    .order_by(keys.c.public_id)
)
_ROLES = {role.value: role for role in Role}
_BANDS = {band.value: band for band in Band}


async def principals_since(connection: AsyncConnection, after: int) -> Sequence[Principal]:
    """Of keys that changed, or whose users did, at a version above `after`."""
    known: dict[Any, Limits] = {}
    found: list[Principal] = []
    with uncollected():
        rows = await connection.stream(_QUERY.where(keys.c.public_id.in_(_changed(after))) if after else _QUERY)
        async for some in rows.partitions(AT_ONCE):
            found.extend(_principal(row, known) for row in some)
            await asyncio.sleep(0)
    return found


def _changed(after: int) -> Any:
    """Ids of keys. Each half goes by an index of its own; one condition over both tables would read them whole."""
    own = select(keys.c.public_id).where(keys.c.version > after)
    of_users = select(keys.c.public_id).join(users, keys.c.user_id == users.c.id).where(users.c.version > after)
    return union(own, of_users)


def _principal(row: Any, known: dict[Any, Limits]) -> Principal:
    """`known`: limits that were seen before; most keys have those of others."""
    key_id, secret_hmac, user_id, user_name, group_id, role, disabled, revoked_at, cut_running, *rest = row
    allowed, band, pool, expires_at, old_hmac, old_until, trusted, *rest = rest
    blocked, block_reason, blocked_until, has_terms, *terms = rest
    block = Block(block_reason, blocked_until) if blocked else None
    return Principal(
        key_id,
        secret_hmac,
        user_id,
        user_name,
        group_id,
        _ROLES[role],
        state_of(is_revoked=revoked_at is not None, user_disabled=disabled, block=block),
        _limits(tuple(allowed), band, pool, expires_at, _terms(*terms) if has_terms else None, known),
        cut_running,
        tuple(trusted) if trusted is not None else (),
        block,
        old_hmac or b"",
        old_until,
    )


def _limits(
    allowed: tuple[str, ...],
    band: str,
    pool: str,
    expires_at: datetime | None,
    terms: KeyTerms | None,
    known: dict[Any, Limits],
) -> Limits:
    place = allowed, band, pool, expires_at, terms
    limits = known.get(place)
    if limits is None:
        limits = known[place] = Limits(allowed, _BANDS[band], pool, expires_at, terms or NO_TERMS)
    return limits


def _terms(
    denied: list[str],
    pools: list[str],
    addresses: list[str],
    calls: list[str],
    max_output: int | None,
    max_context: int | None,
    audit: str,
) -> KeyTerms:
    return KeyTerms(
        tuple(denied),
        tuple(pools),
        tuple(addresses),
        tuple(calls),
        max_output,
        max_context,
        AuditPolicy(audit) if audit else None,
    )
