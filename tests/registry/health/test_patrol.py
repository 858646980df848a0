"""Watching backends over time: with a scripted look where time matters, with a fake engine where connections do."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from forebay.clock import ManualClock, SystemClock
from forebay.metrics import Number
from forebay_registry.backend import BackendId, Condition, EngineKind, Load, Model, Observed, Seen
from forebay_registry.engines.outcome import Outcome
from forebay_registry.engines.probe import Answered, Failed, Probe, Target
from forebay_registry.health.conditions import Rhythm
from forebay_registry.health.pace import Pace
from forebay_registry.health.patrol import Beat, Patrol
from forebay_registry.health.pulse import LATE_S
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.leaping_time import LoopClock, in_leaping_time

FAST = Beat(rhythm=Rhythm(0.02, 0.01, 0.05))
ONE = BackendId("be-1")
TARGET = Target("http://one", None)
REFUSED = Failed(Outcome.REFUSED, "Nothing listens at one.")


def answered(*models: str, load: Load | None = None, slots: int | None = None) -> Answered:
    return Answered(Seen(EngineKind.VLLM, slots, tuple(Model(m) for m in models)), load)


class Script:
    """Looks that answer what the test says next; the last answer stays."""

    def __init__(self, *answers: Answered | Failed) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Target, EngineKind | None]] = []

    async def look(self, target: Target, found: EngineKind | None = None) -> Answered | Failed:
        self.asked.append((target, found))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Told:
    def __init__(self) -> None:
        self.of: dict[BackendId, list[Observed]] = defaultdict(list)

    def __call__(self, backend_id: BackendId, observed: Observed) -> None:
        self.of[backend_id].append(observed)

    def last(self, backend_id: BackendId = ONE) -> Observed:
        return self.of[backend_id][-1]


@asynccontextmanager
async def on_patrol(patrol: Patrol) -> AsyncIterator[Patrol]:
    running = asyncio.create_task(patrol.run())
    try:
        yield patrol
    finally:
        running.cancel()
        await asyncio.wait([running])


@in_leaping_time
async def test_a_new_backend_is_looked_at_at_once_and_healthy_at_the_first_answer(
    eventually: Callable[..., Any],
) -> None:
    told = Told()
    async with on_patrol(Patrol(Script(answered("m")), LoopClock(), Beat())) as patrol:
        await asyncio.sleep(0)
        patrol.watch(ONE, TARGET, Seen(), told)
        await eventually(lambda: told.of[ONE])
        assert told.last().condition is Condition.HEALTHY
        assert told.last().seen.models == (Model("m"),)


@in_leaping_time
async def test_what_was_told_before_the_start_is_watched_from_the_start(eventually: Callable[..., Any]) -> None:
    told = Told()
    patrol = Patrol(Script(answered("m")), LoopClock(), FAST)
    patrol.watch(ONE, TARGET, Seen(), told)
    assert told.of[ONE] == []
    async with on_patrol(patrol):
        await eventually(lambda: told.of[ONE])


@in_leaping_time
async def test_a_failing_backend_keeps_its_models_and_says_why_it_is_unhealthy(
    eventually: Callable[..., Any],
) -> None:
    told, load = Told(), Load(1, 0, None, measured_at=1.0)
    script = Script(answered("m", load=load, slots=8), REFUSED)
    async with on_patrol(Patrol(script, ManualClock(1.0), FAST)) as patrol:
        patrol.watch(ONE, TARGET, Seen(), told)
        await eventually(lambda: told.of[ONE] and told.last().condition is Condition.UNHEALTHY)
        healthy, doubted, fallen = told.of[ONE][:3]
        assert (healthy.load, healthy.reason) == (load, "")
        assert (doubted.condition, doubted.load, doubted.reason) == (Condition.HEALTHY, load, "")
        assert (fallen.reason, fallen.load) == ("Nothing listens at one.", None)
        assert (fallen.seen.models, fallen.seen.slots) == ((Model("m"),), 8)
        script.answers = [answered("m")]
        await eventually(lambda: told.last().condition is Condition.HEALTHY)
        assert told.last().reason == ""


@in_leaping_time
async def test_a_load_that_the_engine_stopped_telling_is_kept_for_a_while_then_only_when_it_was_measured(
    eventually: Callable[..., Any],
) -> None:
    clock, told = ManualClock(100.0), Told()
    load = Load(3, None, None, measured_at=100.0)
    async with on_patrol(Patrol(Script(answered("m", load=load), answered("m")), clock, FAST)) as patrol:
        patrol.watch(ONE, TARGET, Seen(), told)
        await eventually(lambda: len(told.of[ONE]) >= 2)
        assert told.last().load == load
        clock.advance(45.1)
        await eventually(lambda: told.last().load == Load(None, None, None, measured_at=100.0, is_stale=True))
        assert told.last().condition is Condition.HEALTHY


@in_leaping_time
async def test_the_kind_that_was_found_is_not_asked_for_again_until_the_engine_was_away(
    eventually: Callable[..., Any],
) -> None:
    told = Told()
    script = Script(answered("m"), answered("m"), REFUSED, REFUSED, answered("m"))
    async with on_patrol(Patrol(script, LoopClock(), FAST)) as patrol:
        patrol.watch(ONE, TARGET, Seen(), told)
        await eventually(lambda: len(script.asked) >= 5)
        assert [found for _, found in script.asked[:5]] == [None, *[EngineKind.VLLM] * 3, None]


@in_leaping_time
async def test_a_new_credential_is_tried_at_once(eventually: Callable[..., Any]) -> None:
    told, script = Told(), Script(Failed(Outcome.CREDENTIAL, "No."), answered("m"))
    async with on_patrol(Patrol(script, LoopClock(), Beat(rhythm=Rhythm(60, 60, 60)))) as patrol:
        patrol.watch(ONE, TARGET, Seen(), told)
        await eventually(lambda: told.of[ONE])
        patrol.watch(ONE, TARGET, Seen(), told)
        await asyncio.sleep(0.02)
        assert len(script.asked) == 1, "the same target again is no reason to look"
        patrol.watch(ONE, Target(TARGET.url, None, "key"), Seen(), told)
        await eventually(lambda: told.last().condition is Condition.HEALTHY)
        assert script.asked[1][0].bearer == "key"


@in_leaping_time
async def test_another_address_begins_anew_and_a_forgotten_backend_is_left_alone(
    eventually: Callable[..., Any],
) -> None:
    told, script = Told(), Script(answered("m"))
    async with on_patrol(Patrol(script, LoopClock(), FAST)) as patrol:
        patrol.watch(ONE, TARGET, Seen(), told)
        await eventually(lambda: told.of[ONE])
        script.answers = [REFUSED]
        patrol.watch(ONE, Target("http://two", None), Seen(), told)
        await eventually(lambda: script.asked[-1][0].url == "http://two" and told.last().checked_at)
        await eventually(lambda: told.last().condition is not Condition.HEALTHY)
        assert told.last().seen.models == ()
        patrol.forget(ONE)
        asked = len(script.asked)
        await asyncio.sleep(0.05)
        assert len(script.asked) == asked


@in_leaping_time
async def test_ended_looks_are_counted_by_how_they_ended(eventually: Callable[..., Any]) -> None:
    outcomes = {outcome: Number() for outcome in Outcome}
    script = Script(answered("m"), REFUSED, REFUSED)
    async with on_patrol(Patrol(script, LoopClock(), FAST, outcomes=outcomes)) as patrol:
        patrol.watch(ONE, TARGET, Seen(), Told())
        await eventually(lambda: outcomes[Outcome.REFUSED].value >= 2)
        assert outcomes[Outcome.SUCCESS].value == 1


async def test_an_engine_that_dies_is_unhealthy_and_one_that_returns_is_healthy(
    session: aiohttp.ClientSession, eventually: Callable[..., Any]
) -> None:
    told, clock = Told(), SystemClock()
    async with on_patrol(Patrol(Probe(session, clock), clock, FAST)) as patrol:
        async with FakeEngine(flavour=Flavour.LLAMA_CPP, slots=2) as engine:
            port = engine.port
            patrol.watch(ONE, Target(engine.url, None), Seen(), told)
            await eventually(lambda: told.of[ONE] and told.last().condition is Condition.HEALTHY)
        await eventually(lambda: told.last().condition is Condition.UNHEALTHY)
        assert told.last().reason.startswith("Nothing listens at")
        async with FakeEngine(flavour=Flavour.LLAMA_CPP, slots=5, port=port):
            await eventually(lambda: told.last().condition is Condition.HEALTHY)
            assert told.last().seen.slots == 5


@in_leaping_time
async def test_a_look_that_fails_as_nobody_foresaw_ends_no_other_looks(eventually: Callable[..., Any]) -> None:
    class Broken(Script):
        async def look(self, target: Target, found: EngineKind | None = None) -> Answered | Failed:
            if target is TARGET:
                raise RecursionError
            return await super().look(target, found)

    told, other, script = Told(), BackendId("be-2"), Broken(answered("m"))
    async with on_patrol(Patrol(script, LoopClock(), FAST)) as patrol:
        patrol.watch(ONE, TARGET, Seen(), told)
        patrol.watch(other, Target("http://two", None), Seen(), told)
        await eventually(lambda: told.of[ONE] and told.last().condition is Condition.UNHEALTHY)
        looks = len(told.of[other])
        await eventually(lambda: len(told.of[other]) > looks)
        assert told.last(other).condition is Condition.HEALTHY


@in_leaping_time
async def test_a_registry_that_is_late_itself_blames_no_engine_for_it(eventually: Callable[..., Any]) -> None:
    told, clock = Told(), ManualClock(100.0)
    script = Script(answered("m"), Failed(Outcome.TIMEOUT, "It did not answer within 3 s."))
    async with on_patrol(Patrol(script, clock, FAST)) as patrol:
        patrol.watch(ONE, TARGET, Seen(), told)
        patrol.pulse.note(LATE_S)
        await eventually(lambda: len(script.asked) >= 6)
        assert {observed.condition for observed in told.of[ONE]} == {Condition.HEALTHY}
        clock.advance(0.1)  # and keeps time again
        await eventually(lambda: told.last().condition is Condition.UNHEALTHY)


@in_leaping_time
async def test_a_look_that_began_before_a_gateway_failed_there_does_not_clear_it(
    eventually: Callable[..., Any],
) -> None:
    class Looks(Script):
        async def look(self, target: Target, found: EngineKind | None = None) -> Answered | Failed:
            if len(self.asked) == 1:
                patrol.doubt(ONE, is_refusal=True)
            return await super().look(target, found)

    told = Told()
    async with on_patrol(Patrol(Looks(answered("m"), answered("m"), REFUSED), LoopClock(), Beat())) as patrol:
        patrol.watch(ONE, TARGET, Seen(), told)
        await eventually(lambda: len(told.of[ONE]) >= 3)
    states = [observed.condition for observed in told.of[ONE][:3]]
    assert states == [Condition.HEALTHY, Condition.HEALTHY, Condition.UNHEALTHY]


@in_leaping_time
async def test_what_became_due_while_the_process_stood_still_is_not_asked_all_at_once(
    eventually: Callable[..., Any],
) -> None:
    script, loop = Script(answered("m")), asyncio.get_running_loop()
    beat = Beat(rhythm=Rhythm(60, 60, 60), pace=Pace(looks_per_s=100.0))
    async with on_patrol(Patrol(script, LoopClock(), beat, jitter=lambda: 0.0)) as patrol:
        await asyncio.sleep(0)
        began = loop.time()
        for number in range(40):  # all due now
            patrol.watch(BackendId(f"be-{number}"), Target(f"http://{number}", None), Seen(), Told())
        await eventually(lambda: len(script.asked) == 40)
        assert loop.time() - began >= 38 * 0.005
