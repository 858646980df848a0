"""Rates: a minute's allowance at once, refilled evenly."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from forebay_scheduler.limits.gcra import Rate

SECOND = 1_000_000
MINUTE = 60 * SECOND


def admit(rate: Rate, units: int, at_us: int) -> bool:
    if not rate.has_room(units, at_us):
        return False
    rate.charge(units, at_us)
    return True


def test_a_whole_minutes_allowance_may_come_at_once() -> None:
    rate = Rate(60)
    assert sum(admit(rate, 1, SECOND) for _ in range(100)) == 60
    assert rate.wait_s(1, SECOND) == 1.0
    assert not rate.has_room(1, 2 * SECOND - 1)
    assert rate.has_room(1, 2 * SECOND)


def test_what_is_larger_than_the_allowance_passes_when_the_bucket_is_empty_and_is_paid_for_afterwards() -> None:
    rate = Rate(1000)
    assert admit(rate, 3000, 0)
    assert rate.wait_s(1, 0) == 120.06
    assert not rate.has_room(1, 2 * MINUTE)
    assert rate.has_room(1, 2 * MINUTE + 60_000)
    assert rate.wait_s(3000, 2 * MINUTE + 60_000) == 59.94, "it needs an empty bucket again"


def test_a_limit_of_nothing_lets_nothing_pass() -> None:
    rate = Rate(0)
    assert not rate.has_room(1, 0)
    assert rate.room(0) == 0
    assert rate.wait_s(1, 0) is None
    rate.charge(5, 0)
    assert rate.empty_in_us(0) == 0


def test_a_lowered_limit_keeps_nobody_out_for_longer_than_a_minute() -> None:
    rate = Rate(6000)
    rate.charge(6000, 0)
    rate.change(6, 0)
    assert not rate.has_room(1, 0)
    assert rate.wait_s(1, 0) == 10.0
    assert rate.empty_in_us(0) == MINUTE


def test_a_raised_limit_gives_the_difference_at_once() -> None:
    rate = Rate(60)
    rate.charge(60, 0)
    rate.change(100, 0)
    assert rate.room(0) == 40


def test_a_limit_that_was_nothing_can_be_raised() -> None:
    rate = Rate(0)
    rate.change(60, SECOND)
    assert rate.room(SECOND) == 60


def test_what_is_taken_back_never_makes_more_than_the_allowance() -> None:
    rate = Rate(60)
    rate.charge(10, 0)
    rate.charge(-50, 0)
    assert rate.room(0) == 60


def test_time_that_goes_back_or_leaps_corrupts_nothing() -> None:
    rate = Rate(60)
    rate.charge(60, 100 * SECOND)
    assert rate.room(50 * SECOND) == 0
    assert rate.room(100 * SECOND) == 0
    assert rate.room(101 * SECOND) == 1
    assert rate.room(10**15) == 60


class TextbookGcra:
    """The virtual-scheduling form, in fractions: a theoretical arrival time."""

    def __init__(self, limit: int) -> None:
        self.interval = Fraction(MINUTE, limit)
        self.arrival = Fraction(0)

    def admit(self, units: int, at_us: int) -> bool:
        start = max(self.arrival, Fraction(at_us))
        after = start + units * self.interval
        if after - at_us > MINUTE and start > at_us:
            return False
        self.arrival = after
        return True

    def give_back(self, units: int, at_us: int) -> None:
        self.arrival = max(Fraction(at_us), self.arrival - units * self.interval)


@given(
    st.integers(1, 5000),
    st.lists(st.tuples(st.integers(0, 20 * SECOND), st.integers(-300, 300)), max_size=60),
)
def test_it_decides_as_the_textbook_does(limit: int, steps: list[tuple[int, int]]) -> None:
    rate, book, at_us = Rate(limit), TextbookGcra(limit), 0
    for passed_us, units in steps:
        at_us += passed_us
        if units > 0:
            wait_s = rate.wait_s(units, at_us)
            has_room = admit(rate, units, at_us)
            assert has_room == book.admit(units, at_us)
            assert has_room == (wait_s == 0)
        else:
            rate.charge(units, at_us)
            book.give_back(-units, at_us)
        assert rate.empty_in_us(at_us) == -(-max(Fraction(0), book.arrival - at_us) // 1)


@given(st.integers(1, 300), st.lists(st.tuples(st.integers(0, 10 * SECOND), st.integers(1, 40)), max_size=60))
def test_no_span_of_time_sees_more_than_its_share_and_one_burst(limit: int, steps: list[tuple[int, int]]) -> None:
    rate, at_us = Rate(limit), 0
    passed: list[tuple[int, int]] = []
    for passed_us, units in steps:
        at_us += passed_us
        if admit(rate, min(units, limit), at_us):
            passed.append((at_us, min(units, limit)))
    for i, (start_us, _) in enumerate(passed):
        total = 0
        for end_us, units in passed[i:]:
            total += units
            assert total * MINUTE <= limit * (MINUTE + end_us - start_us)


@given(st.integers(1, 10_000), st.integers(0, 20_000), st.integers(1, 12_000))
def test_the_wait_that_is_told_is_right_to_the_microsecond(limit: int, used: int, units: int) -> None:
    rate = Rate(limit)
    rate.charge(used, 0)
    wait_s = rate.wait_s(units, 0)
    assert wait_s is not None
    wait_us = round(wait_s * SECOND)
    if wait_us:
        assert not rate.has_room(units, wait_us - 1)
    assert rate.has_room(units, wait_us)
