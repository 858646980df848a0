"""Watching the fleet: a snapshot first, then each change, to any number of watchers at their own speed.

Gauges change all the time and none of them is urgent, so a watcher hears of them at most four times a second; of anything
else at once. While another registry leads, a watcher hears who does, and waits here for this one to take over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from forebay_registry.fleet.fleet import Fleet, Update

LOAD_GAP_S = 0.25


@dataclass(frozen=True, slots=True)
class Told:
    """What a watcher hears."""

    epoch: int
    """Of the lead under which it is told. Each begins with a snapshot."""
    update: Update | None
    """None: this registry stands by."""
    leader: str = ""
    """Who leads then, as far as is known."""


class Watchers:
    def __init__(self, fleet: Fleet, load_gap_s: float = LOAD_GAP_S) -> None:
        self._fleet = fleet
        self._load_gap_s = load_gap_s
        self._changed = asyncio.Event()
        self._is_open = False
        self._epoch = 0
        self._standby: Told | None = None
        self.count = 0

    def open(self, epoch: int) -> None:
        """The fleet is known, and this registry acts under `epoch`: watchers may see it. Before, an empty one would tell
        them that every backend is gone."""
        self._is_open, self._epoch, self._standby = True, epoch, None
        self.notify()

    def stand_by(self, epoch: int, leader: str) -> None:
        """Another registry leads: what is seen here is old."""
        self._is_open, self._standby = False, Told(epoch, None, leader)
        self.notify()

    def notify(self) -> None:
        """The fleet has a new version."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def follow(self) -> AsyncIterator[Told]:
        """Endless; it ends with its caller."""
        self.count += 1
        try:
            while True:
                async for told in self._wait_open():
                    yield told
                epoch = self._epoch
                update = self._fleet.since(None)
                while True:
                    yield Told(epoch, update)
                    await self._news(epoch, update.version)
                    if not self._holds(epoch):
                        break
                    update = self._fleet.since(update.version)
        finally:
            self.count -= 1

    async def _wait_open(self) -> AsyncIterator[Told]:
        last = None
        while not self._is_open:
            if self._standby is not None and self._standby != last:
                last = self._standby
                yield last
            else:
                await self._changed.wait()

    def _holds(self, epoch: int) -> bool:
        return self._is_open and self._epoch == epoch

    async def _news(self, epoch: int, known: int) -> None:
        """Returns when there is something newer than `known`, and if that is only gauges, not sooner than the gap; at once
        when the epoch is over."""
        fleet, loop = self._fleet, asyncio.get_running_loop()
        # Measured from the update before, so that the first change after a quiet time goes out at once.
        until = loop.time() + self._load_gap_s
        while fleet.version <= known and self._holds(epoch):
            await self._changed.wait()
        while fleet.pressing_version <= known and loop.time() < until and self._holds(epoch):
            try:
                async with asyncio.timeout_at(until):
                    await self._changed.wait()
            except TimeoutError:
                return
