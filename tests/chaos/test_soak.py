"""Clients that come and go, some fifty requests a second: whole answers, plain and streamed, and every way in
which a request ends otherwise, one after the other for minutes. Nothing is left: no memory, task, descriptor or slot.

The gateway is the compiled one, as shipped, where `make core` has built it of these sources."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from benchmarks.hotpath.ours import compiled, form_of_gateways
from forebay.local.layout import LOOPBACK
from tests.chaos.figures import LONG, Figure, resident_bytes, tell
from tests.chaos.quick_client import QuickClient, chat
from tests.system.chaos import what_does_not_add_up
from tests.system.cluster import Cluster, cluster_place, open_cluster

_SLOTS = 16
_ENGINES = {
    "counted": ("--slots", str(_SLOTS), "--tokens-per-s", "400", "--ttft-s", "0.02", "--flavour", "llama.cpp"),
    "silent": ("--slots", str(_SLOTS), "--tokens-per-s", "400", "--ttft-s", "0.02"),
    "failing": ("--slots", str(_SLOTS), "--tokens-per-s", "400", "--model", "failing-model"),
}
_LASTS_S = 1200.0 if LONG else 180.0
_WARM_S = 0.25 * _LASTS_S
"""Until pools, caches and the allocator have what they need."""
_CLIENTS = 24
_PAUSE_S = 0.25
"""Between two requests of a client, in the middle. What sets the load."""
_LOOK_S = 2.0
_AFTER_S = 15.0
"""Within which all is given back: connections to engines rest for 3 s, a slot that was left for half a second."""
_MOST_GROWTH = 0.03
"""Of the memory, from the second quarter to the last."""
_SPARE_BYTES = 2 << 20
"""What an allocator takes or leaves."""
_SPARE_FILES = 4
_REFUSED = ("of_no_model: 404", "of_nobody: 401", "of_nobody: 429")
"""429 once so many wrong keys have come that the address is banned for them."""


@pytest.fixture
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    place = cluster_place(tmp_path_factory, "soak")
    settings = {"gateway-1": await asyncio.to_thread(compiled, "forebay_gateway")}
    async with open_cluster(
        place, gateways=1, users=4, engines=_ENGINES, engine_slots=_SLOTS, settings=settings
    ) as cluster:
        yield cluster


@dataclass
class Crowd:
    cluster: Cluster
    chance: random.Random
    ended: Counter[str] = field(default_factory=Counter)
    """How requests ended, by what was meant to happen and what came of it."""
    is_over: bool = False

    async def live(self, number: int) -> None:
        key = self.cluster.keys[number % len(self.cluster.keys)]
        ways: dict[Callable[[str], Awaitable[str]], int] = {
            self._plain: 5,
            self._streamed: 5,
            self._gone_at_once: 1,
            self._gone_in_the_middle: 1,
            self._gone_before_its_body: 1,
            self._of_no_model: 1,
            self._of_nobody: 1,
            self._engine_fails: 1,
        }
        while not self.is_over:
            (way,) = self.chance.choices(list(ways), list(ways.values()))
            self.ended[f"{way.__name__.strip('_')}: {await way(key)}"] += 1
            await asyncio.sleep(self.chance.uniform(0, 2 * _PAUSE_S))

    @property
    def port(self) -> int:
        return self.cluster.layout.gateway(self.cluster.layout.gateways[0])

    def words(self) -> str:
        return " ".join(f"w{self.chance.randrange(1000)}" for _ in range(self.chance.randrange(5, 400)))

    async def _plain(self, key: str) -> str:
        return await self._ask(key, stream=False)

    async def _streamed(self, key: str) -> str:
        return await self._ask(key, stream=True)

    async def _ask(self, key: str, *, stream: bool, model: str = "fake-model", within_s: float = 60.0) -> str:
        async with QuickClient(self.port) as client:
            said = chat(key, self.words(), tokens=self.chance.randrange(1, 60), stream=stream, model=model)
            answer = await client.ask(said, within_s)
        is_whole = answer.status == 200 and (not stream or answer.body.rstrip().endswith(b"[DONE]"))
        return "whole" if is_whole else str(answer.status or "cut")

    async def _gone_at_once(self, key: str) -> str:
        return await self._leave(chat(key, self.words(), tokens=60, stream=self.chance.random() < 0.5), hear=0)

    async def _gone_in_the_middle(self, key: str) -> str:
        return await self._leave(chat(key, self.words(), tokens=60, stream=True), hear=400)

    async def _gone_before_its_body(self, key: str) -> str:
        whole = chat(key, self.words(), tokens=60, stream=True)
        return await self._leave(whole[: len(whole) - 10], hear=0)

    async def _leave(self, said: bytes, *, hear: int) -> str:
        """Once so many bytes have come."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        try:
            writer.write(said)
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readexactly(hear)
            await asyncio.sleep(self.chance.uniform(0, 0.03))
        finally:
            writer.transport.abort()
        return "left"

    async def _of_no_model(self, key: str) -> str:
        return await self._ask(key, stream=True, model="none-such")

    async def _of_nobody(self, key: str) -> str:
        return await self._ask(f"{key[:-4]}nope", stream=False)

    async def _engine_fails(self, key: str) -> str:
        """Of a model of its own, whose only engine rests most of the time for it: some are answered, some refused, and some
        go since they have waited for long enough."""
        await self.cluster.engines["failing"].inject("status", status=self.chance.choice((500, 503, 429)), times=1)
        return await self._ask(key, stream=self.chance.random() < 0.5, model="failing-model", within_s=3.0)


