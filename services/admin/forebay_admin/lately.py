"""What was found out lately, for everybody who asks: one at a time finds it out, and it is kept for a while. That it cannot
be found out is kept for a moment: those who wait in line would otherwise wait for one failure after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from forebay.clock import Clock
from forebay.errors import ForebayError

FAILED_S = 1.0
"""How long a failure is told again."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Known:
    until: float
    told: Any = None
    error: ForebayError | None = None


class Lately:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def told(self, name: str, kept_s: float, make: Callable[[], Awaitable[T]]) -> T:
        """`name`: one of few. Raises what `make` raises."""
        async with self._turns.setdefault(name, asyncio.Lock()):
            known = self._known.get(name)
            if known is None or self._clock.monotonic() >= known.until:
                known = self._known[name] = await self._found(kept_s, make)
            if known.error is not None:
                raise known.error.with_traceback(None)
            told: T = known.told
            return told

    async def _found(self, kept_s: float, make: Callable[[], Awaitable[Any]]) -> _Known:
        began = self._clock.monotonic()
        try:
            return _Known(began + kept_s, await make())
        except ForebayError as error:
            return _Known(self._clock.monotonic() + min(kept_s, FAILED_S), error=error)
