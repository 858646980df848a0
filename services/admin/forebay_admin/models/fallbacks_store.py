"""Fallbacks of models in Postgres. Each function works on the caller's transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound
from forebay_admin.changes import Change
from forebay_admin.models.fallbacks import Fallback, Order
from forebay_admin.models.model_rules_store import note_rules_change
from forebay_admin.tables import model_fallbacks


async def all_fallbacks(connection: AsyncConnection) -> list[Fallback]:
    """By model."""
    query = select(model_fallbacks).order_by(model_fallbacks.c.model, model_fallbacks.c.pool)
    return [_fallback(row) for row in await connection.execute(query)]


async def find_fallback(connection: AsyncConnection, model: str, pool: str) -> Fallback | None:
    row = (await connection.execute(select(model_fallbacks).where(*_of(model, pool)))).first()
    return _fallback(row) if row is not None else None


async def keep_fallback(change: Change, fallback: Fallback) -> None:
    values = {
        "others": list(fallback.others),
        "preference": fallback.order.value,
        "after_ms": fallback.after_ms,
        "version": change.version,
    }
    await change.connection.execute(
        insert(model_fallbacks)
        .values(model=fallback.model, pool=fallback.pool, **values)
        .on_conflict_do_update(index_elements=[model_fallbacks.c.model, model_fallbacks.c.pool], set_=values)
    )
    await note_rules_change(change)


async def remove_fallback(change: Change, model: str, pool: str) -> Fallback:
    """As it was. Raises NotFound."""
    before = await find_fallback(change.connection, model, pool)
    if before is None:
        raise NotFound(f"Nothing is asked instead of {model} {f'in the pool {pool}' if pool else 'in every pool'}.")
    await change.connection.execute(delete(model_fallbacks).where(*_of(model, pool)))
    await note_rules_change(change)
    return before


def _of(model: str, pool: str) -> tuple[Any, Any]:
    return model_fallbacks.c.model == model, model_fallbacks.c.pool == pool


def _fallback(row: Any) -> Fallback:
    return Fallback(row.model, tuple(row.others), row.pool, Order(row.preference), row.after_ms)
