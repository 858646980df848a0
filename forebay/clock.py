"""Time as an argument. Decisions take `now`; the edges that ask for it hold a Clock, so that tests can turn the hands."""

from __future__ import annotations

import time
from functools import partial
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the Unix epoch, UTC: for records that people read and services compare."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back and count suspend: for every wait, fence and age."""
        ...


_BOOTTIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Without a frame of its own: a request looks at it ten times."""

    now = staticmethod(time.time)
    # CLOCK_MONOTONIC stands still while a laptop sleeps; a fence that slept with it would let old leases live on.
    monotonic = staticmethod(partial(time.clock_gettime, _BOOTTIME))


class ManualClock:
    """A clock that only `advance` moves."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds


def micros(seconds: float) -> int:
    """Seconds as whole microseconds, the unit of every `*_us` field on the wire."""
    return round(seconds * 1_000_000)
