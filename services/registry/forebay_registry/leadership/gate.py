"""Work that is done only while something holds, such as the lead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Gate:
    def __init__(self) -> None:
        self._open, self._shut = asyncio.Event(), asyncio.Event()
        self._shut.set()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def set(self, is_open: bool) -> None:
        (self._open if is_open else self._shut).set()
        (self._shut if is_open else self._open).clear()

    async def opened(self) -> None:
        await self._open.wait()

    async def during(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begins `work` whenever the gate opens, and ends it when it shuts. Until cancelled; what `work` raises ends this
        too."""
        while True:
            await self._open.wait()
            doing = asyncio.create_task(work(), name="gated")
            shut = asyncio.create_task(self._shut.wait())
            try:
                await asyncio.wait({doing, shut}, return_when=asyncio.FIRST_COMPLETED)
                if doing.done():
                    doing.result()
                    await shut
            finally:
                shut.cancel()
                doing.cancel()
                await asyncio.wait({doing})  # and not `await doing`: its cancellation and ours would look the same
            if not doing.cancelled():
                doing.result()
