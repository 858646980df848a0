"""What is measured, against what one can count on paper."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_scheduler.simulator.engines import EngineModel
from forebay_scheduler.simulator.jobs import Job, Workload
from forebay_scheduler.simulator.measures import gap_over_time, light_users, measure, quantile, widest_pair
from forebay_scheduler.simulator.running import Run, simulate
from forebay_scheduler.simulator.turn_rules import FirstCome, TokenCounters, Turns

ENGINE = EngineModel(step_s=0.1, per_sequence_s=0.0, per_prompt_token_s=0.0, kv_tokens=None, max_sequences=1)


def run(jobs: Sequence[Job], users: int, weights: dict[int, float] | None = None) -> Run:
    return simulate(Workload("paper", jobs, (ENGINE,), users, weights or {}), FirstCome())


def test_the_gap_is_what_one_got_while_both_waited() -> None:
    # alice's three jobs run before bob's, who waits all the while: prompts of 10 and outputs of 20, twice the weight.
    jobs = [*(Job(number, 0.0, 0, 10, 20) for number in range(3)), Job(3, 0.0, 1, 10, 20)]
    figures = measure(run(jobs, 2))
    # Until her last one begins, she has a backlog too: two jobs of 10 + 2·20.
    assert figures.gap == pytest.approx(2 * 50)
    assert figures.ttft_p99 == pytest.approx(6.1)


def test_a_weight_makes_service_count_for_less() -> None:
    jobs = [*(Job(number, 0.0, 0, 10, 20) for number in range(3)), Job(3, 0.0, 1, 10, 20)]
    assert measure(run(jobs, 2, {0: 4.0})).gap == pytest.approx(2 * 50 / 4)


def test_nobody_who_has_nothing_waiting_takes_part() -> None:
    jobs = [Job(0, 0.0, 0, 10, 20), Job(1, 100.0, 1, 10, 20)]
    figures = measure(run(jobs, 2))
    assert figures.gap == 0.0
    assert math.isnan(figures.jain)
    assert figures.idle_while_waiting_s == 0.0


def test_jains_index_tells_equal_shares_from_unequal_ones() -> None:
    def busy(order: FirstCome | Turns) -> float:
        jobs = [Job(number, 0.0, 0 if number < 150 else 1, 10, 20) for number in range(300)]
        return measure(simulate(Workload("two", jobs, (ENGINE,), 2), order)).jain

    assert busy(FirstCome()) == pytest.approx(0.5, abs=0.01), "one of two gets it all"
    assert busy(Turns()) == pytest.approx(1.0, abs=0.01)


def test_light_users_ask_for_less_than_half_the_mean() -> None:
    jobs = [Job(0, 0.0, 0, 100, 1), Job(1, 0.0, 1, 90, 1), Job(2, 0.0, 2, 10, 1)]
    assert light_users(Workload("three", jobs, (ENGINE,), 4)) == {2}


def test_a_quantile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(quantile([], 0.5))
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0


_asks = st.lists(
    st.tuples(st.floats(0, 5), st.integers(0, 2), st.integers(1, 40), st.integers(1, 15)), min_size=2, max_size=25
)


@settings(max_examples=60, deadline=None)
@given(_asks)
def test_the_gap_is_that_of_brute_force(asked: list[tuple[float, int, int, int]]) -> None:
    asked.sort()
    jobs = [Job(number, *one) for number, one in enumerate(asked)]
    done = simulate(Workload("drawn", jobs, (ENGINE,), 3), TokenCounters())
    record = done.record
    assert record is not None
    worst = 0.0
    for one, other in itertools.combinations(range(3), 2):
        for begin, end in itertools.combinations(range(len(record.rows)), 2):
            if all(any(low <= begin and end <= high for low, high in record.backlogs[user]) for user in (one, other)):
                got = [record.rows[end][user] - record.rows[begin][user] for user in (one, other)]
                worst = max(worst, abs(got[0] - got[1]))
    assert measure(done).gap == pytest.approx(worst)
    assert max(gap_over_time(done)[1]) <= worst + 1e-9


@settings(max_examples=60, deadline=None)
@given(_asks)
def test_all_that_is_asked_for_is_served_and_counted_once(asked: list[tuple[float, int, int, int]]) -> None:
    asked.sort()
    jobs = [Job(number, *one) for number, one in enumerate(asked)]
    workload = Workload("drawn", jobs, (ENGINE,), 3)
    done = simulate(workload, Turns())
    assert done.record is not None
    for user in range(3):
        assert done.record.rows[-1][user] == sum(workload.cost.of(job) for job in jobs if job.user == user)


def test_the_widest_pair_is_named() -> None:
    jobs = [*(Job(number, 0.0, 0, 10, 20) for number in range(3)), Job(3, 0.0, 2, 10, 20)]
    assert widest_pair(run(jobs, 3)) == (0, 2)
