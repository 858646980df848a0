"""Work whose client waits for the whole of it, and what becomes of it when the client goes: some engines cancel it, some
make it to the end for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Jobs:
    def __init__(self, *, cancels: bool) -> None:
        self._cancels = cancels
        self._running: set[asyncio.Task[None]] = set()

    async def while_connected(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it to its end, or until the client goes, where this engine cancels then."""
        job = asyncio.create_task(work)
        self._running.add(job)
        job.add_done_callback(self._running.discard)
        try:
            await asyncio.shield(job)
        except asyncio.CancelledError:
            if self._cancels:
                job.cancel()
            raise

    async def stop(self) -> None:
        for job in self._running:
            job.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
