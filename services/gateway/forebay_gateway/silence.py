"""Requests that hear nothing from their engine: waited for while it works or loads, taken elsewhere when it lost them.

How long a first byte may take cannot be said: a cold model loads for minutes. So the engine is asked what it does. One that
shows neither work nor loading in two looks in a row does not know of what waits there. A look that fails says nothing, and
engines that tell nothing of themselves are left to the registry's probes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from forebay.clock import Clock
from forebay_gateway.engine_answer import TroubledEngine
from forebay_gateway.engines.activity import PAGES, Activity, read_activity
from forebay_gateway.fleet import Backend, Fleet
from forebay_gateway.running import Running, Serving
from forebay_gateway.upstream import Upstream

log = logging.getLogger(__name__)

_WITHIN_S = 2.0
_MOST_BYTES = 4 << 20
_MOST_LOOKS = 8
"""At once, of all backends together; the others' turn comes with the next round."""


@dataclass(frozen=True, slots=True)
class Silent:
    """A request that waits for its engine's first word. One that heard something, or was sent again, is another."""

    ledger_id: bytes
    since: float


Silents = frozenset[Silent]
NOBODY: Silents = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    lost: Silents
    suspects: Silents
    """Lost, if the next look shows the same."""


def judge_look(activity: Activity, waited: Silents, suspects: Silents) -> Verdict:
    """`waited`: those that were silent for long enough before the look and still are; `suspects`: of the look before."""
    if activity is not Activity.IDLE:
        return Verdict(NOBODY, NOBODY)
    return Verdict(waited & suspects, waited - suspects)


@dataclass(slots=True)
class _Watched:
    look_at: float
    suspects: Silents = NOBODY
    is_looking: bool = False


class SilenceWatch:
    def __init__(self, running: Running, fleet: Fleet, upstream: Upstream, clock: Clock, look_s: float) -> None:
        """`look_s`: after so much silence an engine is looked at, and every half of it again."""
        self._running, self._fleet, self._upstream, self._clock = running, fleet, upstream, clock
        self._look_s = look_s
        self._watched: dict[str, _Watched] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as looks:
            while True:
                await asyncio.sleep(min(1.0, self._look_s / 4))
                for backend, watched in self._due(self._clock.monotonic()):
                    watched.is_looking = True
                    looks.create_task(self._look(backend, watched), name="look")

    def _due(self, now: float) -> list[tuple[Backend, _Watched]]:
        waiting = {one.backend_id for one in self._waiting(now)}
        for backend_id in self._watched.keys() - waiting:
            if not self._watched[backend_id].is_looking:
                del self._watched[backend_id]
        room = _MOST_LOOKS - sum(watched.is_looking for watched in self._watched.values())
        due = []
        for backend_id in waiting:
            backend = self._fleet.get(backend_id)
            watched = self._watched.setdefault(backend_id, _Watched(now))
            if backend is not None and backend.kind in PAGES and not watched.is_looking and watched.look_at <= now:
                due.append((backend, watched))
        return due[: max(0, room)]

    async def _look(self, backend: Backend, watched: _Watched) -> None:
        began = self._clock.monotonic()
        try:
            activity = await self._ask(backend)
        finally:
            watched.is_looking = False
        now = self._clock.monotonic()
        watched.look_at = now + self._look_s / 2
        waited = {_silent(one): one for one in self._waiting(began) if one.backend_id == backend.id}
        verdict = judge_look(activity, frozenset(waited), watched.suspects)
        watched.suspects = verdict.suspects
        log.info(
            "silent engine looked at",
            extra={
                "action": "silent_look",
                "backend": backend.id,
                "activity": str(activity),
                "waiting": len(waited),
                "lost": len(verdict.lost),
            },
        )
        for silent in verdict.lost:
            waited[silent].lose_engine(
                f"It has said nothing for {now - silent.since:.0f} s, and by its own word neither works nor loads."
            )

    async def _ask(self, backend: Backend) -> Activity:
        try:
            async with asyncio.timeout(_WITHIN_S):
                for path in PAGES[backend.kind]:
                    get = self._upstream.pass_on(backend, "GET", path, b"", request_id="silent-look")
                    async with get as answer:
                        told = read_activity(backend.kind, path, answer.status, await answer.read_all(_MOST_BYTES))
                    if told is not Activity.UNTOLD:
                        return told
        except (TroubledEngine, TimeoutError) as error:
            log.debug("look failed", extra={"action": "silent_look", "backend": backend.id, "error": repr(error)})
        return Activity.UNTOLD

    def _waiting(self, now: float) -> Iterable[Serving]:
        return (one for one in self._running if one.awaits_engine and now - one.silent_since >= self._look_s)


def _silent(one: Serving) -> Silent:
    return Silent(one.ledger_id, one.silent_since)
