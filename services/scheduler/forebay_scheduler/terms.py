"""What admin says of people, keys, models and pools: shares, limits, budgets, prices. Read at the edge, used by the core.

Weights are shares against siblings. One that is not positive is read as the smallest there is: admin refuses it, and a
counter divided by zero would be lost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from forebay_scheduler.request import GroupId, KeyId, PoolName, UserId

SMALLEST_WEIGHT = 0.001


class BudgetUnit(StrEnum):
    TOKENS = "tokens"
    MONEY = "money"
    """Integer micro-units."""


class Period(StrEnum):
    EVER = "ever"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    """From Monday."""
    MONTH = "month"
    YEAR = "year"


@dataclass(frozen=True, slots=True)
class Budget:
    id: str
    unit: BudgetUnit
    amount: int
    period: Period = Period.EVER
    time_zone: str = "UTC"
    """IANA name; the calendar by which the period begins and ends."""
    spent: int = 0
    """By the ledger, in the period that `spent_at_us` is in. Where this scheduler has a count of its own, that counts."""
    spent_at_us: int = 0
    window_s: int = 0
    """Not 0: what is used counts for so long, whatever the period; a multiple of `limits.periods.STEPS`."""
    steps: tuple[tuple[int, int], ...] = ()
    """Of a window, by the ledger: when each step began that something was used in, in microseconds, and how much."""
    carried: int = 0
    """More than `amount`, in the period that `carried_since_us` is in: what was left of the one before."""
    carried_since_us: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """None is not limited."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt and completion tokens."""
    concurrency: int | None = None
    """Requests at once, waiting ones included."""
    budgets: tuple[Budget, ...] = ()

    @property
    def is_unlimited(self) -> bool:
        return self == UNLIMITED


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class UserTerms:
    user: UserId
    group: GroupId | None = None
    weight: float = 1.0
    max_queued: int | None = None
    """None for the scheduler's default."""
    limits: Limits = UNLIMITED
    is_paused: bool = False
    """What it sends waits until it is not."""


@dataclass(frozen=True, slots=True)
class GroupTerms:
    group: GroupId
    parent: GroupId | None = None
    weight: float = 1.0
    limits: Limits = UNLIMITED
    """Of all its members together, those of groups within it too."""
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class KeyTerms:
    key: KeyId
    user: UserId
    weight: float = 1.0
    limits: Limits = UNLIMITED


@dataclass(frozen=True, slots=True)
class ModelTerms:
    model: str
    prompt_micros: int = 0
    """Micro-units of money for a million tokens."""
    cached_prompt_micros: int = 0
    completion_micros: int = 0
    weight: float = 1.0
    """Its cost against other models in fairness."""


@dataclass(frozen=True, slots=True)
class PriceTier:
    """Prices of all tokens of a request whose prompt is so long; for a million."""

    from_prompt_tokens: int
    prompt_micros: int
    cached_prompt_micros: int
    completion_micros: int


@dataclass(frozen=True, slots=True)
class PriceTerms:
    """What counts against budgets of money."""

    model: str
    """A name, or a pattern in which * stands for anything."""
    prompt_micros: int = 0
    cached_prompt_micros: int = 0
    completion_micros: int = 0
    request_micros: int = 0
    tiers: tuple[PriceTier, ...] = ()
    """Upwards; the last that a prompt reaches goes before the three prices of tokens."""


class PlacementPolicy(StrEnum):
    EXPECTED_TTFT = "expected_ttft"
    LEAST_LOADED = "least_loaded"
    WEIGHTED = "weighted"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class PoolTerms:
    pool: PoolName
    placement: PlacementPolicy = PlacementPolicy.EXPECTED_TTFT
    is_sticky: bool = False
    """Requests of one session stay on one backend while it is well."""
    locality_window: int | None = None
    """Tokens of weight one by which a cached prefix may jump the queue; None for the scheduler's default."""
