"""The fake engine as a process of its own, and its control URL as methods. For tests that kill it, or whose own process
must not share its event loop."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[2]


class EngineControl:
    """`/control/…` of a fake engine at `url`."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def inject(self, kind: str, **fields: Any) -> None:
        """`inject("status", status=503, times=2)`; kinds and fields as `engine_faults.Fault`. ValueError for a bad one."""
        await self._post("faults", {"kind": kind, **fields})

    async def set_pace(self, **fields: float) -> None:
        """`set_pace(tokens_per_s=5)`; fields as `engine_orders.Pace`."""
        await self._post("pace", fields)

    async def reset(self) -> None:
        await self._post("reset", {})

    async def seen(self) -> dict[str, Any]:
        """`requests`, `probes`, `slots`, `running`, `waiting`, `peak_running`, `peak_width`, `now`."""
        async with self._session.get(f"{self.url}/control/seen") as response:
            response.raise_for_status()
            seen: dict[str, Any] = await response.json()
            return seen

    async def _post(self, what: str, body: Any) -> None:
        async with self._session.post(f"{self.url}/control/{what}", json=body) as response:
            answer = await response.json()
            if response.status == 400:
                raise ValueError(answer["error"])
            response.raise_for_status()


class EngineProcess(EngineControl):
    def __init__(self, url: str, session: aiohttp.ClientSession, process: asyncio.subprocess.Process) -> None:
        super().__init__(url, session)
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def kill(self) -> None:
        """SIGKILL: every connection breaks at once."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def open_engine_process(*arguments: str) -> AsyncIterator[EngineProcess]:
    """`python tests/fakes/engine.py ARGUMENTS` on a free port unless `--port` is among them; ended when left.

    async with open_engine_process("--slots", "2", "--tokens-per-s", "20") as engine: ... engine.url, engine.inject(…)
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fakes.engine",
        *arguments,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        first_line = await asyncio.wait_for(process.stdout.readline(), timeout=20)
        if not first_line:
            raise RuntimeError(f"the fake engine ended with status {await process.wait()} before it listened")
        async with aiohttp.ClientSession() as session:
            yield EngineProcess(json.loads(first_line)["url"], session, process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
