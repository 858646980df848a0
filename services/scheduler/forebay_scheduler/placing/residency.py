"""Engines that keep a few models in memory and swap them: what is loaded where, and when a swap is right. Pure.

A swap costs everyone on that engine some seconds, so it is a decision with a reason, not a side effect of a request that
lands there. One load at a time on a backend. The victim is idle, nobody waits for it, and it has been there for a minute,
unless the head of the other queue has waited too long: then its queue protects it no more, and it is drained for the swap.
(Ollama evicts whatever is idle, all of it if need be, and lets requests that need a load queue behind each other.)"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from forebay_scheduler.backend import ModelFacts

UNKNOWN_LOAD_S = 8.0


class WhyNotLoaded(StrEnum):
    """Why a request whose model is not at hand waits. For people to read."""

    LOADING_ANOTHER = "another model is being loaded there"
    IN_USE = "all loaded models are in use"
    WANTED = "requests wait for the models that are loaded"
    TOO_NEW = "the loaded models have just been loaded"
    NOT_WORTH_IT = "waiting for a loaded copy is quicker than loading another"


@dataclass(frozen=True, slots=True)
class SwapRules:
    min_residency_s: float = 60.0
    head_wait_s: float = 20.0
    """A head that waited so long gets its swap, whoever waits for the victim."""
    margin_s: float = 2.0
    """By which a swap must beat waiting."""
    load_limit_s: float = 180.0
    """A load not heard of for so long has failed."""


@dataclass(frozen=True, slots=True)
class Load:
    victim: str | None
    """None where there is room for one more."""


@dataclass(frozen=True, slots=True)
class NoLoad:
    why: WhyNotLoaded
    until: float | None = None
    """When time alone may change it."""


class Residency:
    __slots__ = (
        "_load_s",
        "at_once",
        "known_absent",
        "leaving",
        "leaving_for",
        "loaded",
        "loading",
        "loading_since",
        "used_at",
    )

    def __init__(self, at_once: int) -> None:
        self.at_once = max(1, at_once)
        self.loaded: dict[str, float] = {}
        """Since when."""
        self.known_absent: set[str] = set()
        """What is neither here nor in `loaded` may be loaded: nobody said."""
        self.loading: str | None = None
        self.loading_since = 0.0
        self.leaving: str | None = None
        """Gets no more grants, so that it falls idle."""
        self.leaving_for: str | None = None
        self.used_at: dict[str, float] = {}
        self._load_s: dict[str, float] = {}

    def is_at_hand(self, model: str) -> bool:
        return model != self.leaving and model not in self.known_absent

    def load_s(self, model: str) -> float:
        return self._load_s.get(model, UNKNOWN_LOAD_S)

    def learn(self, facts: Mapping[str, ModelFacts], measured_at: float, now: float) -> None:
        """What the engine says is loaded. What was begun after it said so is not yet in it."""
        for model, known in facts.items():
            if known.is_loaded:
                self.known_absent.discard(model)
                if model == self.loading:
                    self.arrived(model, now)
                self.loaded.setdefault(model, now)
            elif known.is_loaded is not None and model != self.loading:
                since = self.loaded.get(model)
                if since is None or measured_at > since:
                    self.loaded.pop(model, None)
                    self.known_absent.add(model)

    def begin(self, model: str, victim: str | None, now: float) -> None:
        if victim is not None:
            self.loaded.pop(victim, None)
            self.known_absent.add(victim)
        self.leaving = self.leaving_for = None
        self.known_absent.discard(model)
        self.loading = model
        self.loading_since = now

    def arrived(self, model: str, now: float) -> None:
        """Its first token came, or the engine lists it."""
        if model != self.loading:
            return
        took = now - self.loading_since
        known = self._load_s.get(model)
        self._load_s[model] = took if known is None else known + 0.3 * (took - known)
        self.loaded[model] = now
        self.loading = None

    def failed(self, model: str) -> None:
        """What was to be loaded for it did not come up."""
        if model == self.loading:
            self.loading = None
            self.known_absent.add(model)

    def drain(self, victim: str, wanted: str) -> None:
        self.leaving = victim
        self.leaving_for = wanted

    def give_up(self, now: float, waiting: Callable[[str], int], rules: SwapRules) -> bool:
        """A load that never ended, a swap that nobody wants any more. True when there was one."""
        was = self.loading, self.leaving
        if self.loading is not None and now - self.loading_since >= rules.load_limit_s:
            self.failed(self.loading)
        if self.leaving_for is not None and not waiting(self.leaving_for):
            self.leaving = self.leaving_for = None
        return was != (self.loading, self.leaving)

    def may_load(
        self,
        model: str,
        now: float,
        waited_s: float,
        used: Callable[[str], int],
        waiting: Callable[[str], int],
        rules: SwapRules,
    ) -> Load | NoLoad:
        if self.loading is not None or self.leaving_for not in (None, model):
            return NoLoad(WhyNotLoaded.LOADING_ANOTHER)
        if len(self.loaded) < self.at_once:
            return Load(victim=None)
        is_overdue = waited_s >= rules.head_wait_s
        residency_s = rules.head_wait_s if is_overdue else rules.min_residency_s
        why = WhyNotLoaded.IN_USE
        until: float | None = None
        best: str | None = None
        for other, since in self.loaded.items():
            if used(other):
                continue
            if waiting(other) and not is_overdue:
                why = WhyNotLoaded.WANTED
                continue
            if now - since < residency_s:
                if until is None or since + residency_s < until:
                    until = since + residency_s
                continue
            if best is None or self.used_at.get(other, since) < self.used_at.get(best, self.loaded[best]):
                best = other
        if best is not None:
            return Load(victim=best)
        return NoLoad(why, None) if until is None else NoLoad(WhyNotLoaded.TOO_NEW, until)

    def to_drain(self, now: float, used: Callable[[str], int], rules: SwapRules) -> str | None:
        """The model that gives way when none is idle: of those that had their time, the one with the least in flight."""
        if self.leaving is not None or self.loading is not None:
            return None
        had_their_time = [model for model, since in self.loaded.items() if now - since >= rules.head_wait_s]
        return min(had_their_time, key=used, default=None)
