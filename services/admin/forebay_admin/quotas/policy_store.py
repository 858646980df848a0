"""What the scheduler is told, as Postgres has it: shares and limits of people, groups and keys. Each function works on the
caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.people.weights import ONE
from forebay_admin.quotas.quota_store import read_budgets
from forebay_admin.quotas.quotas import Caps, SubjectKind
from forebay_admin.quotas.spending import Budgets
from forebay_admin.tables import budgets, groups, keys, users


@dataclass(frozen=True, slots=True)
class UserShare:
    user_id: str
    group_id: str
    weight_milli: int
    max_queued: int
    paused: bool
    caps: Caps


@dataclass(frozen=True, slots=True)
class GroupShare:
    group_id: str
    parent_id: str | None
    weight_milli: int
    paused: bool
    caps: Caps


@dataclass(frozen=True, slots=True)
class KeyShare:
    key_id: str
    user_id: str
    weight_milli: int
    caps: Caps


@dataclass(frozen=True, slots=True)
class KeyShares:
    kept: Sequence[KeyShare]
    """Those with a weight or limits of their own."""
    removed: Sequence[str]
    """Those that have neither any more."""


async def users_since(connection: AsyncConnection, after: int) -> list[UserShare]:
    """Of users who changed, or whose terms did, at a version above `after`."""
    rows = await connection.execute(
        select(
            users.c.id,
            users.c.group_id,
            users.c.weight_milli,
            users.c.max_queued,
            users.c.paused,
            *_caps_columns(users.c),
        )
        .where(or_(users.c.version > after, users.c.terms_version > after))
        .order_by(users.c.id)
    )
    return [UserShare(row.id, row.group_id, row.weight_milli, row.max_queued, row.paused, _caps(row)) for row in rows]


async def groups_since(connection: AsyncConnection, after: int) -> list[GroupShare]:
    rows = await connection.execute(
        select(
            groups.c.id,
            groups.c.parent_id,
            groups.c.weight_milli,
            groups.c.paused,
            *_caps_columns(groups.c),
        )
        .where(groups.c.version > after)
        .order_by(groups.c.id)
    )
    return [GroupShare(row.id, row.parent_id, row.weight_milli, row.paused, _caps(row)) for row in rows]


async def keys_since(connection: AsyncConnection, after: int, *, is_snapshot: bool) -> KeyShares:
    """A snapshot has no keys without terms of their own, and none that were revoked."""
    has_budget = select(budgets.c.id).where(budgets.c.key_id == keys.c.public_id).exists()
    query = select(
        keys.c.public_id,
        keys.c.user_id,
        keys.c.weight_milli,
        *_caps_columns(keys.c),
        has_budget.label("has_budget"),
    ).where(keys.c.terms_version > after)
    if is_snapshot:
        query = query.where(keys.c.revoked_at.is_(None))
    kept: list[KeyShare] = []
    removed: list[str] = []
    for row in await connection.execute(query.order_by(keys.c.public_id)):
        caps = _caps(row)
        if row.has_budget or row.weight_milli != ONE or caps != Caps():
            kept.append(KeyShare(row.public_id, row.user_id, row.weight_milli, caps))
        elif not is_snapshot:
            removed.append(row.public_id)
    return KeyShares(kept, removed)


async def budgets_of(
    connection: AsyncConnection, people: Sequence[UserShare], within: Sequence[GroupShare], held: Sequence[KeyShare]
) -> Budgets:
    return await read_budgets(
        connection,
        {
            SubjectKind.USER: [share.user_id for share in people],
            SubjectKind.GROUP: [share.group_id for share in within],
            SubjectKind.KEY: [share.key_id for share in held],
        },
    )


def _caps_columns(columns: Any) -> tuple[Any, Any, Any]:
    return columns.requests_per_minute, columns.tokens_per_minute, columns.concurrency


def _caps(row: Any) -> Caps:
    return Caps(row.requests_per_minute, row.tokens_per_minute, row.concurrency)
