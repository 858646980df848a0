"""A rate per minute, as the generic cell rate algorithm in its leaky-bucket form (ITU-T I.371, annex A: the two are equal).

The bucket holds one whole minute's allowance: that is what `x-ratelimit-limit-*` tells clients, what their libraries pace
themselves by, and what lets a class of forty begin together. So no span of t seconds sees more than limit × (1 + t / 60).
What is larger than the whole allowance passes when the bucket is empty, and is paid for by waiting afterwards.

The level is an exact integer, in units times microseconds of a minute: it drains by `limit` each microsecond, so that any
limit drains without a remainder and a charge that is taken back leaves nothing behind."""

from __future__ import annotations

MINUTE_US = 60_000_000


class Rate:
    """One bucket. Moments are whole microseconds; one that lies before the last is read as the last."""

    __slots__ = ("_at_us", "_full", "_level", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._full = limit * MINUTE_US
        self._level = 0
        self._at_us = 0

    def change(self, limit: int, at_us: int) -> None:
        """What was used stays used, but is never more than a full bucket of the new size: whoever's limit is lowered
        waits for at most a minute, not for what the old limit would have allowed."""
        level = self._drain(at_us)
        full = limit * MINUTE_US
        if limit < self.limit:
            self._level = min(level, full)
        self.limit, self._full = limit, full

    def has_room(self, units: int, at_us: int) -> bool:
        passed_us = at_us - self._at_us
        if passed_us > 0:  # as _drain does; this is asked for every request
            self._at_us = at_us
            level = self._level - passed_us * self.limit
            self._level = level = level if level > 0 else 0
        else:
            level = self._level
        return level + units * MINUTE_US <= self._full or (level == 0 and self.limit > 0)

    def take(self, units: int) -> None:
        """What `has_room` was asked for just now."""
        self._level += units * MINUTE_US

    def charge(self, units: int, at_us: int) -> None:
        """Whether there is room or not. Negative units take back what was charged; never more than all of it."""
        passed_us = at_us - self._at_us
        level = self._level
        if passed_us > 0:
            self._at_us = at_us
            level -= passed_us * self.limit
            if level < 0:
                level = 0
        level += units * MINUTE_US
        self._level = level if level > 0 else 0

    def wait_s(self, units: int, at_us: int) -> float | None:
        """Until it has room, if nothing else comes. None: never."""
        if not self.limit:
            return None
        too_much = self._drain(at_us) - max(0, self._full - units * MINUTE_US)
        return max(0, -(-too_much // self.limit)) / 1_000_000

    def room(self, at_us: int) -> int:
        """Whole units that would pass now."""
        return max(0, self.limit - -(-self._drain(at_us) // MINUTE_US))

    def empty_in_us(self, at_us: int) -> int:
        """Until all of the allowance is there again."""
        return -(-self._drain(at_us) // self.limit) if self.limit else 0

    def refill(self, empty_in_us: int, at_us: int) -> None:
        """As it was left by the leader before: as full as to be empty after this time."""
        self._level = max(self._drain(at_us), empty_in_us * self.limit)

    def _drain(self, at_us: int) -> int:
        passed_us = at_us - self._at_us
        if passed_us > 0:
            self._at_us = at_us
            self._level = max(0, self._level - passed_us * self.limit)
        return self._level
