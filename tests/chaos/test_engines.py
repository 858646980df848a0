"""An engine among others breaks in every way there is, one after another, while clients stream.

Those who had no byte yet are served elsewhere; those who had are told in their stream; the engine rests and is tried again,
and its failures do not become a flood for the others."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import pytest

from tests.chaos.figures import LONG, tell
from tests.chaos.hostile_engine import HostileEngine, Mode
from tests.system.chaos import Load, what_does_not_add_up
from tests.system.cluster import Cluster, cluster_place, open_cluster
from tests.system.installation import Streamed

SLOTS = 4
GOOD = {
    "one": ("--slots", str(SLOTS), "--tokens-per-s", "60"),
    "two": ("--slots", str(SLOTS), "--tokens-per-s", "60"),
}
HOSTILE = 3
_HOSTILE_SLOTS = 2
CLIENTS = 16  # on fourteen slots, of which eight are always well
SEED = int(os.environ.get("FOREBAY_CHAOS_SEED", "11"))
ROUNDS = int(os.environ.get("FOREBAY_CHAOS_ROUNDS", "5" if LONG else "1"))
_PHASE_S = 12.0 if LONG else 2.5
_CALM_S = 0.5
_FIRST_REST_S = 5.0
_BACK_WITHIN_S = 65.0
"""The breaker's longest rest, and a little."""
_RETRY_SHARE, _RETRY_RESERVE, _FAILURES_IN_A_ROW = 0.1, 10, 3
"""Of the scheduler's rules."""
_STORM_EVERY_S, _STORM_FAILURES = 0.25, 60
_SENT_AGAIN = 1.02
"""A request that met a kept connection which its engine had just closed is sent once more, on a new one."""
_IMPATIENT = {
    "FOREBAY_GATEWAY_SILENT_LOOK_S": "2",  # the defaults suit models that load for minutes
    "FOREBAY_GATEWAY_STREAM_GAP_S": "3",
}


@pytest.fixture
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    place = cluster_place(tmp_path_factory, "engines")
    settings = {name: _IMPATIENT for name in ("gateway-1", "gateway-2")}
    async with open_cluster(place, engines=GOOD, engine_slots=SLOTS, settings=settings) as cluster:
        yield cluster


@dataclass(frozen=True, slots=True)
class Phase:
    mode: Mode
    answers: int
    whole: int
    in_band: int
    refused: int
    attempts_there: int

    def __str__(self) -> str:
        return (
            f"{self.mode}: {self.answers} answers, {self.whole} whole, {self.in_band} errors in streams, "
            f"{self.refused} refused, {self.attempts_there} attempts at it"
        )


@pytest.mark.timeout(400 + 300 * ROUNDS)
async def test_an_engine_that_breaks_in_every_way_harms_no_request_that_had_not_begun(cluster: Cluster) -> None:
    chance = random.Random(SEED)
    async with AsyncExitStack() as stack:
        hostile = []
        for number in range(HOSTILE):
            engine = await stack.enter_async_context(
                HostileEngine(slots=_HOSTILE_SLOTS, tokens_per_s=60, chance=chance)
            )
            name = f"hostile-{number}"
            await cluster.cli("backend", "add", name, engine.url, "--kind", "llamacpp", "--slots", str(_HOSTILE_SLOTS))
            hostile.append(engine)
        async with Load(cluster, CLIENTS, chance, most_tokens=30, leaving=0.02, name="engines") as load:
            for engine in hostile:
                await _until(partial(_has_finished, engine), "an engine was never used while it was well")
            phases = [phase for _ in range(ROUNDS) for phase in await _live_through_all(hostile, load, chance)]
            storm = await _storm(cluster)
            rest = await _rest_and_return(hostile[0])
        problems = await what_does_not_add_up(cluster, SLOTS, load)
        seen_elsewhere = 0
        for good in cluster.engines.values():
            seen_elsewhere += len((await good.seen())["requests"])
        leader = cluster.schedulers[await cluster.leader()].ops_port
        submits = await cluster.reading(leader, "forebay_scheduler_submits_total") or 0.0
        on_credit = await cluster.reading(leader, "forebay_scheduler_credit_starts_total") or 0.0
        retries = await cluster.reading(leader, "forebay_scheduler_retries_total") or 0.0

    requests = len(load.results) + len(load.left)
    firsts = submits + on_credit
    budget = _RETRY_SHARE * firsts + _RETRY_RESERVE
    at_engines = seen_elsewhere + sum(engine.attempts.total() for engine in hostile)
    outcomes = Counter(_outcome(result) for result in load.results)
    harmed = [one for one in load.results if _outcome(one) in ("cut silently", "connection broke")]
    broken_texts = [one.request_id for one in load.results if "\ufffd" in one.text]
    figures = {
        "faults": len({phase.mode for phase in phases}),
        "requests": requests,
        "whole answers": outcomes["whole"],
        "errors in streams": outcomes["error in stream"],
        "refused": outcomes["refused"],
        "silent cuts": len(harmed),
        "attempts seen by engines": at_engines,
        "attempts per request": at_engines / requests,
        "retries": int(retries),
        "retries allowed": int(budget),
        "of every three attempts one failed, at the well engines too: failures": storm.failures,
        "retries then": storm.retries,
        "allowed then": storm.allowed,
        "attempts at an engine that always fails": rest.attempts,
        "from the first to the last before it rested s": rest.opened_after_s,
        "trial after s": rest.trial_after_s,
        "serves again after s": rest.serves_after_s,
        "does not add up": len(problems),
    }
    holds = {
        "requests were served through every fault": all(phase.whole for phase in phases),
        "each answer is whole, refused, or ends with an error in its stream": not harmed,
        "no text was garbled": not broken_texts,
        "retries stayed within their budget": retries <= budget,
        "also when more failed than may be tried again": storm.retries <= storm.allowed < storm.failures,
        "engines saw no more attempts than requests and retries": at_engines <= (requests + retries) * _SENT_AGAIN,
        "no engine was asked beyond its slots": all(engine.peak_running <= _HOSTILE_SLOTS for engine in hostile),
        "the breaker opened": rest.attempts <= _FAILURES_IN_A_ROW + _HOSTILE_SLOTS + rest.trials,
        "the engine was tried again after its rest, and served": rest.serves_after_s <= _BACK_WITHIN_S,
        "one ledger row for each request, all slots returned": not problems,
    }
    broken = tell("engines", figures, holds)
    assert not broken, "\n".join(
        [*broken, *map(str, phases), *map(repr, harmed[:10]), *problems[:20], *broken_texts[:5]]
    )


