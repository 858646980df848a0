"""Load on a cluster while things go wrong, and what has to add up afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.system.cluster import Cluster
from tests.system.installation import Streamed, ask, stream

MODEL = "fake-model"
_WITH_USAGE = {"stream_options": {"include_usage": True}}
_ENDED_WITHIN_S = 60.0
_SETTLED_WITHIN_S = 150.0
"""A minute until a lost gateway's requests are written down, and then some."""


@dataclass
class Load:
    """Clients that ask one thing after another, each for its user, through every gateway in turn."""

    cluster: Cluster
    clients: int
    chance: random.Random
    refusing: float = 0.0
    """The part of requests before which an engine is told to answer the next one with 503."""
    leaving: float = 0.05
    """The part of clients that go away in the middle."""
    name: str = "chaos"
    """With which its request ids begin."""
    pause_s: float = 0.0
    """How long a client waits at most between two requests."""
    most_tokens: int = 50
    gateways: Sequence[int] = (0, 1)
    results: list[Streamed] = field(default_factory=list)
    left: set[str] = field(default_factory=set)
    """Of those who went away."""
    asked: dict[int, str] = field(default_factory=dict)
    """What each client waits for."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _is_over: bool = False

    async def __aenter__(self) -> Load:
        self._tasks = [
            asyncio.create_task(self._ask_on(number), name=f"client-{number}") for number in range(self.clients)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Lets what runs come to its end."""
        self._is_over = True
        await asyncio.wait(self._tasks, timeout=_ENDED_WITHIN_S)
        stuck = [self.asked[number] for number, task in enumerate(self._tasks) if not task.done()]
        shown = await self.cluster.queue(await self.cluster.leader()) if stuck else None
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        failed = [one for one in outcomes if isinstance(one, Exception)]
        assert not failed, f"clients failed: {failed}"
        assert not stuck, f"{stuck} came to no end within {_ENDED_WITHIN_S} s; the scheduler says:\n{shown}"

    def gateway_of(self, request_id: str) -> int:
        """The number of the one that was asked."""
        number, turn = map(int, request_id.rsplit("-", 2)[1:])
        return self.gateways[(number + turn) % len(self.gateways)]

    @property
    def finished(self) -> int:
        return sum(result.is_done for result in self.results)

    async def _ask_on(self, number: int) -> None:
        for turn in range(1_000_000):
            if self._is_over:
                return
            if self.chance.random() < self.refusing:
                engine = self.chance.choice(list(self.cluster.engines.values()))
                with suppress(aiohttp.ClientError):
                    await engine.inject("status", status=503, times=1)
            await self._ask_once(number, turn)
            if self.pause_s:
                await asyncio.sleep(self.chance.uniform(0, self.pause_s))

    async def _ask_once(self, number: int, turn: int) -> None:
        words = " ".join(f"w{self.chance.randrange(1000)}" for _ in range(self.chance.randrange(5, 60)))
        body = ask(words, model=MODEL, max_tokens=self.chance.randrange(5, self.most_tokens), **_WITH_USAGE)
        request_id, first = f"{self.name}-{number}-{turn}", asyncio.Event()
        self.asked[number] = request_id
        key = self.cluster.keys[number % len(self.cluster.keys)]
        gateway = self.gateway_of(request_id)
        asking = asyncio.create_task(
            stream(self.cluster.client, self.cluster.gateway_url(gateway), key, body, request_id, first)
        )
        if self.chance.random() < self.leaving:
            while not (asking.done() or first.is_set()):
                await asyncio.sleep(0.01)
            if not asking.done():
                asking.cancel()
                await asyncio.wait([asking])
                self.left.add(request_id)
                return
        result = await asking
        self.results.append(result)
        if result.broke or result.status != 200:
            await asyncio.sleep(0.2)  # as a client would that is told to come back


@dataclass(frozen=True, slots=True)
class Takeover:
    lead_s: float
    """From the leader's end until another said that it leads."""
    grant_s: float
    """The same, until its first grant."""


