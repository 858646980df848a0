"""Whose turn it is to fetch into a model store: so many models at once, and each of them once.

Which backends share a store nobody tells. Those of one node may, so that they take turns with one model, and who waited
looks first whether it has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Line:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted_by: int = 0
    delivered: str | None = None


@dataclass(slots=True)
class Turn:
    brought: str | None
    """The digest of what another one fetched while this one waited."""
    delivered: str | None = None
    """To be set by who fetched: the digest of what there is now."""


class Turns:
    def __init__(self, at_once: int) -> None:
        """`at_once`: in one store."""
        self._at_once = at_once
        self._lines: dict[tuple[str, str], _Line] = {}
        self._rooms: dict[str, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def turn(self, store: str, model: str) -> AsyncIterator[Turn]:
        line = self._lines.setdefault((store, model), _Line())
        room = self._rooms.setdefault(store, asyncio.Semaphore(self._at_once))
        line.wanted_by += 1
        try:
            async with line.lock, room:
                turn = Turn(line.delivered)
                yield turn
                line.delivered = turn.delivered or line.delivered
        finally:
            line.wanted_by -= 1
            if not line.wanted_by:
                del self._lines[store, model]
