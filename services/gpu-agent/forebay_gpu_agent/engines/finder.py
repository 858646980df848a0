"""Looks for engines on this host now and then, on a thread, so that samples never wait for it.

What turned out to be no engine is asked again more and more rarely: it may be anybody's program, with a log of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from forebay.clock import Clock
from forebay.wire.v1.telemetry_pb2 import TelemetrySample
from forebay_gpu_agent.engines.asking import Answer, ask
from forebay_gpu_agent.engines.found import FoundEngine, add_engines
from forebay_gpu_agent.engines.listening import Listener, children_of_all, family, is_proxy, listeners
from forebay_gpu_agent.sampler import Patient

log = logging.getLogger(__name__)

USUAL_PORTS = frozenset({11434, 8000, 30000, 8080})
"""Of Ollama, vLLM, SGLang and llama.cpp."""
OWN_PORTS = frozenset(range(8090, 8100))
"""Forebay's: a gateway lists models too, and is no engine."""
MOST_ENGINES = 32
_LOOK_S = 60.0
"""How long a look is waited for before engines count as not looked for."""
_MOST_SILENT_LOOKS = 4
"""For which a listener that was an engine still counts as it: one that is busy may answer late."""
_FIRST_PAUSE_S = 60.0
_MOST_PAUSE_S = 3600.0


@dataclass(slots=True)
class _Stranger:
    ask_again_at: float
    pause_s: float = _FIRST_PAUSE_S


class Search:
    """One look after the other; blocking, one thread at a time."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        ports: Collection[int],
        *,
        listening: Callable[[Collection[int]], list[Listener]] = listeners,
        asking: Callable[[str, int], Answer | None] = ask,
    ) -> None:
        self._monotonic = monotonic
        self._ports = frozenset(ports) - OWN_PORTS
        self._listening = listening
        self._asking = asking
        self._strangers: dict[Listener, _Stranger] = {}
        self._known: dict[Listener, tuple[Answer, int]] = {}
        """What it said last, and for how many looks it has been silent since."""

    def look(self) -> tuple[FoundEngine, ...]:
        there = self._listening(self._ports)
        self._strangers = {listener: held for listener, held in self._strangers.items() if listener in there}
        self._known = {listener: held for listener, held in self._known.items() if listener in there}
        answered = [(listener, answer) for listener in there if (answer := self._ask(listener)) is not None]
        if not answered:
            return ()
        below = children_of_all()
        return tuple(_found(listener, answer, below) for listener, answer in answered[:MOST_ENGINES])

    def forget(self) -> None:
        """Everything is asked again at the next look."""
        self._strangers = {}
        self._known = {}

    def _ask(self, listener: Listener) -> Answer | None:
        now = self._monotonic()
        stranger = self._strangers.get(listener)
        if stranger is not None and now < stranger.ask_again_at:
            return None
        answer = self._asking(listener.address, listener.port)
        if answer is not None:
            self._strangers.pop(listener, None)
            self._known[listener] = answer, 0
            return answer
        before, silent = self._known.pop(listener, (None, 0))
        if before is not None and silent < _MOST_SILENT_LOOKS:
            self._known[listener] = before, silent + 1
            return before
        if stranger is None:
            self._strangers[listener] = _Stranger(now)  # once more at the next look: an engine may be starting
        else:
            stranger.ask_again_at = now + stranger.pause_s
            stranger.pause_s = min(2 * stranger.pause_s, _MOST_PAUSE_S)
        return None


class EngineFinder:
    def __init__(
        self, search: Search, clock: Clock, *, interval_s: float, on_change: Callable[[], object] = lambda: None
    ) -> None:
        """`on_change`: called when other engines are found than before."""
        self._search = search
        self._on_change = on_change
        self._look = Patient(search.look)
        self._clock = clock
        self._interval_s = interval_s
        self._found: tuple[FoundEngine, ...] = ()
        self._looked_at: float | None = None
        self._again = asyncio.Event()

    @property
    def found(self) -> tuple[FoundEngine, ...]:
        return self._found

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._again.clear()
            await self.look()
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._again.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        try:
            found = await self._look.answer(_LOOK_S)
        except Exception:
            # Whatever a strange process table does, samples go on; what was found stays, and its age is told.
            log.warning("engines could not be looked for", exc_info=True, extra={"action": "engines_failed"})
            return
        if found is None:
            return
        is_news = _names(found) != _names(self._found)
        if is_news:
            fields = {"action": "engines_found", "engines": [f"{e.kind} at port {e.port}" for e in found]}
            log.info("engines on this host", extra=fields)
        self._found, self._looked_at = found, self._clock.monotonic()
        if is_news:
            self._on_change()

    def look_again(self) -> None:
        """At once, and with everything that was asked before."""
        self._search.forget()
        self._again.set()

    def add_to(self, sample: TelemetrySample) -> None:
        """Nothing before the first look has ended."""
        if self._looked_at is not None:
            add_engines(sample, self._found, self._clock.monotonic() - self._looked_at)


def _found(listener: Listener, answer: Answer, below: dict[int, list[int]]) -> FoundEngine:
    pid = listener.pid if listener.pid is not None and not is_proxy(listener.pid) else None
    return FoundEngine(
        answer.kind,
        listener.port,
        listener.address,
        pid,
        family(pid, below) if pid is not None else frozenset(),
        answer.version,
        answer.models,
    )


def _names(engines: Iterable[FoundEngine]) -> set[tuple[str, int]]:
    return {(engine.kind, engine.port) for engine in engines}
