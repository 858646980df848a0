"""How busy an engine is and what it was started with: asked less often than whether it is there, and never held against it.

One scrape reads the gauges; now and then it also asks for what seldom changes. What it says of rates is the difference to
the scrape before. A page that fails, hangs or makes no sense costs these facts and nothing else."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import aiohttp

from forebay.clock import Clock
from forebay.metrics import Number
from forebay_registry.backend import EngineKind, Load, Seen
from forebay_registry.engines import answers, gauges, ollama_answers, status_answers
from forebay_registry.engines.answers import BadAnswer, Props
from forebay_registry.engines.gauges import Page
from forebay_registry.engines.ollama_answers import Shown
from forebay_registry.engines.pages import Pages, Refusing, of_model
from forebay_registry.engines.rates import Counters, has_restarted, rates_of

log = logging.getLogger(__name__)

_STATUS_S = 600.0
"""How often what seldom changes is asked for."""
_MOST_SHOWN = 8
"""Models that are asked about in one scrape."""
_MOST_ROUTED = 16
"""Models behind one address whose gauges are read."""
_FORGOTTEN_S = 900.0


class Scraped(StrEnum):
    """How a scrape ended; also the label of its metric."""

    TOLD = "told"
    UNTOLD = "untold"
    """It has no such page, or nothing on it."""
    TIMEOUT = "timeout"
    REFUSED = "refused"
    BAD_ANSWER = "bad_answer"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class ScrapeRhythm:
    """How often gauges are read."""

    every_s: float = 15.0
    """At least as often as that."""
    per_s: float = 10.0
    """Of all engines together; as long as they are few enough, each is read at every look."""
    timeout_s: float = 1.0

    def interval_s(self, engines: int) -> float:
        return min(self.every_s, engines / self.per_s)


@dataclass(frozen=True, slots=True)
class Behind:
    """What a look found of llama.cpp, which decides what else it can be asked."""

    props: Props
    loaded: tuple[str, ...] = ()
    """Of its router, the models of which a server runs."""


@dataclass(slots=True)
class _Engine:
    """What is known of the one at an address."""

    kind: EngineKind | None
    used_at: float
    due_at: float = float("-inf")
    status_due_at: float = float("-inf")
    counters: Counters | None = None
    counted_at: float = 0.0
    slots: int | None = None
    kv_tokens: int | None = None
    version: str = ""
    slots_of: dict[str, int] = field(default_factory=dict)
    """By model."""
    shown: dict[str, Shown] = field(default_factory=dict)
    """By the model's digest."""
    problem: Scraped | None = None


