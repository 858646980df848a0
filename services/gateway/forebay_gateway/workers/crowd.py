"""How many connections each worker has, in memory that all of them share, and by that whose turn it is to take another.

All workers take from one queue, so that a worker's death loses nothing that nobody has taken yet. Whoever happens to wake up
first would take most of it; of a few clients that stay connected, one worker could then have all."""

from __future__ import annotations

import mmap
from collections.abc import Iterable

_AWAY = -1
_BYTES = 8  # written in one piece, so that nobody reads half a number
_SLACK = 8
"""An eighth more than another worker has is even enough: with many connections, exactness is not worth waiting for."""


def has_turn(mine: int, others: Iterable[int]) -> bool:
    """Whether one that has so many connections takes the next. `others`: those of the workers that are there."""
    least = min(others, default=mine)
    return mine <= least + least // _SLACK


class Crowd:
    """Each worker writes its own number, and the parent those of the dead."""

    def __init__(self, descriptor: int, workers: int) -> None:
        """`descriptor`: of a file of `size(workers)` bytes, which may be closed afterwards."""
        self._memory = mmap.mmap(descriptor, self.size(workers))
        self._counts = memoryview(self._memory).cast("q")

    @staticmethod
    def size(workers: int) -> int:
        return _BYTES * workers

    def counts(self) -> dict[int, int]:
        """Connections by worker, of those that are there; the first is number 1."""
        return {number: count for number, count in enumerate(self._counts, 1) if count != _AWAY}

    def leave(self, number: int) -> None:
        """That worker takes no more: the others do not wait for it."""
        self._counts[number - 1] = _AWAY

    def seat(self, number: int) -> Seat:
        return Seat(self, self._counts, number)


class Seat:
    """One worker's place in the crowd."""

    def __init__(self, crowd: Crowd, counts: memoryview, number: int) -> None:
        self._crowd, self._counts, self._number = crowd, counts, number

    def has_turn(self) -> bool:
        counts = self._counts
        return has_turn(counts[self._number - 1], [count for count in counts if count != _AWAY])

    def note(self, connections: int) -> None:
        self._counts[self._number - 1] = connections

    def leave(self) -> None:
        self._crowd.leave(self._number)
