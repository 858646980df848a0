"""How fast a pool's queue drains, and so when it makes sense to come back. Pure."""

from __future__ import annotations

import math

_LONGEST_S = 120.0
"""Clients that are told more than this give up or ignore it."""
_SHORTEST_S = 1.0
_UNKNOWN_S = 10.0
"""Said before anything is known: about the length of one answer."""
_MEMORY_S = 30.0
"""What is older than this counts for less than 37 %."""


class DrainRate:
    """Ends of requests per second of waiting, an average that forgets exponentially.

    Only time in which something waits counts: an idle hour says nothing about how fast a full queue drains."""

    def __init__(self) -> None:
        self._ends = 0.0
        self._seconds = 0.0

    def note_time(self, seconds: float) -> None:
        """So long something has waited."""
        keep = math.exp(-seconds / _MEMORY_S)
        self._ends *= keep
        self._seconds = self._seconds * keep + _MEMORY_S * (1.0 - keep)

    def note_end(self) -> None:
        """A slot became free for those who wait."""
        self._ends += 1.0

    def retry_after_s(self, ahead: int) -> float:
        """When so many will have left the queue, within 1 and 120 s."""
        if self._seconds < _SHORTEST_S:
            return _UNKNOWN_S
        return max(_SHORTEST_S, min(_LONGEST_S, ahead * self._seconds / self._ends if self._ends > 0 else _LONGEST_S))
