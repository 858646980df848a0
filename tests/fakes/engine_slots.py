"""Room for generations: so many at once, the rest wait or are refused. What is generated is no business of this file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SlotsFull(Exception):
    """The engine refuses beyond its slots, and they are taken."""


class Slots:
    """A request holds `width` slots together or none. Like llama.cpp, a narrow one overtakes a wide one that waits."""

    def __init__(self, total: int, *, refuses: bool = False, keeps_gone: bool = False) -> None:
        """`refuses`: nobody waits. `keeps_gone`: who leaves while waiting is noticed only when its turn comes."""
        self.total = total
        self._refuses = refuses
        self._keeps_gone = keeps_gone
        self.running = 0
        self.peak_running = 0
        self.peak_width = 0
        """Most slots ever wanted at once, running and waiting. Above `total` means that a client sent too much."""
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def waiting(self) -> int:
        return sum(width for width, _ in self._waiting)

    @asynccontextmanager
    async def hold(self, width: int) -> AsyncIterator[None]:
        await self._take(width)
        try:
            yield
        finally:
            self.running -= width
            self._wake()

    def forget_peaks(self) -> None:
        self.peak_running = self.running
        self.peak_width = self.running + self.waiting

    async def _take(self, width: int) -> None:
        self.peak_width = max(self.peak_width, self.running + self.waiting + width)
        if self.running + width <= self.total:
            self._grant(width)
            return
        if self._refuses:
            raise SlotsFull
        turn = asyncio.get_running_loop().create_future()
        entry = (width, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if entry in self._waiting:
                if not self._keeps_gone:
                    self._waiting.remove(entry)
            else:  # granted in the very loop turn in which the client went
                self.running -= width
                self._wake()
            raise

    def _wake(self) -> None:
        for entry in list(self._waiting):
            width, turn = entry
            if self.running + width <= self.total:
                self._waiting.remove(entry)
                if not turn.cancelled():
                    self._grant(width)
                    turn.set_result(None)

    def _grant(self, width: int) -> None:
        self.running += width
        self.peak_running = max(self.peak_running, self.running)
