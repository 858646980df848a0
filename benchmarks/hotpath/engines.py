"""The engine behind every system: one that costs next to nothing, so that what is measured is what stands before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.hotpath.loads import System
from benchmarks.hotpath.machine import Cores
from tests.conftest import free_port


@asynccontextmanager
async def open_engine(cores: Cores, programs: Path, model: str = "mock") -> AsyncIterator[System]:
    """Listens when entered; `direct` as a system."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *cores.pinned(cores.load), str(programs / "engine"), str(port), model
    )
    try:
        await until_connected(port, within_s=10)
        yield System("direct", port, model=model)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def until_connected(port: int, within_s: float) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
