"""Three times as much is asked for as the engines can do. Nobody waits for nothing: who cannot be served soon is told so,
and when to come back; shares are kept; and when it is over, it is over within seconds."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from tests.chaos.figures import LONG, resident_bytes, tell
from tests.chaos.quick_client import NO_ANSWER, Answer, QuickClient, chat, share
from tests.system.chaos import what_does_not_add_up
from tests.system.cluster import Cluster, cluster_place, open_cluster

SLOTS = 4
ENGINES = {name: ("--slots", str(SLOTS), "--tokens-per-s", "30", "--ttft-s", "0") for name in ("one", "two")}
TOKENS = 21
"""Of each answer: 0.7 s on a slot."""
TIMES = 3.0
OVERLOAD_S = float(os.environ.get("FOREBAY_CHAOS_OVERLOAD_S", "600" if LONG else "120"))
SEED = int(os.environ.get("FOREBAY_CHAOS_SEED", "5"))
WEIGHTS = {"heavy": 2.0, "light": 1.0}
_QUEUE_PER_USER = 25
_RETURNS = 1
"""How often a client that is refused comes back."""
_STILL_RETURN = 0.1
"""The part of them that does once it is over: the others have given up."""
_CALM_S, _WARM_S = 5.0, 5.0
_BUSY = 0.6
"""Of what the engines did when nothing else was asked for: load, refusals and engines share the machine's cores."""
_RECOVERED_WITHIN_S = 10.0
_TOLD_AT_LEAST, _TOLD_AT_MOST = 0.7, 2.5
"""Of what those of the same user waited, in the median, who were let in."""
_MOST_SERVED = 75.0
"""Percent of the twenty or so who return when it is over; some are told a moment at which the queue is still full."""
_SETTLED_AFTER_S = 20.0
_MEMORY_GROWS_BY = 96 << 20
_SETTINGS = {
    name: {"FOREBAY_SCHEDULER_QUEUE_PER_USER": str(_QUEUE_PER_USER)} for name in ("scheduler-1", "scheduler-2")
}
_WATCHED = ("gateway-1", "gateway-2", "scheduler-1")


@pytest.fixture
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    place = cluster_place(tmp_path_factory, "overload")
    async with open_cluster(place, engines=ENGINES, engine_slots=SLOTS, users=1, settings=_SETTINGS) as cluster:
        yield cluster


@dataclass
class Crowd:
    """Clients of one user that come when they come, whoever else waits, and return when they are told to."""

    ports: list[int]
    key: str
    chance: random.Random
    first_tries: list[tuple[float, Answer]] = field(default_factory=list)
    """With the time at which each answer came."""
    returns: list[list[tuple[float, Answer]]] = field(default_factory=lambda: [[] for _ in range(_RETURNS)])
    """Likewise, with the time at which each came back."""
    sent: int = 0
    is_over: bool = False
    _idle: list[QuickClient] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def keep_coming(self, per_s: float) -> None:
        """Until cancelled."""
        at = time.monotonic()
        while True:
            at += self.chance.expovariate(per_s)
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            task = asyncio.create_task(self._come())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """When all have been answered for the last time."""
        await asyncio.gather(*self._tasks)
        for client in self._idle:
            client.close()

    @property
    def answers(self) -> list[Answer]:
        return [answer for _, answer in self.first_tries] + [answer for tries in self.returns for _, answer in tries]

    async def _come(self) -> None:
        answer = await self.ask()
        self.first_tries.append((time.monotonic(), answer))
        for tries in self.returns:
            if answer.status == 200 or answer.retry_after_s is None:
                return
            await asyncio.sleep(answer.retry_after_s)
            if self.is_over and self.chance.random() > _STILL_RETURN:
                return
            came = time.monotonic()
            answer = await self.ask()
            tries.append((came, answer))

    async def ask(self) -> Answer:
        self.sent += 1
        client = self._idle.pop() if self._idle else QuickClient(self.chance.choice(self.ports))
        answer = await client.ask(chat(self.key, "please", tokens=TOKENS, stream=True))
        self._idle.append(client)
        return answer


@dataclass
class Calm:
    """Somebody who asks for little, one thing after another."""

    crowd: Crowd
    answers: list[Answer] = field(default_factory=list)

    async def keep_asking(self) -> None:
        """Until cancelled."""
        while True:
            self.answers.append(await self.crowd.ask())
            await asyncio.sleep(0.5)

    def firsts_s(self) -> list[float]:
        return [answer.first_s for answer in self.answers if answer.status == 200]


