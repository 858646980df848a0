"""Operators' calls about prices and weights of models, and about how pools place requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, Unavailable
from forebay.wire.v1 import admin_pb2, fleet_pb2, registry_pb2
from forebay_admin.audit.audit import Note
from forebay_admin.audit.audit_store import Facts
from forebay_admin.changes import Changes
from forebay_admin.models.terms import ModelTerms, PoolTerms, demand_model_terms, demand_pool_terms, placement_named
from forebay_admin.models.terms_store import (
    keep_model,
    keep_pool,
    models_since,
    pools_since,
    remove_model,
    remove_pool,
    terms_of_model,
    terms_of_pool,
)
from forebay_admin.money.price_store import add_version, in_force
from forebay_admin.money.prices import Prices, PriceVersion
from forebay_admin.people.access import Actor
from forebay_admin.quotas.policy_wire import model_terms_to_wire, pool_terms_to_wire


class KnowsPools(Protocol):
    """The registry. Raises Unavailable."""

    async def backends(self) -> Sequence[registry_pb2.Backend]: ...
    async def read_fleet(self, version: int | None) -> fleet_pb2.ReadFleetResponse: ...


class TermsDesk:
    def __init__(self, database: Database, changes: Changes, registry: KnowsPools, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._registry = registry
        self._clock = clock
        self._note = Note(clock)

    async def set_model(self, request: admin_pb2.SetModelTermsRequest, actor: Actor) -> admin_pb2.SetModelTermsResponse:
        demand_model_terms(_changed_model(ModelTerms(request.model), request))
        async with self._changes.make(self._database) as change:
            before = await terms_of_model(change.connection, request.model)
            after = _changed_model(before, request)
            await keep_model(change, after)
            priced = await in_force(change.connection, after.model, self._now())
            prices = _repriced(priced, after)
            if _names_a_price(request) and (priced is None or priced.prices != prices):
                await add_version(change, after.model, prices, None, actor.name, self._now())
            facts = _model(before) if before is not None else None
            await self._note(change, actor, "model.price", after.model, before=facts, after=_model(after))
        return admin_pb2.SetModelTermsResponse(terms=model_terms_to_wire(after), version=change.version)

    async def remove_model(
        self, request: admin_pb2.RemoveModelTermsRequest, actor: Actor
    ) -> admin_pb2.RemoveModelTermsResponse:
        async with self._changes.make(self._database) as change:
            before = await remove_model(change, request.model)
            priced = await in_force(change.connection, request.model, self._now())
            if priced is not None and priced.prices is not None:
                await add_version(change, request.model, None, None, actor.name, self._now())
            await self._note(change, actor, "model.price", before.model, before=_model(before))
        return admin_pb2.RemoveModelTermsResponse(terms=model_terms_to_wire(before), version=change.version)

    async def list_models(self) -> admin_pb2.ListModelTermsResponse:
        async with self._database.reading() as connection:
            return admin_pb2.ListModelTermsResponse(
                terms=[model_terms_to_wire(terms) for terms in await models_since(connection, 0)]
            )

    async def set_pool(self, request: admin_pb2.SetPoolTermsRequest, actor: Actor) -> admin_pb2.SetPoolTermsResponse:
        if len(request.ListFields()) < 2:
            raise BadInput("Say what is to be changed; nothing was named.")
        demand_pool_terms(_changed_pool(PoolTerms(request.pool), request))
        async with self._changes.make(self._database) as change:
            before = await terms_of_pool(change.connection, request.pool)
            after = _changed_pool(before or PoolTerms(request.pool), request)
            await keep_pool(change, after)
            facts = _pool(before) if before is not None else None
            await self._note(change, actor, "pool.set", after.pool, before=facts, after=_pool(after))
        return admin_pb2.SetPoolTermsResponse(terms=pool_terms_to_wire(after), version=change.version)

    async def remove_pool(
        self, request: admin_pb2.RemovePoolTermsRequest, actor: Actor
    ) -> admin_pb2.RemovePoolTermsResponse:
        async with self._changes.make(self._database) as change:
            before = await remove_pool(change, request.pool)
            await self._note(change, actor, "pool.reset", before.pool, before=_pool(before))
        return admin_pb2.RemovePoolTermsResponse(terms=pool_terms_to_wire(before), version=change.version)

    async def list_pools(self) -> admin_pb2.ListPoolsResponse:
        """Those that have backends, those that have terms, and those that are described."""
        async with self._database.reading() as connection:
            set_terms = {terms.pool: terms for terms in await pools_since(connection, 0)}
        try:
            sizes: Counter[str] | None = Counter(backend.pool for backend in await self._registry.backends())
            described = {pool.name: pool for pool in (await self._registry.read_fleet(None)).fleet.pools}
        except Unavailable:
            sizes, described = None, {}
        return admin_pb2.ListPoolsResponse(
            pools=[
                admin_pb2.Pool(
                    terms=pool_terms_to_wire(set_terms.get(pool) or PoolTerms(pool)),
                    is_default=pool not in set_terms,
                    backends=sizes[pool] if sizes is not None else None,
                    described=described.get(pool),
                )
                for pool in sorted({*set_terms, *(sizes or ()), *described})
            ]
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _names_a_price(request: admin_pb2.SetModelTermsRequest) -> bool:
    return any(request.HasField(name) for name in ("prompt_micros", "cached_prompt_micros", "completion_micros"))


def _repriced(before: PriceVersion | None, terms: ModelTerms) -> Prices:
    """With the three prices of tokens that the terms say, and all else that the price in force has."""
    prices = before.prices if before is not None and before.prices is not None else Prices()
    return replace(
        prices,
        prompt_micros=terms.prompt_micros,
        cached_prompt_micros=terms.cached_prompt_micros,
        completion_micros=terms.completion_micros,
    )


def _changed_model(before: ModelTerms | None, request: admin_pb2.SetModelTermsRequest) -> ModelTerms:
    """Raises BadInput when nothing is named."""
    if len(request.ListFields()) < 2:
        raise BadInput("Say what the model costs or weighs; nothing was named.")
    terms = before or ModelTerms(request.model, cached_prompt_micros=request.prompt_micros)
    if request.HasField("prompt_micros"):
        terms = replace(terms, prompt_micros=request.prompt_micros)
    if request.HasField("cached_prompt_micros"):
        terms = replace(terms, cached_prompt_micros=request.cached_prompt_micros)
    if request.HasField("completion_micros"):
        terms = replace(terms, completion_micros=request.completion_micros)
    if request.HasField("weight_milli"):
        terms = replace(terms, weight_milli=request.weight_milli)
    return terms


def _changed_pool(before: PoolTerms, request: admin_pb2.SetPoolTermsRequest) -> PoolTerms:
    """Raises BadInput for a placement that there is not."""
    terms = before
    if request.HasField("placement"):
        terms = replace(terms, placement=placement_named(request.placement))
    if request.HasField("sticky"):
        terms = replace(terms, sticky=request.sticky)
    if request.HasField("locality_window"):
        window = request.locality_window
        terms = replace(terms, locality_window=window.most if window.HasField("most") else None)
    return terms


def _model(terms: ModelTerms) -> Facts:
    return {
        "prompt_micros": terms.prompt_micros,
        "cached_prompt_micros": terms.cached_prompt_micros,
        "completion_micros": terms.completion_micros,
        "weight_milli": terms.weight_milli,
    }


def _pool(terms: PoolTerms) -> Facts:
    return {
        "placement": terms.placement.value,
        "sticky": terms.sticky,
        "locality_window": terms.locality_window,
    }
