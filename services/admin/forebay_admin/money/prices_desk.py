"""Operators' calls about prices."""

from __future__ import annotations

from datetime import UTC, datetime

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput
from forebay.wire.v1 import prices_pb2
from forebay_admin.audit.audit import Note
from forebay_admin.audit.audit_store import Facts
from forebay_admin.changes import Changes
from forebay_admin.models.terms import demand_model_name
from forebay_admin.money.money_wire import price_facts, price_to_wire, prices_from
from forebay_admin.money.price_book import PriceBook, current_of
from forebay_admin.money.price_store import add_version, all_versions, cancel_version, in_force, version_with_id
from forebay_admin.money.price_watch import PriceWatch
from forebay_admin.money.prices import PriceVersion, demand_prices
from forebay_admin.people.access import Actor
from forebay_admin.wire_forms import moment


class PricesDesk:
    def __init__(self, database: Database, changes: Changes, watch: PriceWatch, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._watch = watch
        self._clock = clock
        self._note = Note(clock)

    async def set_price(self, request: prices_pb2.SetPriceRequest, actor: Actor) -> prices_pb2.SetPriceResponse:
        model = demand_model_name(request.model)
        prices = demand_prices(prices_from(request.terms)) if request.HasField("terms") else None
        asked = moment(request.starts_at_us) if request.HasField("starts_at_us") else None
        now = self._now()
        async with self._changes.make(self._database) as change:
            before = await in_force(change.connection, model, now)
            if prices is None and asked is None and (before is None or before.prices is None):
                raise BadInput(f"{model} has no price that could end; `forebay price list` shows those that there are.")
            made = await add_version(change, model, prices, asked, actor.name, now)
            await self._note(change, actor, "price.set", model, before=_facts(before), after=price_facts(made))
        await self._watch.caught_up(change.version)
        return prices_pb2.SetPriceResponse(price=price_to_wire(made, made.starts_at <= now), version=change.version)

    async def cancel_price(
        self, request: prices_pb2.CancelPriceRequest, actor: Actor
    ) -> prices_pb2.CancelPriceResponse:
        async with self._changes.make(self._database) as change:
            before = await version_with_id(change.connection, request.id)
            await cancel_version(change, before, self._now())
            await self._note(change, actor, "price.cancel", before.model, before=price_facts(before))
        await self._watch.caught_up(change.version)
        return prices_pb2.CancelPriceResponse(price=price_to_wire(before, False), version=change.version)

    async def list_prices(self, request: prices_pb2.ListPricesRequest) -> prices_pb2.ListPricesResponse:
        now = self._now()
        async with self._database.reading() as connection:
            versions = await all_versions(connection)
        if request.model:
            names = PriceBook(versions).names_for(request.model) | {request.model}
            versions = [version for version in versions if version.model in names]
        current = current_of(versions, now)
        return prices_pb2.ListPricesResponse(
            prices=[
                price_to_wire(version, version.id in current)
                for version in versions
                if request.all or version.starts_at > now or (version.id in current and version.prices is not None)
            ]
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _facts(version: PriceVersion | None) -> Facts | None:
    return price_facts(version) if version is not None else None
