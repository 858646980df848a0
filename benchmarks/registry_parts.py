"""The parts of Forebay that stand in the registry's site, each a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from tests.fakes.cut_wire import CutWire

_PATIENCE_S = 180.0


def sets_of(service: str, settings: Mapping[str, object]) -> list[str]:
    """As words of `forebay run`."""
    return [part for key, value in settings.items() for part in ("--set", f"{service}.{key}={value}")]


@dataclass(kw_only=True)
class Part:
    """`forebay run SERVICE`."""

    service: str
    sets: list[str]
    ops: str
    log: Path
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "forebay", "run", self.service, *self.sets), stdout=log, stderr=log
            )

    async def answers(self, client: aiohttp.ClientSession, page: str) -> None:
        """Until it answers well at its ops port."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                with suppress(aiohttp.ClientError):
                    async with client.get(f"http://{self.ops}/{page}") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.1)

    def send(self, what: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, what)

    async def end(self, what: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None and self.process.returncode is None:
            self.send(signal.SIGCONT)
            self.send(what)
            await self.process.wait()

    @property
    def usage(self) -> psutil.Process:
        assert self.process is not None
        return psutil.Process(self.process.pid)


@dataclass(kw_only=True)
class RegistryProcess(Part):
    name: str
    listen: str
    wire: CutWire
    """Between it and Postgres."""