async def watch_takeover(cluster: Cluster, old: str, began: float, within_s: float = 15.0) -> Takeover:
    """Of the scheduler that leads after `old`, by its own counts. There must be load that waits."""
    new = await cluster.leader(within_s, other_than=old)
    led_at = time.monotonic()
    while not await cluster.reading(cluster.schedulers[new].ops_port, "forebay_scheduler_grants_total"):
        assert time.monotonic() - began < within_s, f"{new} leads and grants nothing within {within_s} s"
        await asyncio.sleep(0.01)
    return Takeover(led_at - began, time.monotonic() - began)


async def what_does_not_add_up(
    cluster: Cluster, slots: int, *loads: Load, is_overlap_allowed: bool = False
) -> list[str]:
    """Each a sentence; none when all is well. Waits for the ledger and for slots of the dead to return."""
    problems = await _slots_that_never_returned(cluster)
    rows = await _ledger(cluster, loads) if loads else []
    for load in loads:
        problems += _rows_against_clients([row for row in rows if _is_of(row, load)], load)
    for name, engine in cluster.engines.items():
        seen = await engine.seen()
        if seen["peak_width"] > slots and not is_overlap_allowed:
            problems.append(f"engine {name} was asked for {seen['peak_width']} at once and has {slots} slots")
        if seen["running"]:
            problems.append(f"engine {name} still runs {seen['running']} for nobody")
    return problems


async def _slots_that_never_returned(cluster: Cluster) -> list[str]:
    until = time.monotonic() + _SETTLED_WITHIN_S
    while True:
        shown = await cluster.queue(await cluster.leader())
        taken = {
            one.backend_id: (one.held, one.quarantined) for one in shown.held if one.held - one.lent or one.quarantined
        }
        waiting = sum(one.requests for one in shown.waiting)
        if not taken and not waiting:
            return []
        if time.monotonic() > until:
            return [f"with nobody asking, {taken} (held, of the dead) and {waiting} waiting are left"]
        await asyncio.sleep(0.5)


async def _ledger(cluster: Cluster, loads: Sequence[Load]) -> list[dict[str, Any]]:
    """The newest rows, once those of all who saw an answer are there, and a moment later for one that came twice."""
    wanted = {result.request_id for load in loads for result in load.results if result.status}
    wanted = wanted.union(*(load.left for load in loads))
    until = time.monotonic() + _SETTLED_WITHIN_S
    while True:
        rows = await cluster.cli("usage", "--rows", "--limit", "10000")
        if wanted <= {row["request_id"] for row in rows} or time.monotonic() > until:
            break
        await asyncio.sleep(2)
    await asyncio.sleep(2)
    newest: list[dict[str, Any]] = await cluster.cli("usage", "--rows", "--limit", "10000")
    return newest


def _is_of(row: dict[str, Any], load: Load) -> bool:
    return str(row["request_id"]).startswith(f"{load.name}-")


def _rows_against_clients(rows: Sequence[dict[str, Any]], load: Load) -> list[str]:
    problems = []
    times = Counter(row["request_id"] for row in rows)
    problems += [f"{request_id} has {count} rows" for request_id, count in times.items() if count > 1]
    by_id = {row["request_id"]: row for row in rows}
    for result in load.results:
        row = by_id.get(result.request_id)
        if row is None:
            if result.status:  # one that never reached a gateway that lived has none
                problems.append(f"{result.request_id} was answered {result.status} and has no row")
            continue
        if result.is_done and not result.error:
            problems += _tokens_of_a_whole_answer(result, row)
        elif row["outcome"] == "finished" and not result.broke:
            problems.append(f"{result.request_id} is finished in the ledger; its client got {result}")
        elif row["completion_tokens"] < len(result.arrivals) and row["outcome"] != "gateway_lost":
            counted = f"{row['completion_tokens']} ({row['outcome']})"
            problems.append(f"{result.request_id} relayed {len(result.arrivals)} tokens and has {counted}")
    problems += [f"{request_id} was left by its client and has no row" for request_id in load.left - by_id.keys()]
    return problems


def _tokens_of_a_whole_answer(result: Streamed, row: dict[str, Any]) -> list[str]:
    told = (result.usage or {}).get("completion_tokens")
    counted = {len(result.arrivals), row["completion_tokens"], told}
    if len(counted) == 1 and row["outcome"] == "finished":
        return []
    return [
        f"{result.request_id}: {len(result.arrivals)} tokens arrived, usage says {told}, the ledger "
        f"{row['completion_tokens']} ({row['outcome']})"
    ]
