"""The rules of other schedulers, by the order in which they start things."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import pytest

from forebay_scheduler.simulator import workloads
from forebay_scheduler.simulator.comparing import ROUTING_POLICIES, TURN_POLICIES
from forebay_scheduler.simulator.discipline import Discipline
from forebay_scheduler.simulator.engines import EngineModel
from forebay_scheduler.simulator.jobs import Job, Outage, Workload
from forebay_scheduler.simulator.measures import measure
from forebay_scheduler.simulator.running import simulate
from forebay_scheduler.simulator.turn_rules import (
    ChargedAtCompletion,
    FirstCome,
    FixedLimit,
    LongestPrefix,
    TokenCounters,
    Turns,
)

ONE_AT_A_TIME = EngineModel(kv_tokens=None, max_sequences=1, cache_blocks=8, block_tokens=10)


def order(
    discipline: Discipline, jobs: Sequence[Job], users: int = 3, engine: EngineModel = ONE_AT_A_TIME
) -> list[int]:
    """Numbers of the jobs, as they were started."""
    done = simulate(Workload("order", jobs, (engine,), users), discipline)
    return [job.number for job in sorted(done.jobs, key=lambda job: job.started_at)]


def three_of_alice_then_one_of_bob() -> list[Job]:
    return [*(Job(number, 0.0, 0, 10, 10) for number in range(3)), Job(3, 0.01, 1, 10, 10)]


def test_first_come_is_first_served() -> None:
    assert order(FirstCome(), three_of_alice_then_one_of_bob()) == [0, 1, 2, 3]


def test_in_turns_the_newcomer_is_second() -> None:
    assert order(Turns(), three_of_alice_then_one_of_bob()) == [0, 1, 3, 2]


def test_by_token_counters_a_newcomer_is_lifted_and_goes_before_whoever_has_had_more() -> None:
    assert order(TokenCounters(), three_of_alice_then_one_of_bob()) == [0, 3, 1, 2]


def test_charged_at_completion_a_burst_is_free_until_its_first_request_ends() -> None:
    engine = replace(ONE_AT_A_TIME, max_sequences=3)
    jobs = [*(Job(number, 0.0, 0, 10, 500) for number in range(6)), *(Job(6 + n, 0.5, 1, 10, 10) for n in range(2))]
    assert order(ChargedAtCompletion(), jobs, engine=engine)[:3] == [0, 1, 2]


def test_longest_prefix_takes_what_is_cached_before_what_came_first() -> None:
    jobs = [Job(0, 0.0, 0, 25, 1, (1, 2)), Job(1, 0.01, 0, 25, 1, (7, 8)), Job(2, 0.02, 0, 25, 1, (1, 2))]
    assert order(LongestPrefix(), jobs) == [0, 2, 1]


def test_a_fixed_limit_keeps_the_rest_back() -> None:
    jobs = [Job(number, 0.0, 0, 10, 10) for number in range(6)]
    engine = replace(ONE_AT_A_TIME, max_sequences=100)
    done = simulate(Workload("limited", jobs, (engine,), 1), FixedLimit(2))
    assert done.engines[0].most_at_once == 2


@pytest.mark.parametrize("name", TURN_POLICIES)
def test_every_rule_serves_all_and_never_leaves_an_engine_idle_before_a_queue(name: str) -> None:
    drawn = workloads.arena(Random(1), rate=0.4)
    drawn = replace(drawn, jobs=drawn.jobs[:250])
    figures = measure(simulate(drawn, TURN_POLICIES[name](Random(1))))
    assert figures.failed == 0
    assert figures.idle_while_waiting_s == 0.0
    assert figures.most_over_capacity == 0


@pytest.mark.parametrize(("name", "make"), ROUTING_POLICIES.items())
def test_every_router_serves_all_though_an_engine_dies(name: str, make: Callable[[Random], Discipline]) -> None:
    drawn = workloads.conversation(Random(2), seconds=60)
    drawn = replace(drawn, outages=(Outage(0, 10.0, 30.0), Outage(1, 20.0, 25.0)))
    done = simulate(drawn, make(Random(2)))
    assert all(job.ended_at < float("inf") for job in done.jobs)
    assert all(job.is_failed == (job.attempts == 0 or job.ended_at in (10.0, 20.0)) for job in done.jobs)


def test_a_router_that_follows_prefixes_finds_more_of_them_than_one_that_does_not() -> None:
    drawn = workloads.conversation(Random(3), seconds=300)
    hits = {
        name: measure(simulate(drawn, ROUTING_POLICIES[name](Random(3)))).hit_rate
        for name in ("round_robin", "llm_d", "dynamo", "prefix_only")
    }
    assert hits["round_robin"] < hits["dynamo"] < hits["llm_d"]
    assert hits["round_robin"] < hits["prefix_only"]


def test_the_same_seed_gives_the_same_run() -> None:
    drawn = workloads.conversation(Random(4), seconds=60)
    one, other = (simulate(drawn, ROUTING_POLICIES["llm_d"](Random(5))) for _ in range(2))
    assert [job.ended_at for job in one.jobs] == [job.ended_at for job in other.jobs]
