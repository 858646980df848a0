"""Watching the fleet: a snapshot first, then each change, to any number of watchers at their own speed.

Gauges change all the time and none of them is urgent, so a watcher hears of them at most four times a second; of anything
else at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from forebay_registry.fleet.fleet import Fleet, Update

LOAD_GAP_S = 0.25


class Watchers:
    def __init__(self, fleet: Fleet, load_gap_s: float = LOAD_GAP_S) -> None:
        self._fleet = fleet
        self._load_gap_s = load_gap_s
        self._changed = asyncio.Event()
        self._opened = asyncio.Event()
        self.count = 0

    def open(self) -> None:
        """The fleet is known: watchers may see it. Before, an empty one would tell them that every backend is gone."""
        self._opened.set()

    def notify(self) -> None:
        """The fleet has a new version."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def follow(self) -> AsyncIterator[Update]:
        """Endless; it ends with its caller."""
        await self._opened.wait()
        self.count += 1
        try:
            update = self._fleet.since(None)
            while True:
                yield update
                await self._news(update.version)
                update = self._fleet.since(update.version)
        finally:
            self.count -= 1

    async def _news(self, known: int) -> None:
        """Returns when there is something newer than `known`, and if that is only gauges, not sooner than the gap."""
        fleet, loop = self._fleet, asyncio.get_running_loop()
        # Measured from the update before, so that the first change after a quiet time goes out at once.
        until = loop.time() + self._load_gap_s
        while fleet.version <= known:
            await self._changed.wait()
        while fleet.pressing_version <= known and loop.time() < until:
            try:
                async with asyncio.timeout_at(until):
                    await self._changed.wait()
            except TimeoutError:
                return
