"""How fast a queue empties, and so what a refused caller is told to wait."""

from __future__ import annotations

import pytest

from forebay_scheduler.drain_rate import DrainRate


def draining(per_s: float, for_s: int) -> DrainRate:
    rate = DrainRate()
    for _ in range(for_s):
        rate.note_time(1.0)
        for _ in range(round(per_s)):
            rate.note_end()
    return rate


def test_a_steady_queue_says_how_long_it_takes() -> None:
    assert draining(per_s=4, for_s=300).retry_after_s(80) == pytest.approx(20.0, rel=0.05)


def test_nobody_is_told_less_than_a_second_or_more_than_two_minutes() -> None:
    assert draining(per_s=50, for_s=60).retry_after_s(1) == 1.0
    assert draining(per_s=1, for_s=60).retry_after_s(10_000) == 120.0


def test_a_queue_that_does_not_move_is_told_the_longest_time() -> None:
    stuck = DrainRate()
    stuck.note_time(60.0)
    assert stuck.retry_after_s(1) == 120.0


def test_before_anything_is_known_a_guess_is_told() -> None:
    assert DrainRate().retry_after_s(5) == 10.0


def test_what_was_is_forgotten() -> None:
    rate = draining(per_s=10, for_s=60)
    for _ in range(300):
        rate.note_time(1.0)
        rate.note_end()
    assert rate.retry_after_s(30) == pytest.approx(30.0, rel=0.05)
