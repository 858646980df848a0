"""Prices as the scheduler is told of them: all that are in force, by name and by pattern, whenever one has changed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.wire.v1 import admin_pb2
from forebay_admin.money.money_wire import terms_to_wire
from forebay_admin.money.price_store import all_versions, changed_at
from forebay_admin.money.prices import PriceVersion
from forebay_admin.versions import Since


async def tell_prices(connection: AsyncConnection, update: admin_pb2.PolicyUpdate, since: Since, now: datetime) -> None:
    if not since.is_snapshot and await changed_at(connection) <= since.after:
        return
    update.prices_told = True
    in_force: dict[str, PriceVersion] = {}
    for version in await all_versions(connection):
        if version.starts_at <= now:
            in_force[version.model] = version
    for model, version in in_force.items():
        if version.prices is not None:
            update.prices.add(model=model, terms=terms_to_wire(version.prices))