@dataclass
class Watch:
    """The most of what must stay bounded."""

    cluster: Cluster
    memory: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in _WATCHED})
    waiting: list[float] = field(default_factory=list)
    """At the one who leads, as long as it has led for a while."""
    waiting_at_changes: list[float] = field(default_factory=list)
    """After another took the lead: what gateways held until then is taken in whole, with its age."""
    leaders: list[str] = field(default_factory=list)
    _changed_at: float = 0.0

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(0.5)

    async def look(self) -> None:
        for name, seen in self.memory.items():
            pid = self.cluster.parts[name].pid
            assert pid is not None, f"{name} died"
            seen.append(resident_bytes(pid))
        leader, waiting = await queued(self.cluster)
        if [leader] != self.leaders[-1:]:
            self._changed_at = time.monotonic() if self.leaders else 0.0
            self.leaders.append(leader)
        has_settled = time.monotonic() - self._changed_at > _SETTLED_AFTER_S
        (self.waiting if has_settled else self.waiting_at_changes).append(waiting)


async def queued(cluster: Cluster) -> tuple[str, float]:
    """Who leads (empty: nobody says so), and what waits there."""
    for name, place in cluster.schedulers.items():
        if await cluster.reading(place.ops_port, "forebay_scheduler_leads") == 1.0:
            return name, await cluster.reading(place.ops_port, "forebay_scheduler_waiting") or 0.0
    return "", 0.0


async def for_a_while(seconds: float, *work: asyncio.Task[None]) -> None:
    await asyncio.sleep(seconds)
    for task in work:
        task.cancel()
    for task in work:
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.timeout(OVERLOAD_S + (1200 if LONG else 400))
async def test_three_times_what_the_engines_can_do_is_borne(cluster: Cluster) -> None:
    chance = random.Random(SEED)
    ports = [cluster.layout.gateway(name) for name in cluster.layout.gateways]
    crowds = {
        name: Crowd(ports, await _key_in_group(cluster, name, weight), chance) for name, weight in WEIGHTS.items()
    }
    calm = Calm(Crowd(ports, await _key_in_group(cluster, "calm", 1.0), chance))
    capacity = await _capacity(crowds["heavy"])
    await for_a_while(_CALM_S, asyncio.create_task(calm.keep_asking()))
    calm_before = calm.firsts_s()
    calm.answers.clear()

    watch = Watch(cluster)
    await watch.look()
    before = {name: seen[0] for name, seen in watch.memory.items()}
    per_s = TIMES * capacity / len(crowds)
    load = [asyncio.create_task(crowd.keep_coming(per_s)) for crowd in crowds.values()]
    beside = [asyncio.create_task(calm.keep_asking()), asyncio.create_task(watch.run())]
    await asyncio.sleep(_WARM_S)
    marks = {name: len(crowd.first_tries) for name, crowd in crowds.items()}
    done_before = {name: _served(crowd.answers) for name, crowd in crowds.items()}
    await for_a_while(OVERLOAD_S, *load)
    done = {name: _served(crowd.answers) - done_before[name] for name, crowd in crowds.items()}
    beside_overload = calm.firsts_s()

    ended = time.monotonic()
    for crowd in crowds.values():
        crowd.is_over = True
    while await queued(cluster) != (await cluster.leader(), 0.0):
        assert time.monotonic() - ended < 120, "the queue does not empty"
        await asyncio.sleep(0.05)
    emptied_s = time.monotonic() - ended
    calm.answers.clear()
    await for_a_while(3.0, *beside)
    after = calm.firsts_s()
    for crowd in (*crowds.values(), calm.crowd):
        await crowd.stop()
    problems = await what_does_not_add_up(cluster, SLOTS)
    sent = {**{name: crowd.sent for name, crowd in crowds.items()}, "calm": calm.crowd.sent}
    rows = await _rows(cluster, sent)

    answers = [answer for crowd in crowds.values() for answer in crowd.answers]
    refused = [answer for answer in answers if answer.status not in (200, NO_ANSWER)]
    tries = {name: crowd.first_tries[marks[name] :] for name, crowd in crowds.items()}
    told_s = {
        name: [answer.retry_after_s or 0.0 for answer in crowd.answers if answer.status not in (200, NO_ANSWER)]
        for name, crowd in crowds.items()
    }
    waited_s = {
        name: [
            float(answer.headers["x-forebay-queue-ms"]) / 1000
            for _, answer in first_tries
            if answer.status == 200
            and "x-forebay-queue-ms" in answer.headers  # a stream that began with a comment has none
        ]
        for name, first_tries in tries.items()
    }
    growth = {name: max(seen) - before[name] for name, seen in watch.memory.items()}
    firsts = sum(map(len, tries.values()))
    ratio = done["heavy"] / max(1, done["light"])
    back = [[one for crowd in crowds.values() for one in crowd.returns[turn]] for turn in range(_RETURNS)]
    meanwhile = [answer for turn in back for at, answer in turn if at <= ended]
    returned = [answer for turn in back for at, answer in turn if at > ended]
    figures = {
        "for s": OVERLOAD_S,
        "capacity /s": capacity,
        "asked for /s": firsts / OVERLOAD_S,
        "with returns /s": len(answers) / (OVERLOAD_S + _WARM_S),
        "served /s": sum(done.values()) / OVERLOAD_S,
        "refused": len(refused),
        "broken": sum(answer.status == NO_ANSWER for answer in answers),
        "shares (2 : 1)": ratio,
        **{
            f"{name}: {what}": round(share(times[name], part), 1)
            for name in crowds
            for what, times, part in (
                ("told to come back in s, first tenth", told_s, 0.1),
                ("median", told_s, 0.5),
                ("waited s (median)", waited_s, 0.5),
            )
        },
        "served at the return, while it lasts %": _part_served(meanwhile),
        "once it is over %": _part_served(returned),
        "who returned then": len(returned),
        "most in the queue": int(max(watch.waiting)),
        "leaders, one after another": len(watch.leaders),
        "most in the queue after a change": int(max(watch.waiting_at_changes, default=0)),
        **{f"{name} grew by MiB": growth[name] / (1 << 20) for name in _WATCHED},
        "queue empty after s": emptied_s,
        "first token of somebody calm ms (median), before": 1000 * share(calm_before, 0.5),
        "beside it": 1000 * share(beside_overload, 0.5),
        "p95 beside it": 1000 * share(beside_overload, 0.95),
        "afterwards": 1000 * share(after, 0.5),
        "ledger rows": sum(rows.values()),
        "requests": sum(sent.values()),
    }
    holds = {
        "it was an overload": firsts / OVERLOAD_S >= 0.8 * TIMES * capacity,
        "the engines were kept busy": sum(done.values()) / OVERLOAD_S >= _BUSY * capacity,
        "nothing broke": all(answer.status != NO_ANSWER for answer in answers),
        "refusals are 429 or 503 and say why": all(a.status in (429, 503) and a.reason for a in refused)
        and bool(refused),
        "each says when to come back, within 120 s": all(0 < (a.retry_after_s or 0) <= 120 for a in refused),
        "what they say is no less than those waited who were let in, and near it": all(
            _is_true(told_s[name], waited_s[name]) for name in crowds
        ),
        "who comes back then is served, once it is over": _part_served(returned) >= _MOST_SERVED,
        "shares are kept within 20 %": 1.6 <= ratio <= 2.4,
        "the queue is bounded": max(watch.waiting) <= _QUEUE_PER_USER * len(crowds) + SLOTS,
        "memory is bounded": max(growth.values()) <= _MEMORY_GROWS_BY,
        "it is over within 10 s": emptied_s <= _RECOVERED_WITHIN_S,
        "somebody calm was served throughout": all(a.status == 200 for a in calm.answers) and bool(beside_overload),
        "one ledger row for each request": rows == sent,
        "all slots returned": not problems,
    }
    broken = tell("overload", figures, holds)
    reasons = Counter((answer.status, answer.reason) for answer in refused)
    assert not broken, "\n".join([*broken, repr(reasons), f"rows {rows}, sent {sent}", *problems[:20], repr(figures)])