async def _live_through_all(hostile: list[HostileEngine], load: Load, chance: random.Random) -> list[Phase]:
    """Each engine has its part of the faults, while the others have theirs."""
    modes: list[Mode] = [mode for mode in Mode if mode is not Mode.WELL]
    chance.shuffle(modes)

    async def live(engine: HostileEngine, mine: list[Mode]) -> list[Phase]:
        return [await _live_through(mode, engine, load) for mode in mine]

    lives = await asyncio.gather(*(live(engine, modes[at::HOSTILE]) for at, engine in enumerate(hostile)))
    return [phase for phases in lives for phase in phases]


async def _live_through(mode: Mode, engine: HostileEngine, load: Load) -> Phase:
    first, attempts = len(load.results), engine.attempts[mode]
    await engine.become(mode)
    if mode is not Mode.REFUSES:  # it may be resting from the fault before: what is to be met must be met
        await _until(lambda: engine.attempts[mode] > attempts, f"{mode} was never met")
    await asyncio.sleep(_PHASE_S)
    outcomes = Counter(_outcome(result) for result in load.results[first:])
    phase = Phase(
        mode,
        answers=outcomes.total(),
        whole=outcomes["whole"],
        in_band=outcomes["error in stream"],
        refused=outcomes["refused"],
        attempts_there=engine.attempts[mode] - attempts,
    )
    await engine.become(Mode.WELL)
    finished = len(engine.finished)
    await _until(lambda: len(engine.finished) > finished, f"after {mode} it was never used again")
    await asyncio.sleep(_CALM_S)
    return phase


@dataclass(frozen=True, slots=True)
class Storm:
    failures: int
    retries: int
    allowed: int


async def _storm(cluster: Cluster) -> Storm:
    """The engines that are well otherwise fail now and then, which no breaker ends."""
    leader = cluster.schedulers[await cluster.leader()].ops_port

    async def counted(*names: str) -> float:
        readings = [await cluster.reading(leader, f"forebay_scheduler_{name}_total") for name in names]
        return sum(reading or 0.0 for reading in readings)

    firsts, retries, nacks = await counted("submits", "credit_starts"), await counted("retries"), await counted("nacks")
    while (failures := await counted("nacks") - nacks) < _STORM_FAILURES:
        for engine in cluster.engines.values():
            await engine.inject("status", status=500, times=1)
        await asyncio.sleep(_STORM_EVERY_S)
    retries = await counted("retries") - retries
    firsts = await counted("submits", "credit_starts") - firsts
    return Storm(int(failures), int(retries), int(_RETRY_SHARE * firsts + _RETRY_RESERVE))


@dataclass(frozen=True, slots=True)
class Rest:
    """Of the breaker, as the engine sees it: times in seconds since it began to fail, and since it was mended."""

    attempts: int
    opened_after_s: float
    trials: int
    trial_after_s: float
    serves_after_s: float


async def _rest_and_return(engine: HostileEngine) -> Rest:
    """It fails until it has been tried again, and then is well."""
    before = len(engine.arrivals)
    await engine.become(Mode.ALWAYS_500)
    began = time.monotonic()
    await asyncio.sleep(_FIRST_REST_S + 2)
    times = [at - began for at, mode in engine.arrivals[before:] if mode is Mode.ALWAYS_500]
    await engine.become(Mode.WELL)
    mended, finished = time.monotonic(), len(engine.finished)
    await _until(lambda: len(engine.finished) > finished, "it was never used again")
    burst = [at for at in times if at < times[0] + 1.0]
    trials = times[len(burst) :]
    return Rest(
        attempts=len(times),
        opened_after_s=burst[-1] - burst[0],
        trials=len(trials),
        trial_after_s=trials[0] - burst[-1] if trials else 0.0,
        serves_after_s=engine.finished[finished] - mended,
    )


def _has_finished(engine: HostileEngine) -> bool:
    return bool(engine.finished)


def _outcome(result: Streamed) -> str:
    if result.broke:
        return "connection broke"
    if result.status != 200:
        return "refused"
    if result.error:
        return "error in stream"
    return "whole" if result.is_done else "cut silently"


async def _until(holds: Callable[[], object], otherwise: str) -> None:
    until = time.monotonic() + _BACK_WITHIN_S + 30
    while not holds():
        assert time.monotonic() < until, otherwise
        await asyncio.sleep(0.02)
