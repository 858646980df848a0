"""A provider's cap on requests a minute, as a pace (GCRA). Pure.

In no sixty seconds does it let more through than the cap: a small burst, and between bursts an even flow."""

from __future__ import annotations

_BURST_SHARE = 20
"""A twentieth of the cap at once; the price is a twentieth of the sustained rate."""


class RequestPace:
    __slots__ = ("_burst_s", "_due", "interval_s", "per_minute")

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        burst = max(1, per_minute // _BURST_SHARE)
        # A burst of B and then one each interval make B + 60/interval - 1 in any half-open minute.
        self.interval_s = 60.0 / max(1, per_minute - burst + 1)
        self._burst_s = (burst - 1) * self.interval_s
        self._due = float("-inf")

    @property
    def next_at(self) -> float:
        """When the next request may start."""
        return self._due - self._burst_s

    def take(self, now: float) -> None:
        self._due = max(self._due, now) + self.interval_s
