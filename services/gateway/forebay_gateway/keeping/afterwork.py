"""Work that goes on when the request that it was for has gone. Each piece has a deadline of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

log = logging.getLogger(__name__)


class Afterwork:
    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Never fails: what goes wrong is logged."""
        task = asyncio.create_task(_logged(work, name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait_ended(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)


@asynccontextmanager
async def open_afterwork() -> AsyncIterator[Afterwork]:
    """Left when all have ended."""
    afterwork = Afterwork()
    try:
        yield afterwork
    finally:
        await afterwork.wait_ended()


async def _logged(work: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await work
    except Exception:
        log.exception("work after a request failed", extra={"action": "afterwork", "work": name})
