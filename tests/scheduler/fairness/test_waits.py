"""What those who wait are told of how long."""

from __future__ import annotations

import math

import pytest

from forebay_scheduler.fairness.fair_queue import Standing
from forebay_scheduler.fairness.waits import (
    Returns,
    Throughput,
    longest_wait_s,
    predicted_wait_s,
    retry_after_s,
    wait_for_one_s,
)
from forebay_scheduler.request import UserId

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


ALICE, BOB = UserId("alice"), UserId("bob")


def test_each_place_is_told_to_one_until_the_queue_has_been_told_over() -> None:
    returns = Returns()
    assert [returns.after_s(ALICE, 4.0, 1.5, 100.0) for _ in range(4)] == [4.0, 5.5, 7.0, 4.0]
    assert returns.after_s(BOB, 4.0, 1.5, 100.0) == 4.0, "another's line has places of its own"
    assert returns.after_s(ALICE, 4.0, 1.5, 104.0) == 4.0, "who was told has come by now"


def test_who_is_told_to_come_back_comes_neither_too_soon_nor_too_late() -> None:
    returns = Returns()
    assert [returns.after_s(ALICE, 100.0, 15.0, 0.0) for _ in range(3)] == [100.0, 115.0, 100.0]
    assert [returns.after_s(BOB, wait_s, 1.0, 0.0) for wait_s in (None, math.inf)] == [10.0, 120.0]


def test_what_was_told_long_ago_is_forgotten() -> None:
    returns = Returns()
    for number in range(10_000):
        returns.after_s(UserId(f"u{number}"), 4.0, 1.0, float(number))
    assert len(returns._last_at) <= 512


def test_one_more_in_a_line_waits_for_its_share_of_what_is_served() -> None:
    standing = Standing(0.25, 3, 500.0)
    third, fourth = (predicted_wait_s(Standing(0.25, place, 500.0), 1000 * TOKEN, 500.0) for place in (3, 4))
    assert third is not None
    assert fourth == third + wait_for_one_s(standing, 1000 * TOKEN, 500.0)
    assert [wait_for_one_s(standing, 1000 * TOKEN, rate) for rate in (None, 0.0)] == [0.0, 0.0]
