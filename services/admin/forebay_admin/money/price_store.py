"""Versions of prices in Postgres. Each function works on the caller's transaction. What has begun is never changed: the
table itself refuses that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import BadInput, NotFound, NotPossible
from forebay_admin.changes import Change
from forebay_admin.models.terms import ModelTerms
from forebay_admin.models.terms_store import keep_model, terms_of_model
from forebay_admin.money.prices import Hardware, Prices, PriceVersion, Tier, is_pattern, start_of
from forebay_admin.tables import price_versions, prices_version

MOST_VERSIONS = 100_000
_LONGEST_ID = 18  # digits that every bigint holds


async def all_versions(connection: AsyncConnection) -> list[PriceVersion]:
    """By model, the oldest first."""
    query = select(price_versions).order_by(price_versions.c.model, price_versions.c.starts_at)
    return [_version(row) for row in await connection.execute(query)]


async def changed_at(connection: AsyncConnection) -> int:
    """The version at which prices last changed."""
    return int(await connection.scalar(select(prices_version.c.value)) or 0)


async def version_with_id(connection: AsyncConnection, said: str) -> PriceVersion:
    """Raises NotFound."""
    row = None
    if said.isascii() and said.isdigit() and len(said) <= _LONGEST_ID:
        row = (await connection.execute(select(price_versions).where(price_versions.c.id == int(said)))).first()
    if row is None:
        raise NotFound(f"There is no price {said!r}; `forebay price list --all` shows those that there are.")
    return _version(row)


async def in_force(connection: AsyncConnection, model: str, now: datetime) -> PriceVersion | None:
    """Of this very name or pattern."""
    query = (
        select(price_versions)
        .where(price_versions.c.model == model, price_versions.c.starts_at <= now)
        .order_by(price_versions.c.starts_at.desc())
        .limit(1)
    )
    row = (await connection.execute(query)).first()
    return _version(row) if row is not None else None


async def add_version(
    change: Change, model: str, prices: Prices | None, asked: datetime | None, created_by: str, now: datetime
) -> PriceVersion:
    """The scheduler is told at once of one that begins now. Raises BadInput for a moment that is past or taken."""
    newest = await change.connection.scalar(
        select(func.max(price_versions.c.starts_at)).where(price_versions.c.model == model, price_versions.c.begun)
    )
    starts_at = start_of(asked, newest, now)
    taken = select(price_versions.c.id).where(price_versions.c.model == model, price_versions.c.starts_at == starts_at)
    if await change.connection.scalar(taken) is not None:
        raise BadInput(f"{model} has a price from that moment on already; take it back first: forebay price cancel ID")
    if int(await change.connection.scalar(select(func.count()).select_from(price_versions)) or 0) >= MOST_VERSIONS:
        raise NotPossible(
            f"There are {MOST_VERSIONS} prices already, and all of them are kept for what was charged by them."
        )
    begun = asked is None or asked <= now
    made_id = await change.connection.scalar(
        insert(price_versions)
        .values(
            model=model,
            starts_at=starts_at,
            prices=_to_json(prices) if prices is not None else None,
            begun=begun,
            created_by=created_by,
            created_at=now,
            version=change.version,
        )
        .returning(price_versions.c.id)
    )
    made = PriceVersion(int(made_id or 0), model, starts_at, prices, created_by, now)
    await _note_change(change)
    if begun:
        await tell_scheduler(change, made)
    return made


async def cancel_version(change: Change, version: PriceVersion, now: datetime) -> None:
    """Raises NotPossible when it has begun, which the scheduler may not have been told yet."""
    gone = await change.connection.execute(
        delete(price_versions).where(
            price_versions.c.id == version.id, ~price_versions.c.begun, price_versions.c.starts_at > now
        )
    )
    if not gone.rowcount:
        raise NotPossible(
            f"The price {version.id} of {version.model} began on {version.starts_at:%Y-%m-%d %H:%M} UTC and stays; "
            "set another one that begins now."
        )
    await _note_change(change)


async def due_versions(connection: AsyncConnection, now: datetime) -> list[PriceVersion]:
    """Those whose time has come and of which the scheduler does not know, the oldest first."""
    query = (
        select(price_versions)
        .where(~price_versions.c.begun, price_versions.c.starts_at <= now)
        .order_by(price_versions.c.starts_at, price_versions.c.id)
    )
    return [_version(row) for row in await connection.execute(query)]


async def begin_version(change: Change, version: PriceVersion, now: datetime) -> None:
    """The scheduler is told of the price in force, which may be a later one."""
    await change.connection.execute(
        update(price_versions).where(price_versions.c.id == version.id, ~price_versions.c.begun).values(begun=True)
    )
    await _note_change(change)
    await tell_scheduler(change, await in_force(change.connection, version.model, now) or version)


async def tell_scheduler(change: Change, version: PriceVersion) -> None:
    """One of the version before counts by three prices of tokens, and knows models by their names alone."""
    if is_pattern(version.model):
        return
    before = await terms_of_model(change.connection, version.model)
    if before is None and version.prices is None:
        return
    prices = version.prices or Prices()
    told = ModelTerms(version.model, prices.prompt_micros, prices.cached_prompt_micros, prices.completion_micros)
    if before is not None:
        told = ModelTerms(
            told.model, told.prompt_micros, told.cached_prompt_micros, told.completion_micros, before.weight_milli
        )
    if before != told:
        await keep_model(change, told)


async def _note_change(change: Change) -> None:
    await change.connection.execute(update(prices_version).values(value=change.version))


def _to_json(prices: Prices) -> dict[str, Any]:
    return asdict(prices)


def _from_json(kept: Mapping[str, Any]) -> Prices:
    hardware = kept.get("hardware")
    return Prices(
        **{name: value for name, value in kept.items() if name not in ("tiers", "hardware")},
        tiers=tuple(Tier(**tier) for tier in kept.get("tiers", ())),
        hardware=Hardware(**hardware) if hardware is not None else None,
    )


def _version(row: Any) -> PriceVersion:
    prices = _from_json(row.prices) if row.prices is not None else None
    return PriceVersion(row.id, row.model, row.starts_at, prices, row.created_by, row.created_at)