@dataclass(frozen=True, slots=True)
class Held:
    memory_bytes: int
    files: int
    tasks: float
    at_s: float


async def look(cluster: Cluster, began: float) -> Held:
    name = cluster.layout.gateways[0]
    pid = cluster.pid(name)
    while (tasks := await cluster.reading(cluster.layout.ops(name), "forebay_gateway_tasks")) is None:
        await asyncio.sleep(0.1)  # it is late; what is not known is not nothing
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Held(resident_bytes(pid), files, tasks, time.monotonic() - began)


@pytest.mark.timeout(_LASTS_S + 300)
async def test_clients_that_come_and_go_leave_nothing_behind(cluster: Cluster) -> None:
    crowd = Crowd(cluster, random.Random(7))
    await crowd._streamed(cluster.keys[0])
    await asyncio.sleep(4)  # until its connection to an engine has rested enough
    began = time.monotonic()
    psutil.cpu_percent()  # from here on
    before = await look(cluster, began)
    clients = [asyncio.create_task(crowd.live(number), name=f"client-{number}") for number in range(_CLIENTS)]
    seen: list[Held] = []
    while time.monotonic() - began < _LASTS_S:
        await asyncio.sleep(_LOOK_S)
        seen.append(await look(cluster, began))
    busy = psutil.cpu_percent()
    crowd.is_over = True
    await asyncio.gather(*clients)
    after = await look(cluster, began)
    until = time.monotonic() + _AFTER_S
    while (after.files > before.files + _SPARE_FILES or after.tasks > before.tasks) and time.monotonic() < until:
        await asyncio.sleep(0.5)
        after = await look(cluster, began)
    problems = await what_does_not_add_up(cluster, _SLOTS)

    early = statistics.median(one.memory_bytes for one in seen if _WARM_S <= one.at_s < 2 * _WARM_S)
    late = statistics.median(one.memory_bytes for one in seen if one.at_s >= 3 * _WARM_S)
    asked, whole = crowd.ended.total(), sum(count for how, count in crowd.ended.items() if how.endswith(": whole"))
    figures: dict[str, Figure] = {
        "gateway": await asyncio.to_thread(form_of_gateways),
        "s": _LASTS_S,
        "requests": asked,
        "a second": asked / _LASTS_S,
        "whole answers": whole,
        "% of all cores busy": busy,
        "MiB before": before.memory_bytes / (1 << 20),
        "second quarter": early / (1 << 20),
        "last quarter": late / (1 << 20),
        "most tasks": max(one.tasks for one in seen),
        "tasks before": before.tasks,
        "tasks after": after.tasks,
        "most descriptors": max(one.files for one in seen),
        "descriptors before": before.files,
        "descriptors after": after.files,
        "slots left": len(problems),
    }
    served = {"plain", "streamed"}
    holds = {
        "whoever stays gets an answer": all(
            how.endswith(": whole") for how in crowd.ended if how.partition(":")[0] in served
        ),
        "whoever is refused is refused with the right status": all(
            how in _REFUSED for how in crowd.ended if how.startswith("of_no")
        ),
        "memory does not grow": late <= early * (1 + _MOST_GROWTH) + _SPARE_BYTES,
        "no task is left": after.tasks <= before.tasks,
        "no descriptor is left": after.files <= before.files + _SPARE_FILES,
        "no slot is left": not problems,
    }
    broken = tell("soak", figures, holds)
    assert not broken, f"{broken}\n{problems}\n{crowd.ended}\n{[one.memory_bytes >> 10 for one in seen]}"
