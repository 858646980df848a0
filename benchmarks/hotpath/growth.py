"""How the cost of a request grows with what a site may have much of: keys, backends, requests that wait.

Each size has a fleet of its own, and is measured in turns with the smallest, which stays for as long: what moves the machine
moves both, and their ratio stays. What is charged is the gateway's CPU, as everywhere."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg

from benchmarks.hotpath.engines import open_engine
from benchmarks.hotpath.goals import Grown
from benchmarks.hotpath.loads import Load, NotMeasured, System, measure
from benchmarks.hotpath.machine import Cores
from benchmarks.hotpath.ours import SLOTS, EngineAt, Ours, open_ours

_IN_TURNS = 4
_WITHIN_S = 120.0
_SLOW = "slow"
"""The model of those who wait."""
_SLOW_GAP_MS, _SLOW_TOKENS = 16_000, 60
"""Of the stream that has its only slot meanwhile."""

_KEYS = """
    INSERT INTO admin.users (id, name, group_id, role, disabled, weight_milli, max_queued, created_at, version)
    SELECT 'many_' || n, 'many-' || n, one.group_id, 'member', false, 1000, 0, now(), 1
    FROM generate_series(1, {people}) AS n, (SELECT group_id FROM admin.users WHERE name = 'free') AS one;
    INSERT INTO admin.keys
        (public_id, name, user_id, secret_hmac, allowed_models, pool, band_cap, created_by, created_at, version)
    SELECT lpad(to_hex(n), 12, '0'), 'key', 'many_' || (n % {people} + 1), sha256(n::text::bytea),
        ARRAY[]::text[], '', 'interactive', 'benchmark', now(), 1
    FROM generate_series(1, {keys}) AS n;
    ANALYZE;
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    keys: Sequence[int]
    backends: Sequence[int]
    queued: Sequence[int]
    """Each from the smallest on, with which the others are compared."""


def sizes(*, short: bool) -> Sizes:
    return Sizes(
        keys=(10, 1_000, 10_000) if short else (10, 1_000, 10_000, 100_000),
        backends=(2, 30, 300) if short else (2, 30, 300, 1_000),
        queued=(0, 100, 1_000) if short else (0, 100, 1_000, 10_000),
    )


class Growth:
    """Measures it."""

    def __init__(self, work: Path, cores: Cores, programs: Path, python: str, *, short: bool) -> None:
        self._work, self._cores, self._programs, self._python = work, cores, programs, python
        self._load = Load(connections=64, seconds=1.5 if short else 2.5, warm_s=1.5)
        self._sizes = sizes(short=short)
        self._places = 0

    async def measure(self) -> AsyncIterator[Grown | NotMeasured]:
        """As they come, what could not be measured too."""
        async with AsyncExitStack() as stack:
            engine = await stack.enter_async_context(open_engine(self._cores, self._programs))
            slow = await stack.enter_async_context(open_engine(self._cores, self._programs, _SLOW))
            for what, all_sizes in (
                ("keys", self._sizes.keys),
                ("backends", self._sizes.backends),
                ("queued", self._sizes.queued),
            ):
                size = all_sizes[0]
                try:
                    async with self._fleet(what, size, engine, slow) as smallest:
                        yield await self._in_turns(what, size, smallest, smallest)
                        for size in all_sizes[1:]:
                            async with self._fleet(what, size, engine, slow) as grown:
                                yield await self._in_turns(what, size, grown, smallest)
                except Exception as error:  # whatever it is, the others can be measured; nothing larger is tried
                    yield NotMeasured(f"growth of {what} to {size:,}: {error!r}")

    async def _in_turns(self, what: str, size: int, grown: System, smallest: System) -> Grown:
        costs: list[float] = []
        ratios: list[float] = []
        rss_mb = 0.0
        for _ in range(_IN_TURNS):
            base = await measure(smallest, self._load, self._cores, self._programs)
            reading = base if grown is smallest else await measure(grown, self._load, self._cores, self._programs)
            if not (base.is_valid and reading.is_valid):
                raise NotMeasured(f"{base.errors}+{reading.errors} errors: {base.said or reading.said}")
            costs.append(reading.us_per_answer)
            ratios.append(reading.us_per_answer / base.us_per_answer)
            rss_mb = reading.rss_mb
        return Grown(what, size, statistics.median(costs), statistics.median(ratios), rss_mb)

    @asynccontextmanager
    async def _fleet(self, what: str, size: int, engine: System, slow: System) -> AsyncIterator[System]:
        """A gateway with a key without limits, and so many of them."""
        self._places += 1
        place = self._work / f"growth-{self._places}"
        # Each backend has an address of its own, which is the same engine's.
        copies = size if what == "backends" else 1
        engines = [EngineAt(f"mock-{n}", f"http://127.0.0.1:{engine.port}/{n}", SLOTS) for n in range(copies)]
        engines.append(EngineAt(_SLOW, f"http://127.0.0.1:{slow.port}", 1))
        room = {"FOREBAY_SCHEDULER_QUEUE_PER_USER": "20000", "FOREBAY_SCHEDULER_QUEUE_PER_POOL": "20000"}
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            ours = await enter(open_ours(place, self._cores, engines, scheduler=room))
            ours.gateway_python = self._python
            if what == "keys":
                await _add_keys(ours, size)
            await _until_healthy(ours, len(engines))
            gateway = await enter(ours.open_gateway(f"{size} {what}", {}))
            system = replace(gateway, key=ours.free_key)
            if what == "queued" and size:
                await enter(self._waiting(ours, system, size))
            yield system

    @asynccontextmanager
    async def _waiting(self, ours: Ours, gateway: System, count: int) -> AsyncIterator[None]:
        """So many requests for a model whose only slot is taken. Plain ones: streams would be written comments to."""
        patient = replace(gateway, model=_SLOW)
        # The second key's, so that nothing that is counted for the measured one's user is counted for them.
        words = (*self._cores.pinned(self._cores.load), str(self._programs / "load"), "-p", str(gateway.port))
        words += ("-k", ours.limited_key, "-m", patient.model)
        holds = Load(connections=1, seconds=600, tokens=_SLOW_TOKENS, gap_ms=_SLOW_GAP_MS)
        waits = Load(connections=count, seconds=600, open_ms=max(200, count // 4))
        async with AsyncExitStack() as stack:
            for load, waiting in ((holds, 0), (waits, count)):
                process = await asyncio.create_subprocess_exec(
                    *words, *load.words(), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
                )
                stack.push_async_callback(_end, process)
                if waiting:
                    await _until_waiting(ours, waiting)
                else:
                    await asyncio.sleep(1.0)
            yield


async def _add_keys(ours: Ours, count: int) -> None:
    """Beside the few there are. Admin reads all when it starts, and a gateway that starts after it has them all."""
    connection = await asyncpg.connect(ours.wiring.secrets.database_url_file("admin").read_text().strip())
    try:
        await connection.execute(_KEYS.format(keys=count, people=max(1, count // 4)))
    finally:
        await connection.close()
    admin = ours.parts["admin"]
    await admin.stop()
    await admin.start()


async def _until_healthy(ours: Ours, count: int) -> None:
    """All backends. Raises TimeoutError."""
    async with asyncio.timeout(_WITHIN_S):
        while True:
            told = await ours.cli("backend", "list")
            if sum(one["health"] == "healthy" for one in told) >= count:
                return
            await asyncio.sleep(0.5)


async def _until_waiting(ours: Ours, count: int) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(_WITHIN_S):
        while True:
            told = await ours.cli("queue")
            if sum(one["requests"] for one in told["waiting"]) >= count:
                return
            await asyncio.sleep(0.5)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
