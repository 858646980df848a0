"""The terms of models and pools in Postgres. Each function works on the caller's transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound
from forebay_admin.changes import Change
from forebay_admin.models.model_rules_store import note_rules_change
from forebay_admin.models.terms import ModelTerms, Placement, PoolTerms
from forebay_admin.removals import Removable, note_removal, note_return
from forebay_admin.tables import model_terms, pool_terms


async def models_since(connection: AsyncConnection, after: int) -> list[ModelTerms]:
    """Those that changed at a version above `after`, by name."""
    query = select(model_terms).where(model_terms.c.version > after).order_by(model_terms.c.model)
    return [_model(row) for row in await connection.execute(query)]


async def terms_of_model(connection: AsyncConnection, model: str) -> ModelTerms | None:
    row = (await connection.execute(select(model_terms).where(model_terms.c.model == model))).first()
    return _model(row) if row is not None else None


async def keep_model(change: Change, terms: ModelTerms) -> None:
    values = {
        "prompt_micros": terms.prompt_micros,
        "cached_prompt_micros": terms.cached_prompt_micros,
        "completion_micros": terms.completion_micros,
        "weight_milli": terms.weight_milli,
        "version": change.version,
    }
    await change.connection.execute(
        insert(model_terms)
        .values(model=terms.model, **values)
        .on_conflict_do_update(index_elements=[model_terms.c.model], set_=values)
    )
    await note_return(change, Removable.MODEL, terms.model)
    await note_rules_change(change)


async def remove_model(change: Change, model: str) -> ModelTerms:
    """As they were. Raises NotFound."""
    before = await terms_of_model(change.connection, model)
    if before is None:
        raise NotFound(f"The model {model} has no price and no weight of its own.")
    await change.connection.execute(delete(model_terms).where(model_terms.c.model == model))
    await note_removal(change, Removable.MODEL, model)
    await note_rules_change(change)
    return before


async def pools_since(connection: AsyncConnection, after: int) -> list[PoolTerms]:
    """Those that changed at a version above `after`, by name."""
    query = select(pool_terms).where(pool_terms.c.version > after).order_by(pool_terms.c.pool)
    return [_pool(row) for row in await connection.execute(query)]


async def terms_of_pool(connection: AsyncConnection, pool: str) -> PoolTerms | None:
    row = (await connection.execute(select(pool_terms).where(pool_terms.c.pool == pool))).first()
    return _pool(row) if row is not None else None


async def keep_pool(change: Change, terms: PoolTerms) -> None:
    values = {
        "placement": terms.placement.value,
        "sticky": terms.sticky,
        "locality_window": terms.locality_window,
        "version": change.version,
    }
    await change.connection.execute(
        insert(pool_terms)
        .values(pool=terms.pool, **values)
        .on_conflict_do_update(index_elements=[pool_terms.c.pool], set_=values)
    )
    await note_return(change, Removable.POOL, terms.pool)


async def remove_pool(change: Change, pool: str) -> PoolTerms:
    """As they were. Raises NotFound."""
    before = await terms_of_pool(change.connection, pool)
    if before is None:
        raise NotFound(f"The pool {pool} has no settings of its own.")
    await change.connection.execute(delete(pool_terms).where(pool_terms.c.pool == pool))
    await note_removal(change, Removable.POOL, pool)
    return before


def _model(row: Any) -> ModelTerms:
    return ModelTerms(row.model, row.prompt_micros, row.cached_prompt_micros, row.completion_micros, row.weight_milli)


def _pool(row: Any) -> PoolTerms:
    return PoolTerms(row.pool, Placement(row.placement), row.sticky, row.locality_window)
