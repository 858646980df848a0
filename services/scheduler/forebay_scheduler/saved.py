"""What a leader leaves to its successor beside the ceilings: counts, turns, levels, and what it has learnt. Pure.

Only what is settled: what is reserved follows from what gateways say that they still use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from forebay_scheduler.limits.limits import RateFilled, SpentSoFar
from forebay_scheduler.request import BackendId, LedgerId, PoolName


@dataclass(frozen=True, slots=True)
class SavedState:
    ahead: Mapping[PoolName, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """By pool: paths in the fair queue, and how many milli-tokens each is ahead of its siblings' clock."""
    spent: tuple[SpentSoFar, ...] = ()
    rates: tuple[RateFilled, ...] = ()
    settled: tuple[LedgerId, ...] = ()
    """Ends that are counted in this, and may be told again."""
    lengths: Mapping[str, float] = field(default_factory=dict)
    """Mean completion tokens, by model."""
    drains: Mapping[BackendId, float | None] = field(default_factory=dict)
    """Seconds from now until each is to be empty; None: whenever it is."""
    found_limits: tuple[tuple[BackendId, str, float], ...] = ()
    prefills: tuple[tuple[BackendId, str, list[float]], ...] = ()
    stored_at_us: int = 0
    """Microseconds since the epoch; 0 while it is not stored."""
    wall_us: int = 0
    """The time of day at which it is read."""


NOTHING_SAVED = SavedState()
