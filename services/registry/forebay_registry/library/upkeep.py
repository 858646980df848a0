"""Models that must be there, and those that must stay loaded: what is missing is ordered, again and again, with longer and
longer rests where it does not last. What is to be done is decided by pure functions; doing it is the jobs' part."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from forebay.clock import Clock
from forebay.errors import ForebayError, Unavailable
from forebay_registry.backend import BackendId, Condition, EngineKind, Pool, Pull
from forebay_registry.fleet.fleet import View
from forebay_registry.library.choosing import Choice
from forebay_registry.library.job import Action, Job, is_under_way
from forebay_registry.library.names import is_same
from forebay_registry.library.ollama import FOR_EVER
from forebay_registry.library.order import Order
from forebay_registry.library.runner import JobRunner
from forebay_registry.library.store import LibraryStore, Pin

log = logging.getLogger(__name__)

ACTOR = "registry"
"""Who orders what pools require and what is pinned."""
_SERVES = frozenset({Condition.HEALTHY, Condition.DEGRADED, Condition.SATURATED})
_REST_S = 60.0
_LONGEST_REST_S = 3600.0
_LASTS_S = 900.0
"""What holds for so long after it was ordered is well, and its next loss is a first one."""


@dataclass(frozen=True, slots=True)
class Need:
    action: Action
    model: str
    view: View


def to_pull(views: Iterable[View], pools: Mapping[str, Pool]) -> list[Need]:
    """What pools require and Ollama backends lack, where it is to be fetched without being asked."""
    return [
        Need(Action.PULL, model, view)
        for view in views
        if _is_up(view) and (pool := pools.get(view.pool)) is not None and pool.pull is Pull.AUTO
        for model in view.missing_models
    ]


def to_load(views: Iterable[View], pins: Iterable[Pin]) -> list[Need]:
    """Pinned models that are there and not in memory. Where an engine does not tell, nothing is done."""
    by_id = {view.id: view for view in views if _is_up(view)}
    return [
        Need(Action.PRELOAD, pin.model, view)
        for pin in pins
        if (view := by_id.get(pin.backend_id)) is not None
        and any(is_same(m.name, pin.model) and m.loaded is False for m in view.models)
    ]


class Rests:
    """How long to leave alone what was ordered and did not last: two pinned models that do not fit into memory together
    would else drive each other out all day."""

    def __init__(self) -> None:
        self._orders: dict[tuple[Action, BackendId, str], tuple[int, float]] = {}
        """How often in a row, and when last."""

    def may(self, need: Need, now: float) -> bool:
        times, at = self._orders.get(_key(need), (0, now))
        return now - at >= _rest_s(times)

    def ordered(self, need: Need, now: float) -> None:
        times, at = self._orders.get(_key(need), (0, 0.0))
        self._orders[_key(need)] = (1 if now - at > _rest_s(times) + _LASTS_S else times + 1, now)


class Upkeep:
    def __init__(
        self,
        runner: JobRunner,
        store: LibraryStore,
        clock: Clock,
        *,
        views: Callable[[], Sequence[View]],
        pools: Callable[[], Mapping[str, Pool]],
        every_s: float,
    ) -> None:
        self._runner = runner
        self._store = store
        self._clock = clock
        self._views = views
        self._pools = pools
        self._every_s = every_s
        self._rests = Rests()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._round()
            except Unavailable as error:
                log.debug("upkeep of models waits", extra={"action": "upkeep_wait", "why": error.message})
            await asyncio.sleep(self._every_s)

    async def _round(self) -> None:
        views = self._views()
        needs = [*to_pull(views, self._pools()), *to_load(views, await self._store.pins())]
        now, jobs = self._clock.monotonic(), self._runner.live()
        for action, model, due in _together(need for need in needs if self._is_due(need, jobs, now)):
            for need in due:
                self._rests.ordered(need, now)
            names = tuple(need.view.name for need in due)
            keep_alive = FOR_EVER if action is Action.PRELOAD else ""
            try:
                await self._runner.start(Order(ACTOR, action, model, Choice(backends=names), keep_alive=keep_alive))
            except Unavailable:
                raise
            except ForebayError as error:
                fields = {"action": "upkeep_refused", "model": model, "backends": names, "why": error.message}
                log.warning("a model that must be there cannot be ordered", extra=fields)

    def _is_due(self, need: Need, jobs: Sequence[Job], now: float) -> bool:
        return self._rests.may(need, now) and not is_under_way(jobs, need.action, need.view.id, need.model)


def _together(needs: Iterable[Need]) -> list[tuple[Action, str, list[Need]]]:
    """One order for all backends that need the same."""
    found: dict[tuple[Action, str], list[Need]] = {}
    for need in needs:
        found.setdefault((need.action, need.model), []).append(need)
    return [(action, model, due) for (action, model), due in found.items()]


def _rest_s(times: int) -> float:
    """After so many orders in a row."""
    # The rest is at its longest after a few; the power of a count of years would be no float any more.
    return min(_LONGEST_REST_S, _REST_S * 2 ** min(times - 1, 16)) if times else 0.0


def _is_up(view: View) -> bool:
    return view.kind is EngineKind.OLLAMA and view.enabled and view.condition in _SERVES


def _key(need: Need) -> tuple[Action, BackendId, str]:
    return need.action, need.view.id, need.model
