"""A backend as the scheduler sees it: what it serves, how much at once, and what its engine says is running."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from forebay_scheduler.request import BackendId, PoolName


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of one model on one backend. None is not known."""

    slots: int | None = None
    """Generations of it at once."""
    is_loaded: bool | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """Nothing new starts there, by the registry's word."""

    deadline: float | None = None
    """When it is to be empty, on the scheduler's clock: then what has no first token yet goes elsewhere. None: whenever it
    is."""
    is_forced: bool = False
    """And then what runs is ended."""
    is_lasting: bool = False
    """Nobody should wait for its end: it is under maintenance, or its engine was stopped."""


@dataclass(frozen=True, slots=True)
class Backend:
    id: BackendId
    pool: PoolName
    models: frozenset[str]
    slots: int
    """Generations at once, never exceeded."""
    healthy: bool = True
    enabled: bool = True
    """False while it is switched off: what runs there goes on, nothing new starts."""
    drain: Drain | None = None
    """While it drains."""
    running: int | None = None
    """Generations that the engine itself counts; None where it does not tell."""
    measured_at: float = float("-inf")
    """When it counted them, on the scheduler's clock."""
    waiting: int | None = None
    """Generations that wait inside the engine, by its own count."""
    slots_assumed: bool = False
    """Nobody said how many: `slots` is the most to try, and the scheduler feels its way."""
    kv_tokens: int | None = None
    """That fit in its cache at once."""
    requests_per_minute: int | None = None
    """Cap of a provider."""
    models_at_once: int | None = None
    """That it keeps in memory, where the engine swaps them; None where all it serves are always there."""
    weight: float | None = None
    """For the placement `weighted`; None: its slots."""
    facts: Mapping[str, ModelFacts] = field(default_factory=dict)
    """By model."""

    def has_shape_of(self, other: Backend) -> bool:
        """Only its health, its load or what is loaded there is new."""
        return (
            self.pool == other.pool
            and self.models == other.models
            and self.slots == other.slots
            and self.slots_assumed == other.slots_assumed
            and self.kv_tokens == other.kv_tokens
            and self.requests_per_minute == other.requests_per_minute
            and self.models_at_once == other.models_at_once
            and self.weight == other.weight
            and all(
                facts.slots == other.facts[model].slots for model, facts in self.facts.items() if model in other.facts
            )
        )

    @property
    def is_open(self) -> bool:
        """Waiting for it makes sense: it serves, or drains for a moment."""
        return self.healthy and self.enabled and (self.drain is None or not self.drain.is_lasting)