class Telemetry:
    def __init__(
        self,
        clock: Clock,
        rhythm: ScrapeRhythm = ScrapeRhythm(),
        *,
        outcomes: Mapping[Scraped, Number] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._rhythm = rhythm
        self._outcomes = outcomes or {outcome: Number() for outcome in Scraped}
        self._jitter = jitter
        self._engines: dict[str, _Engine] = {}

    async def add_to(self, seen: Seen, pages: Pages, behind: Behind | None = None) -> tuple[Seen, Load | None]:
        """What a look found, with what is known beside it, and the load if it was measured now. Never raises; ends within
        twice the timeout."""
        now = self._clock.monotonic()
        engine = self._engine_at(pages.base, seen.kind, now)
        load = None
        if now >= engine.due_at:
            # Moved by a tenth either way: engines that were found together would else be asked together for ever.
            interval_s = self._rhythm.interval_s(len(self._engines)) * (0.9 + 0.2 * self._jitter())
            engine.due_at = now + interval_s
            load = await self._measure(engine, seen, pages, behind)
            if now >= engine.status_due_at or any(m.digest and m.digest not in engine.shown for m in seen.models):
                engine.status_due_at = now + _STATUS_S
                if not await self._ask_status(engine, seen, pages, behind):
                    engine.status_due_at = engine.due_at
        return _with_known(seen, engine), load

    def note_absence(self, base: str) -> None:
        """It did not answer: when it does again it may be another one, and is asked all at once."""
        engine = self._engines.get(base)
        if engine is not None:
            engine.due_at = engine.status_due_at = float("-inf")

    # --- one scrape ---

    async def _measure(self, engine: _Engine, seen: Seen, pages: Pages, behind: Behind | None) -> Load | None:
        outcome, why, load = Scraped.UNTOLD, "", None
        try:
            async with asyncio.timeout(self._rhythm.timeout_s):
                load = await self._load(engine, seen, pages, behind)
                outcome = Scraped.UNTOLD if load is None else Scraped.TOLD
        except TimeoutError:
            outcome, why = Scraped.TIMEOUT, f"they did not come within {self._rhythm.timeout_s:g} s"
        except Refusing as error:
            outcome, why = Scraped.REFUSED, f"it {error}"
        except BadAnswer as error:
            outcome, why = Scraped.BAD_ANSWER, str(error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            outcome, why = Scraped.UNREACHABLE, " ".join(str(error).split()) or type(error).__name__
        self._outcomes[outcome].value += 1
        problem = outcome if why else None
        if problem is not engine.problem:
            engine.problem = problem
            fields = {"action": "scrape", "url": pages.base, "outcome": str(outcome), "why": why}
            # llama.cpp answers between two batches only, so being late is no fault.
            level = logging.WARNING if problem not in (None, Scraped.TIMEOUT) else logging.INFO
            log.log(level, "engine's metrics cannot be read" if problem else "engine's metrics are read", extra=fields)
        return load

    async def _load(self, engine: _Engine, seen: Seen, pages: Pages, behind: Behind | None) -> Load | None:
        match engine.kind:
            case EngineKind.VLLM | EngineKind.SGLANG:
                body = await pages.get("/metrics")
                page = None if body is None else gauges.read_page(body, engine.kind)
            case EngineKind.LLAMACPP:
                if behind is not None and behind.props.is_router:
                    return await self._routed_load(pages, behind)
                # /metrics first: it also tells how many wait. It is off unless the server was started with --metrics.
                body = await pages.get("/metrics") if behind is None or behind.props.has_metrics_page else None
                page = None if body is None else gauges.read_page(body, engine.kind)
                if page is None and behind is not None and behind.props.has_slots_page:
                    slots = await pages.get("/slots")
                    return None if slots is None else answers.read_slots(slots, self._clock.now())
            case _:
                return None
        return None if page is None else self._told(engine, page)

    async def _routed_load(self, pages: Pages, behind: Behind) -> Load | None:
        """Of all servers behind llama.cpp's router; one that does not tell makes the whole unknown."""
        read: list[Page] = []
        for model in behind.loaded[:_MOST_ROUTED]:
            body = await pages.get(of_model("/metrics", model))
            page = None if body is None else gauges.read_page(body, EngineKind.LLAMACPP)
            if page is None:
                return None
            read.append(page)
        whole = gauges.summed(read)
        return None if whole is None else Load(whole.running, whole.waiting, None, self._clock.now())

    def _told(self, engine: _Engine, page: Page) -> Load:
        now = self._clock.monotonic()
        before, counted_at = engine.counters, engine.counted_at
        engine.counters, engine.counted_at = page.counters, now
        if before is not None and has_restarted(before, page.counters):
            engine.slots = engine.kv_tokens = None
            engine.status_due_at = float("-inf")
        engine.kv_tokens = page.kv_tokens or engine.kv_tokens
        rates = None if before is None else rates_of(before, page.counters, now - counted_at)
        return Load(
            page.running,
            page.waiting,
            page.kv_used_fraction,
            self._clock.now(),
            swapped=page.swapped,
            rates=rates,
            running_loras=page.running_loras,
        )

    # --- what seldom changes ---

    async def _ask_status(self, engine: _Engine, seen: Seen, pages: Pages, behind: Behind | None) -> bool:
        """Whether all of it was asked."""
        try:
            async with asyncio.timeout(self._rhythm.timeout_s):
                match engine.kind:
                    case EngineKind.VLLM:
                        engine.version = ollama_answers.read_version(await pages.get("/version") or b"")
                        info = await pages.get("/server_info?config_format=json")
                        engine.slots = None if info is None else status_answers.read_vllm_info(info).slots
                    case EngineKind.SGLANG:
                        info = await pages.get("/server_info") or await pages.get("/get_server_info")
                        if info is not None:
                            started = status_answers.read_sglang_info(info)
                            engine.slots, engine.version = started.slots, started.version
                            engine.kv_tokens = engine.kv_tokens or started.kv_tokens
                    case EngineKind.OLLAMA:
                        engine.version = ollama_answers.read_version(await pages.get("/api/version") or b"")
                        return await self._show_models(engine, seen, pages)
                    case EngineKind.LLAMACPP if behind is not None and behind.props.is_router:
                        await self._count_slots(engine, pages, behind)
                        return False  # models come and go: what is new is asked about in the next scrape
                    case _:
                        pass
                return True
        except (TimeoutError, Refusing, BadAnswer, aiohttp.ClientError, OSError, ValueError):
            return False  # asked again with the next scrape

    async def _show_models(self, engine: _Engine, seen: Seen, pages: Pages) -> bool:
        """Asks once about each model, which its digest stands for. Whether all were."""
        here = {model.digest: model.name for model in seen.models if model.digest}
        engine.shown = {digest: shown for digest, shown in engine.shown.items() if digest in here}
        new = [digest for digest in here if digest not in engine.shown]
        for digest in new[:_MOST_SHOWN]:
            page = await pages.post("/api/show", {"model": here[digest]})
            try:
                engine.shown[digest] = Shown() if page is None else ollama_answers.read_show(page)
            except BadAnswer:
                engine.shown[digest] = Shown()
        return len(new) <= _MOST_SHOWN

    async def _count_slots(self, engine: _Engine, pages: Pages, behind: Behind) -> None:
        engine.slots_of = {model: slots for model, slots in engine.slots_of.items() if model in behind.loaded}
        for model in behind.loaded[:_MOST_ROUTED]:
            if model not in engine.slots_of and (page := await pages.get(of_model("/props", model))) is not None:
                slots = answers.read_props(page).total_slots
                if slots is not None:
                    engine.slots_of[model] = slots

    # --- inside ---

    def _engine_at(self, base: str, kind: EngineKind | None, now: float) -> _Engine:
        engine = self._engines.get(base)
        if engine is None or engine.kind is not kind:
            gone = [at for at, other in self._engines.items() if now - other.used_at > _FORGOTTEN_S]
            for at in gone:
                del self._engines[at]
            engine = self._engines[base] = _Engine(kind, now)
        engine.used_at = now
        return engine


def _with_known(seen: Seen, engine: _Engine) -> Seen:
    models = tuple(
        replace(ollama_answers.with_shown(model, engine.shown.get(model.digest)), slots=engine.slots_of.get(model.name))
        if model.digest or engine.slots_of
        else model
        for model in seen.models
    )
    # A cache in which the longest text does not fit was told for something else, such as a model that has none.
    longest = max((model.context_length or 0 for model in models), default=0)
    kv_tokens = engine.kv_tokens if engine.kv_tokens is not None and engine.kv_tokens >= longest else None
    return replace(
        seen,
        slots=seen.slots or engine.slots,
        models=models,
        kv_tokens=kv_tokens,
        version=seen.version or engine.version,
    )