async def _key_in_group(cluster: Cluster, name: str, weight: float) -> str:
    await cluster.cli("group", "create", name, "--weight", str(weight))
    await cluster.cli("user", "add", name, "--group", name)
    secret: str = (await cluster.cli("key", "create", "--user", name, "--name", "chaos"))["secret"]
    return secret


async def _capacity(crowd: Crowd) -> float:
    """Answers a second with every slot always wanted."""
    over = time.monotonic() + 4.0

    async def ask_on() -> int:
        served = 0
        while time.monotonic() < over:
            served += (await crowd.ask()).status == 200
        return served

    began = time.monotonic()
    served = sum(await asyncio.gather(*(ask_on() for _ in range(2 * SLOTS * len(ENGINES)))))
    return served / (time.monotonic() - began)


def _served(answers: list[Answer]) -> int:
    return sum(answer.status == 200 and b'"error"' not in answer.body for answer in answers)


def _part_served(answers: list[Answer]) -> float:
    """Of a hundred."""
    return 100 * _served(answers) / len(answers) if answers else 0.0


def _is_true(told_s: list[float], waited_s: list[float]) -> bool:
    """Different moments are told, from once to twice as long as those waited who found the queue as full."""
    waited, is_known = max(0.3, share(waited_s, 0.5)), bool(told_s and waited_s)
    return is_known and share(told_s, 0.1) >= _TOLD_AT_LEAST * waited and share(told_s, 0.5) <= _TOLD_AT_MOST * waited


async def _rows(cluster: Cluster, sent: dict[str, int]) -> dict[str, int]:
    """Of the ledger, by user; waited for until there are as many as requests, or for a while."""
    until = time.monotonic() + 60
    while True:
        lines = await cluster.cli("usage", "--since", "24h")
        rows = {name: sum(line["requests"] for line in lines if line["user_name"] == name) for name in sent}
        if rows == sent or time.monotonic() > until:
            return rows
        await asyncio.sleep(1)
