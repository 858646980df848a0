"""Pinning: saying that a model stays loaded on some backends, and taking it back. Keeping it so is `upkeep`'s part."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from forebay.clock import Clock
from forebay.errors import NotFound
from forebay_registry.fleet.fleet import View
from forebay_registry.library.choosing import Choice, Passed, choose_for_pin, name_at
from forebay_registry.library.job import Action
from forebay_registry.library.names import demand_model, is_same
from forebay_registry.library.ollama import AS_USUAL, FOR_EVER, Ollama
from forebay_registry.library.order import Order
from forebay_registry.library.runner import Fleet, JobRunner
from forebay_registry.library.store import LibraryStore, Pin
from forebay_registry.library.trouble import EngineTrouble
from forebay_registry.library.work import Work

_ASK_S = 3.0


@dataclass(frozen=True, slots=True)
class Pinned:
    before: tuple[Pin, ...]
    """Of this model on these backends."""
    after: tuple[Pin, ...]
    passed: tuple[Passed, ...] = ()


class Pins:
    def __init__(self, fleet: Fleet, runner: JobRunner, work: Work, store: LibraryStore, clock: Clock) -> None:
        self._fleet = fleet
        self._runner = runner
        self._work = work
        self._store = store
        self._clock = clock

    async def all(self) -> tuple[Pin, ...]:
        """Raises Unavailable."""
        return await self._store.pins()

    async def pin(self, model: str, on: Choice, actor: str) -> Pinned:
        """Loaded at once where it is there, without a date to go; where it is not there yet, as soon as it is. Raises
        BadInput, NotFound, NotPossible, Unavailable."""
        demand_model(model)
        chosen = choose_for_pin(on, self._fleet.views(), self._fleet.node_ids)
        before = await self._of(model, chosen.views)
        now = self._clock.now()
        await self._store.pin([Pin(view.id, model, now, actor) for view in chosen.views])
        await self._order(model, [view for view in chosen.views if _is_there(view, model)], FOR_EVER, actor)
        return Pinned(before, await self._of(model, chosen.views), chosen.passed)

    async def unpin(self, model: str, on: Choice, actor: str) -> Pinned:
        """It stays loaded until the engine lets it go. Raises BadInput, NotFound, NotPossible, Unavailable."""
        demand_model(model)
        chosen = choose_for_pin(on, self._fleet.views(), self._fleet.node_ids)
        before = await self._of(model, chosen.views)
        if not before:
            raise NotFound(f"{model} is not pinned there; see: forebay model pins")
        held = {pin.backend_id for pin in before}
        await self._store.unpin(model, held)
        pinned = [view for view in chosen.views if view.id in held and _is_there(view, model)]
        loaded = await asyncio.gather(*(self._is_loaded(view, model) for view in pinned))
        await self._order(
            model, [view for view, is_loaded in zip(pinned, loaded, strict=True) if is_loaded], AS_USUAL, actor
        )
        return Pinned(before, await self._of(model, chosen.views), chosen.passed)

    async def _of(self, model: str, views: tuple[View, ...]) -> tuple[Pin, ...]:
        ids = {view.id for view in views}
        return tuple(pin for pin in await self._store.pins() if pin.model == model and pin.backend_id in ids)

    async def _order(self, model: str, views: list[View], keep_alive: str, actor: str) -> None:
        if views:
            names = tuple(view.name for view in views)
            await self._runner.start(Order(actor, Action.PRELOAD, model, Choice(backends=names), keep_alive=keep_alive))

    async def _is_loaded(self, view: View, model: str) -> bool:
        """Asked of the engine itself: one that was loaded a moment ago would else stay for ever, and one that is not in
        memory would be loaded for having been let go."""
        address = self._fleet.address_of(view.id)
        if address is None:
            return False
        try:
            return await Ollama(self._work.door(view, address)).is_loaded(name_at(view, model), within_s=_ASK_S)
        except EngineTrouble:
            return False  # what is away keeps nothing in memory for long


def _is_there(view: View, model: str) -> bool:
    return any(is_same(m.name, model) for m in view.models)
