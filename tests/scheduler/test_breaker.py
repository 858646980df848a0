"""A backend that keeps failing rests, and longer each time."""

from __future__ import annotations

from forebay_scheduler.breaker import Breaker
from forebay_scheduler.request import BackendId, LedgerId

GPU = BackendId("gpu1")
ONE, TWO = LedgerId(b"1"), LedgerId(b"2")


def resting_at(now: float) -> Breaker:
    breaker = Breaker(failures=3, rest_s=5.0)
    for _ in range(3):
        breaker.note_failure(GPU, ONE, now)
    return breaker


def test_failures_in_a_row_make_a_backend_rest() -> None:
    breaker = Breaker(failures=3, rest_s=5.0)
    breaker.note_failure(GPU, ONE, 0.0)
    breaker.note_failure(GPU, ONE, 0.0)
    assert breaker.allows(GPU, 0.0)
    breaker.note_failure(GPU, ONE, 0.0)
    assert not breaker.allows(GPU, 4.9)
    assert breaker.allows(GPU, 5.0)


def test_a_success_between_failures_starts_the_count_anew() -> None:
    breaker = Breaker(failures=2, rest_s=5.0)
    breaker.note_failure(GPU, ONE, 0.0)
    breaker.note_success(GPU, TWO)
    breaker.note_failure(GPU, ONE, 0.0)
    assert breaker.allows(GPU, 0.0)


def test_after_a_rest_one_request_is_tried_and_its_success_ends_the_trial() -> None:
    breaker = resting_at(0.0)
    assert breaker.note_grant(GPU, ONE)
    assert not breaker.allows(GPU, 6.0)
    breaker.note_success(GPU, ONE)
    assert breaker.allows(GPU, 6.0)
    assert not breaker.note_grant(GPU, TWO)


def test_a_failed_trial_rests_twice_as_long_and_never_longer_than_a_minute() -> None:
    breaker = resting_at(0.0)
    now = 5.0
    for rest in (10.0, 20.0, 40.0, 60.0, 60.0):
        breaker.note_grant(GPU, ONE)
        breaker.note_failure(GPU, ONE, now)
        assert not breaker.allows(GPU, now + rest - 0.1)
        now += rest
        assert breaker.allows(GPU, now)


def test_what_started_before_the_rest_decides_nothing() -> None:
    breaker = resting_at(0.0)
    breaker.note_failure(GPU, TWO, 4.0)
    breaker.note_success(GPU, TWO)
    assert not breaker.allows(GPU, 4.9)
    assert breaker.allows(GPU, 5.0)


def test_a_trial_without_a_verdict_leaves_the_next_request_to_be_tried() -> None:
    breaker = resting_at(0.0)
    breaker.note_grant(GPU, ONE)
    breaker.note_end(GPU, ONE)
    assert breaker.allows(GPU, 6.0)
    assert breaker.note_grant(GPU, TWO)


def test_a_backend_that_asks_for_time_gets_some_of_it() -> None:
    breaker = Breaker(failures=3, rest_s=5.0)
    breaker.pause(GPU, 300.0, 0.0)
    assert not breaker.allows(GPU, 29.9)
    assert breaker.allows(GPU, 30.0)
    assert not breaker.note_grant(GPU, ONE)


def test_a_pause_that_a_backend_asked_for_outlives_the_success_of_what_it_was_serving() -> None:
    breaker = Breaker(failures=3, rest_s=5.0)
    breaker.pause(GPU, 20.0, 0.0)
    breaker.note_success(GPU, ONE)
    assert not breaker.allows(GPU, 19.9)
    assert breaker.allows(GPU, 20.0)


def test_a_good_probe_ends_a_rest() -> None:
    breaker = resting_at(0.0)
    breaker.reset(GPU)
    assert breaker.allows(GPU, 1.0)
