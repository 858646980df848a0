"""The beat of the samples, and what happens when a driver hangs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from itertools import pairwise

import pytest

from forebay.clock import ManualClock, SystemClock
from forebay_gpu_agent.facts import Gpu, Gpus, GpuState, Host, Sample
from forebay_gpu_agent.pace import Pace, Reason
from forebay_gpu_agent.sampler import SILENT_DRIVER, Patient, Sampler, ask_on_a_thread, next_beat

HOST = Host("box", 2, None, 0.5, 1, 1, 1, 1, 1, 1)
NO_GPU = Gpus(GpuState.NO_GPU, "none here")


def make_sampler(
    interval_s: float, read_gpus: Callable[[], Gpus] = lambda: NO_GPU, read_host: Callable[[], Host] = lambda: HOST
) -> Sampler:
    """Tells of every look."""
    pace = Pace(interval_s, interval_s)
    return Sampler("box", read_host=read_host, read_gpus=read_gpus, clock=SystemClock(), pace=pace)


async def take(sampler: Sampler, count: int) -> list[Sample]:
    """The first `count`. A look that comes late leaves the next one too soon after it to be told of."""
    samples: list[Sample] = []
    async with aclosing(sampler.looks()) as looks:  # type: ignore[type-var]
        while len(samples) < count:
            if (seen := await anext(looks)).sample:
                samples.append(seen.sample)
    return samples


@pytest.mark.parametrize(
    ("now", "due"),
    [
        (100.0, 102.0),
        (100.4, 102.0),
        (101.999, 102.0),
        (102.0, 104.0),
        (109.0, 110.0),  # four beats were missed: they are not made up for
    ],
)
def test_the_next_beat_is_a_whole_number_of_intervals_from_the_first(now: float, due: float) -> None:
    assert next_beat(100.0, 2.0, now) == due


async def test_samples_are_numbered_from_one_and_carry_their_time() -> None:
    before = time.time()
    samples = await take(make_sampler(0.3), 3)
    assert [sample.sequence for sample in samples] == [1, 2, 3]
    assert {sample.agent_started_at for sample in samples} == {samples[0].agent_started_at}
    assert before <= samples[0].agent_started_at <= samples[0].sampled_at < samples[1].sampled_at
    assert HOST in [sample.host for sample in samples]
    assert NO_GPU in [sample.gpus for sample in samples]


async def test_the_beat_does_not_drift_however_long_a_sample_takes() -> None:
    def slow() -> Gpus:
        time.sleep(0.1)
        return NO_GPU

    samples = await take(make_sampler(0.2, slow), 6)
    apart = [later.sampled_at - sample.sampled_at for sample, later in pairwise(samples)]
    assert min(apart) < 0.28  # drifting, each would be 0.3 at least; a look that comes late leaves the next one less


async def test_the_node_is_looked_at_all_the_time_and_told_of_when_something_happens() -> None:
    load = iter([0, 0, 0, 40, 41, 0, 0, 0])
    sampler = Sampler(
        "box",
        read_host=lambda: HOST,
        read_gpus=lambda: Gpus(GpuState.OK, gpus=(Gpu(0, "GPU-0", utilization_percent=next(load)),)),
        clock=SystemClock(),
        pace=Pace(10.0, 900.0),
    )
    looks = [await sampler.look() for _ in range(7)]
    assert [seen.reason for seen in looks] == [
        Reason.FIRST,
        None,
        None,
        Reason.CHANGED,
        Reason.BUSY,
        Reason.CHANGED,
        None,
    ]
    told = [seen.sample for seen in looks if seen.sample]
    assert [(sample.sequence, sample.busy, sample.interval_s) for sample in told] == [
        (1, False, 900.0),
        (2, True, 10.0),
        (3, True, 10.0),
        (4, False, 900.0),
    ]


async def test_who_asks_is_told_at_once() -> None:
    pace = Pace(60.0, 60.0)
    sampler = Sampler("box", read_host=lambda: HOST, read_gpus=lambda: NO_GPU, clock=SystemClock(), pace=pace)
    async with aclosing(sampler.looks()) as looks:  # type: ignore[type-var]
        await anext(looks)
        waiting = asyncio.ensure_future(anext(looks))
        await asyncio.sleep(0)
        assert not waiting.done()
        sampler.ask()
        assert (await asyncio.wait_for(waiting, 20)).reason is Reason.ASKED


async def test_a_clock_that_leaps_leads_to_one_sample_and_not_to_many() -> None:
    """A laptop slept for an hour."""
    clock = ManualClock()
    pace = Pace(0.2, 0.2)
    sampler = Sampler("box", read_host=lambda: HOST, read_gpus=lambda: NO_GPU, clock=clock, pace=pace)
    async with aclosing(sampler.looks()) as looks:  # type: ignore[type-var]
        await anext(looks)
        clock.advance(3600)
        await anext(looks)
        began = time.monotonic()
        await anext(looks)
        assert time.monotonic() - began > 0.1


async def test_a_driver_that_hangs_costs_its_part_of_the_sample_and_no_thread_more() -> None:
    release, asked = threading.Event(), []

    def hang() -> Gpus:
        asked.append(1)
        release.wait(20)
        return NO_GPU

    sampler = make_sampler(0.3, hang)
    samples = await take(sampler, 4)
    assert {sample.gpus for sample in samples} == {SILENT_DRIVER}
    assert HOST in [sample.host for sample in samples]
    assert SILENT_DRIVER.state is GpuState.FAILED
    assert len(asked) == 1
    release.set()
    while (await sampler.look()).reading.gpus != NO_GPU:
        pass


async def test_a_host_that_hangs_leaves_its_part_out() -> None:
    release = threading.Event()

    def hang() -> Host:
        release.wait(20)
        return HOST

    reading = (await make_sampler(1.0, read_host=hang).look()).reading
    assert reading.host is None
    assert reading.gpus == NO_GPU
    release.set()


async def test_what_a_question_raises_is_raised_here() -> None:
    def broken() -> int:
        raise ArithmeticError("a mistake of ours")

    with pytest.raises(ArithmeticError, match="of ours"):
        await Patient(broken).answer(5)


async def test_the_loop_turns_while_a_question_blocks() -> None:
    release = threading.Event()
    asking = ask_on_a_thread(lambda: release.wait(20))
    for _ in range(5):
        await asyncio.sleep(0.01)
    release.set()
    assert await asking


async def test_a_part_of_a_look_that_fails_costs_itself_only_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> Host:
        raise ArithmeticError("a mistake of ours")

    def fail_too() -> Gpus:
        raise ArithmeticError("another one")

    sampler = make_sampler(10.0, fail_too, fail)
    readings = [(await sampler.look()).reading for _ in range(3)]
    assert [reading.host for reading in readings] == [None] * 3
    assert {reading.gpus.state for reading in readings} == {GpuState.FAILED}
    assert len([r for r in caplog.records if r.exc_info]) == 2
