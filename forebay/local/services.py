"""The services as children, one process each: ready together, started again when they die, drained in the right order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from forebay.local.layout import LOOPBACK
from forebay.local.process import Command
from forebay.local.supervised import Say, Supervised

READY_S = 60.0


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    part: str
    """Its name here: the service's, or the gateway's own."""
    service: str
    environ: Mapping[str, str]
    ops_port: int
    log: Path
    stop_s: float
    """How long it may take to drain."""
    page: str = "readyz"
    """Which page of its ops port says that it has come up."""
    may_miss: frozenset[str] = frozenset()
    """What of that page may be missing all the same: `lead`, of one that shall stand by."""
    descriptors: tuple[int, ...] = ()
    """Sockets of ours that it inherits."""


@asynccontextmanager
async def run_services(
    processes: Sequence[ServiceProcess],
    parts: dict[str, Supervised],
    config: Path | None,
    session: aiohttp.ClientSession,
    say: Say,
) -> AsyncIterator[None]:
    """All are ready when entered, and among `parts` before they start. Left, they stop one after another from the last to
    the first, so that nobody loses a peer it still needs; those of the same service together. Raises CannotStart."""
    running = {process.part: supervise(process, config, session, say) for process in processes}
    parts |= running
    try:
        await _start_together(list(running.values()))
        yield
    finally:
        for service in reversed(list(dict.fromkeys(process.service for process in processes))):
            # Those that run now: an upgrade may have put others in their places.
            stopping = [parts[process.part] for process in processes if process.service == service]
            await asyncio.gather(*(part.stop() for part in stopping))


def supervise(
    process: ServiceProcess,
    config: Path | None,
    session: aiohttp.ClientSession,
    say: Say,
    *,
    python: str = sys.executable,
    ready_within_s: float = READY_S,
) -> Supervised:
    """Not started yet. `python` is that of the environment in which the service is installed."""
    url = f"http://{LOOPBACK}:{process.ops_port}/{process.page}"

    async def ready() -> bool:
        return await is_ready(session, url, process.may_miss)

    # -P: what lies in the working directory is not what `forebay` means.
    run = (python, "-P", "-m", "forebay", "run", process.service)
    command = Command(
        name=process.part,
        argv=(*run, "--config", str(config)) if config else run,
        log=process.log,
        # Two arenas: glibc's usual eight for each core hold on to memory that nobody uses.
        environ={"MALLOC_ARENA_MAX": "2", **os.environ, **process.environ},
        stop_signal=signal.SIGTERM,
        grace_s=process.stop_s,
        ready_within_s=ready_within_s,
        descriptors=process.descriptors,
    )
    return Supervised(command, ready, say)


async def _start_together(parts: Sequence[Supervised]) -> None:
    starting = [asyncio.ensure_future(part.start()) for part in parts]
    try:
        await asyncio.gather(*starting)
    finally:
        for one in starting:
            one.cancel()
        await asyncio.wait(starting)


async def is_ready(session: aiohttp.ClientSession, url: str, may_miss: frozenset[str] = frozenset()) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=2)) as response:
            if response.status == 200 or not may_miss:
                return response.status == 200
            waits_for = (await response.json()).get("waiting_for")
            return bool(waits_for) and may_miss.issuperset(waits_for)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return False
