"""Public keys that sign calls, in Postgres. Each function works on the caller's transaction.

What changes here changes the API key that trusts, whose row takes the version: gateways hear of it with that key."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.changes import Change
from forebay_admin.keys.key_store import KEY, key_from
from forebay_admin.keys.keys import Key
from forebay_admin.keys.signing_keys import SigningKey, TrustOrder
from forebay_admin.tables import keys, signing_keys

_SIGNING_KEY = KEY.add_columns(
    signing_keys.c.public_key,
    signing_keys.c.name.label("signing_name"),
    signing_keys.c.created_by.label("signing_created_by"),
    signing_keys.c.created_at.label("signing_created_at"),
).join(signing_keys, signing_keys.c.key_id == keys.c.public_id)


async def add_signing_key(change: Change, order: TrustOrder, key: Key, *, created_by: str, now: datetime) -> SigningKey:
    await change.connection.execute(
        insert(signing_keys).values(
            fingerprint=order.fingerprint,
            public_key=order.public_key,
            key_id=key.public_id,
            name=order.name,
            created_by=created_by,
            created_at=now,
        )
    )
    await _touch(change, key)
    return SigningKey(order.public_key, order.name, key, created_by, now)


async def remove_signing_key(change: Change, signing_key: SigningKey) -> None:
    await change.connection.execute(delete(signing_keys).where(signing_keys.c.fingerprint == signing_key.fingerprint))
    await _touch(change, signing_key.key)


async def find_signing_key(connection: AsyncConnection, fingerprint: str) -> SigningKey | None:
    row = (await connection.execute(_SIGNING_KEY.where(signing_keys.c.fingerprint == fingerprint))).first()
    return _signing_key(row) if row is not None else None


async def list_signing_keys(connection: AsyncConnection, user_id: str | None) -> list[SigningKey]:
    """Oldest first; of one user's keys, or of all."""
    query = _SIGNING_KEY.order_by(signing_keys.c.created_at, signing_keys.c.fingerprint)
    if user_id is not None:
        query = query.where(keys.c.user_id == user_id)
    return [_signing_key(row) for row in await connection.execute(query)]


async def count_signing_keys(connection: AsyncConnection, key: Key) -> int:
    query = select(func.count()).where(signing_keys.c.key_id == key.public_id)
    return int(await connection.scalar(query) or 0)


async def _touch(change: Change, key: Key) -> None:
    await change.connection.execute(
        update(keys).where(keys.c.public_id == key.public_id).values(version=change.version)
    )


def _signing_key(row: Any) -> SigningKey:
    return SigningKey(row.public_key, row.signing_name, key_from(row), row.signing_created_by, row.signing_created_at)
