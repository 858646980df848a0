"""Feeling for how much an engine takes at once: it grows, yields, and remembers."""

from __future__ import annotations

import pytest

from forebay_scheduler.placing.adaptive_limit import AdaptiveLimit


def live(limit: AdaptiveLimit, knee: int, seconds: int, demand: int = 1000) -> list[int]:
    """An engine that answers soon as long as no more than `knee` are inside; ten first tokens a second."""
    path = []
    for tenth in range(seconds * 10):
        used = min(limit.slots, demand)
        limit.note_use(used)
        limit.first_token(0.0 if used <= knee else 0.5 * (used - knee), tenth / 10)
        path.append(limit.slots)
    return path


@pytest.mark.parametrize("knee", [3, 8, 24, 90])
def test_it_finds_the_knee_and_stays_there(knee: int) -> None:
    path = live(AdaptiveLimit(most=128), knee, 600)
    settled = path[len(path) // 2 :]
    assert max(settled) <= knee + 2
    assert sum(settled) / len(settled) >= 0.85 * knee


def test_it_never_goes_above_the_most() -> None:
    assert max(live(AdaptiveLimit(most=12), 1000, 200)) == 12


def test_nothing_is_learnt_from_an_engine_that_is_not_in_use() -> None:
    assert set(live(AdaptiveLimit(most=128), 1000, 200, demand=2)) == {4}


def test_it_falls_at_once_when_the_engine_is_busy_but_not_for_each_of_many_refusals() -> None:
    limit = AdaptiveLimit(most=128, found=40.0)
    assert limit.refused(now=10.0)
    fallen = limit.slots
    assert fallen < 40
    assert not any(limit.refused(now=10.0 + step / 100) for step in range(100))
    assert limit.slots == fallen


def test_one_sample_of_waiting_requests_may_be_chance_two_are_not() -> None:
    limit = AdaptiveLimit(most=128, found=40.0)
    assert not limit.engine_waits(3, now=1.0)
    assert not limit.engine_waits(0, now=2.0)
    assert not limit.engine_waits(1, now=3.0)
    assert limit.engine_waits(1, now=4.0)


def test_it_goes_on_from_where_the_leader_before_left_it() -> None:
    limit = AdaptiveLimit(most=128, found=23.4)
    assert limit.slots == 23
    assert AdaptiveLimit(most=10, found=23.4).slots == 10


def test_a_limit_is_at_least_one() -> None:
    limit = AdaptiveLimit(most=4, first=1.0)
    for second in range(100):
        limit.refused(now=second * 3.0)
    assert limit.slots == 1
