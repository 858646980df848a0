"""The product's own core in virtual time."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from forebay_scheduler.simulator import workloads
from forebay_scheduler.simulator.jobs import Job, Outage, Workload
from forebay_scheduler.simulator.measures import Figures, measure
from forebay_scheduler.simulator.product import Product
from forebay_scheduler.simulator.running import simulate
from forebay_scheduler.simulator.turn_rules import FirstCome, TokenCounters


def first(drawn: Workload, jobs: int) -> Workload:
    return replace(drawn, jobs=drawn.jobs[:jobs])


def figures(drawn: Workload) -> Figures:
    return measure(simulate(drawn, Product(1)))


@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_it_serves_all_of_every_workload_and_leaves_nothing_idle_or_overfull(name: str) -> None:
    drawn = first(workloads.WORKLOADS[name](Random(1)), 120)
    done = simulate(drawn, Product(1))
    assert all(job.ended_at < float("inf") and not job.is_failed for job in done.jobs)
    told = measure(done)
    assert told.most_over_capacity == 0
    if name != "swapping":  # a model has to be worth its load
        assert told.idle_while_waiting_s == 0.0


def test_it_is_fairer_than_token_counters_at_the_same_throughput() -> None:
    drawn = first(workloads.arena(Random(3)), 600)
    ours, counters = figures(drawn), measure(simulate(drawn, TokenCounters()))
    assert ours.gap < 0.8 * counters.gap
    assert ours.jain > 0.99
    assert ours.tokens_per_s > 0.985 * counters.tokens_per_s


def test_weights_are_kept() -> None:
    told = figures(first(workloads.weighted(Random(1)), 500))
    assert told.jain > 0.998
    assert told.gap < 3000


def test_the_same_seed_decides_the_same() -> None:
    drawn = first(workloads.conversation(Random(2)), 200)
    one, other = (simulate(drawn, Product(9)) for _ in range(2))
    assert [(job.engine, job.ended_at) for job in one.jobs] == [(job.engine, job.ended_at) for job in other.jobs]


def test_what_an_engine_that_dies_had_not_begun_to_answer_is_served_elsewhere() -> None:
    drawn = first(workloads.conversation(Random(2)), 150)
    done = simulate(replace(drawn, outages=(Outage(0, 10.0, 20.0),)), Product(1))
    assert all(job.ended_at < float("inf") for job in done.jobs)
    assert any(job.attempts > 1 for job in done.jobs)
    assert all(job.ended_at == 10.0 for job in done.jobs if job.is_failed)


def test_a_lone_user_gets_all_there_is() -> None:
    jobs = [Job(number, 0.0, 0, 100, 100) for number in range(200)]
    drawn = Workload("alone", jobs, (workloads.SMALL_GPU,), 1, engines_say_what_fits=True)
    ours, fcfs = figures(drawn), measure(simulate(drawn, FirstCome()))
    assert ours.tokens_per_s == pytest.approx(fcfs.tokens_per_s, rel=0.001)
