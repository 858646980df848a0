"""The engine model: what a step takes, what fits, what is cached and what is in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_scheduler.simulator.engines import Engine, EngineModel
from forebay_scheduler.simulator.jobs import Job
from forebay_scheduler.simulator.prefix_cache import PrefixCache

MODEL = EngineModel(step_s=0.03, per_sequence_s=0.001, per_prompt_token_s=0.0002, kv_tokens=1000)


def run(engine: Engine, now: float = 0.0) -> float:
    """To the end of all it has."""
    while True:
        engine.admit(now)
        took = engine.begin_step(now)
        if took is None:
            return now
        now += took
        engine.end_step(now)


def test_a_prompt_is_read_in_one_step_and_each_further_token_takes_another() -> None:
    engine, job = Engine(0, MODEL), Job(0, 0.0, 0, 100, 3)
    engine.send(job)
    ended_at = run(engine)
    assert job.first_token_at == pytest.approx(0.03 + 0.001 + 100 * 0.0002)
    assert ended_at == job.ended_at == pytest.approx(job.first_token_at + 2 * 0.031)


def test_a_long_prompt_is_read_in_chunks() -> None:
    engine = Engine(0, replace(MODEL, kv_tokens=None, prefill_tokens_per_step=400))
    job = Job(0, 0.0, 0, 1000, 1)
    engine.send(job)
    run(engine)
    assert job.first_token_at == pytest.approx(3 * 0.031 + 1000 * 0.0002)


def test_long_prompts_cost_more_than_their_length_where_attention_counts() -> None:
    model = replace(MODEL, per_prompt_token_context_s=1e-6)
    assert model.prefill_s(2000, 0) > 2 * model.prefill_s(1000, 0)
    assert model.prefill_s(1000, 1000) == pytest.approx(model.prefill_s(2000, 0) - model.prefill_s(1000, 0))


def test_a_slow_engine_takes_longer_for_everything() -> None:
    fast, slow = Job(0, 0.0, 0, 100, 5), Job(0, 0.0, 0, 100, 5)
    for job, speed in ((fast, 1.0), (slow, 0.4)):
        engine = Engine(0, replace(MODEL, speed=speed))
        engine.send(job)
        run(engine)
    assert slow.ended_at == pytest.approx(2.5 * fast.ended_at)


def test_what_does_not_fit_into_the_pool_waits_until_something_ends() -> None:
    engine = Engine(0, MODEL)
    first, second = Job(0, 0.0, 0, 400, 200), Job(1, 0.0, 0, 400, 200)
    engine.send(first)
    engine.send(second)
    run(engine)
    assert second.started_at == first.ended_at


def test_answers_that_end_early_leave_their_room_to_others() -> None:
    engine = Engine(0, MODEL)
    short, long = Job(0, 0.0, 0, 400, 10), Job(1, 0.0, 0, 300, 500)
    engine.send(short)
    engine.send(long)
    run(engine)
    assert short.started_at == long.started_at == 0.0, "the short one is gone before the long one needs the room"


@given(
    st.lists(st.tuples(st.integers(1, 600), st.integers(1, 300)), min_size=1, max_size=30),
    st.integers(1, 6),
)
def test_the_pool_is_never_exceeded_and_every_job_ends(sizes: list[tuple[int, int]], at_once: int) -> None:
    engine = Engine(0, replace(MODEL, max_sequences=at_once))
    jobs = [Job(number, 0.0, 0, *size) for number, size in enumerate(sizes)]
    for job in jobs:
        engine.send(job)
    now = 0.0
    while True:
        engine.admit(now)
        took = engine.begin_step(now)
        if took is None:
            break
        now += took
        engine.end_step(now)
        assert engine.tokens_in_use <= 1000
        assert engine.at_once <= at_once
    assert all(job.ended_at < float("inf") for job in jobs)
    assert engine.queued_prefill == 0
    assert not engine.running_of
    starts = [job.started_at for job in jobs]
    assert starts == sorted(starts), "first come, first served"


def test_a_cached_prefix_is_not_read_again() -> None:
    engine = Engine(0, replace(MODEL, kv_tokens=None, cache_blocks=10, block_tokens=100))
    first, second = Job(0, 0.0, 0, 350, 1, (1, 2, 3)), Job(1, 0.0, 0, 350, 1, (1, 2, 4))
    for job in (first, second):
        engine.send(job)
        run(engine)
    assert (first.cached_tokens, second.cached_tokens) == (0, 200)


def test_the_least_recently_used_block_goes_first_and_the_end_of_a_prompt_before_its_start() -> None:
    cache = PrefixCache(4)
    cache.keep((1, 2, 3))
    cache.keep((7, 8))
    assert len(cache) == 4
    assert cache.match((1, 2, 3)) == 2
    assert cache.match((7, 8)) == 2
    cache.clear()
    assert cache.match((7, 8)) == 0


def test_a_model_is_loaded_first_and_others_go_on_meanwhile() -> None:
    swapping = replace(MODEL, kv_tokens=None, models=("a", "b", "c"), models_at_once=2, load_s=5.0)
    engine = Engine(0, swapping)
    here = Job(0, 0.0, 0, 10, 400, model="a")
    engine.send(here)
    engine.admit(0.0)
    other = Job(1, 0.0, 0, 10, 1, model="b")
    engine.send(other)
    run(engine)
    assert here.first_token_at == pytest.approx(5.0, abs=0.1)
    assert other.first_token_at == pytest.approx(5.0, abs=0.2)
    assert engine.loads == 2


def test_a_model_in_use_is_not_put_out() -> None:
    engine = Engine(0, replace(MODEL, kv_tokens=None, models=("a", "b", "c"), models_at_once=1, load_s=5.0))
    running, wants_in = Job(0, 0.0, 0, 10, 50, model="a"), Job(1, 0.0, 0, 10, 1, model="b")
    engine.send(running)
    engine.send(wants_in)
    run(engine)
    assert wants_in.started_at == running.ended_at


def test_what_fails_loses_all_it_had() -> None:
    engine = Engine(0, replace(MODEL, cache_blocks=4))
    jobs = [Job(number, 0.0, 0, 400, 100, (number,)) for number in range(3)]
    for job in jobs:
        engine.send(job)
    engine.admit(0.0)
    engine.begin_step(0.0)
    assert engine.fail() == jobs
    assert (engine.in_flight, engine.queued_prefill, engine.is_down) == (0, 0, True)
    assert engine.cached_blocks(jobs[0]) == 0
