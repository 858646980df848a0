"""Since when something is as it is, for those who ask how the whole is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from forebay.clock import Clock

_LOOK_S = 0.5


class Since:
    def __init__(self, clock: Clock, parts: Mapping[str, Callable[[], object]]) -> None:
        """`parts`: name → how it is now. What is asked must not wait."""
        self._clock = clock
        self._parts = parts
        self._known: dict[str, tuple[object, float]] = {}
        self._look()

    async def watch(self) -> None:
        """Notes changes within half a second, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self._look()

    def of(self, name: str) -> tuple[object, float]:
        """How it is, and since when: seconds since the epoch."""
        self._look()
        return self._known[name]

    def _look(self) -> None:
        for name, read in self._parts.items():
            value = read()
            if name not in self._known or self._known[name][0] != value:
                self._known[name] = value, self._clock.now()
