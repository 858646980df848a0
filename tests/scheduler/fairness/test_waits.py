"""What those who wait are told of how long."""

from __future__ import annotations

import math

import pytest

from forebay_scheduler.fairness.fair_queue import Standing
from forebay_scheduler.fairness.waits import Throughput, longest_wait_s, predicted_wait_s, retry_after_s

TOKEN = 1000


def test_throughput_is_cost_per_second_of_waiting() -> None:
    pace = Throughput()
    assert pace.tokens_per_s is None
    for _ in range(300):
        pace.note_time(0.5)
        pace.note_cost(1000 * TOKEN)
    assert pace.tokens_per_s == pytest.approx(2000, rel=0.02)


def test_a_clock_that_goes_back_says_nothing() -> None:
    pace = Throughput()
    pace.note_time(10.0)
    pace.note_cost(5000 * TOKEN)
    before = pace.tokens_per_s
    pace.note_time(-100.0)
    assert pace.tokens_per_s == before


def test_the_wait_is_what_others_get_first_and_ones_own_line_at_ones_share() -> None:
    assert predicted_wait_s(Standing(1.0, 1, 0.0), 1000 * TOKEN, 500.0) == 0.0
    assert predicted_wait_s(Standing(0.25, 3, 500.0), 1000 * TOKEN, 500.0) == (500 + 2 * 1000 / 0.25) / 500
    assert predicted_wait_s(Standing(0.25, 3, 500.0), 1000 * TOKEN, None) is None
    assert predicted_wait_s(Standing(0.25, 3, 500.0), 1000 * TOKEN, 0.0) == math.inf


def test_a_batch_user_among_twenty_waits_at_most_this_long_for_each_of_his_requests() -> None:
    share = 1 / 81 / 20
    one, two = (longest_wait_s(Standing(share, place, 0.0), 1000 * TOKEN, 10_000.0) for place in (1, 2))
    assert two - one == pytest.approx(162, abs=0.1)


def test_the_time_to_come_back_is_within_bounds() -> None:
    assert [retry_after_s(wait) for wait in (None, 0.0, 7.0, math.inf)] == [10.0, 1.0, 7.0, 120.0]
