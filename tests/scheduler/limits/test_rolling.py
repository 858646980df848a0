"""Budgets over the last hours, and what is left of a period and goes into the next one."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_scheduler.events import PolicyChanged
from forebay_scheduler.limits.limits import BudgetStanding, LimitBook
from forebay_scheduler.limits.periods import STEPS, span_of_window, step_us
from forebay_scheduler.request import KeyId, LedgerId, Request, Used, UserId
from forebay_scheduler.terms import Budget, BudgetUnit, Limits, Period, UserTerms

HOUR_US = 3_600_000_000
DAY_S = 86_400
NUMBERS = itertools.count(1)


def wall(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


NOON = wall("2026-11-22 12:00")


def request() -> Request:
    return Request(LedgerId(next(NUMBERS).to_bytes(16)), UserId("alice"), "m", 0.0, key=KeyId("k"))


def last_day(amount: int, steps: tuple[tuple[int, int], ...] = (), window_s: int = DAY_S) -> Budget:
    return Budget("w", BudgetUnit.TOKENS, amount, window_s=window_s, steps=steps, spent_at_us=NOON)


def a_day(amount: int, carried: int = 0, since: int = 0) -> Budget:
    return Budget("d", BudgetUnit.TOKENS, amount, Period.DAY, carried=carried, carried_since_us=since)


def limit(book: LimitBook, budget: Budget, now: float = 0.0) -> None:
    book.change(PolicyChanged(users=(UserTerms(UserId("alice"), limits=Limits(budgets=(budget,))),)), now)


def book_of(budget: Budget, wall_us: int = NOON) -> LimitBook:
    book = LimitBook(wall_us, 0.0)
    limit(book, budget)
    return book


def only(book: LimitBook) -> BudgetStanding:
    (standing,) = book.budgets()
    return standing


def test_what_was_used_falls_out_of_the_window_with_its_step_and_not_before() -> None:
    book = book_of(last_day(100))
    book.replay(request(), Used(0, 0, 60), 0.0)
    book.tick(NOON + 6 * HOUR_US, 0.0)
    book.replay(request(), Used(0, 0, 30), 0.0)
    for hours, spent in ((23, 90), (24, 90), (25, 30), (30, 30), (31, 0)):
        book.tick(NOON + hours * HOUR_US, 0.0)
        assert only(book).spent == spent, hours


def test_a_refusal_says_when_enough_has_fallen_out() -> None:
    book = book_of(last_day(100))
    book.replay(request(), Used(0, 0, 60), 0.0)
    book.tick(NOON + 6 * HOUR_US, 0.0)
    book.replay(request(), Used(0, 0, 40), 0.0)
    found = book.admit(request(), 50, 0.0)
    assert found is not None
    assert found.message == (
        "This user has spent its budget of 100 tokens in 1 day; there is room for it on 2026-11-23 13:00 (UTC)."
    )
    assert found.retry_after_s == 19 * 3600
    never = book.admit(request(), 101, 0.0)
    assert never is not None
    assert never.retry_after_s is None


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([3600, DAY_S, 30 * DAY_S]),
    st.lists(st.tuples(st.integers(0, 40 * 24 * 3_600_000_000), st.integers(1, 60)), min_size=1, max_size=12),
)
def test_within_no_windows_length_is_more_spent_than_there_is_and_nothing_counts_a_step_longer(
    window_s: int, used: list[tuple[int, int]]
) -> None:
    book = book_of(last_day(100, window_s=window_s))
    done: list[tuple[int, int]] = []
    window, step = window_s * 1_000_000, step_us(window_s)
    for at, tokens in sorted(used):
        book.tick(NOON + at, 0.0)
        one = request()
        is_in = book.admit(one, tokens, 0.0) is None
        longest = sum(n for then, n in done if at - then < window + step)
        shortest = sum(n for then, n in done if at - then < window)
        assert shortest <= only(book).spent <= longest
        assert is_in or longest + tokens > 100, "what fits is never refused"
        if is_in:
            assert shortest + tokens <= 100, "never overspent in the length of a window"
            book.settle(one.ledger_id, Used(0, 0, tokens), 0.0)
            done.append((at, tokens))


def test_the_ledgers_word_of_a_window_counts_step_by_step_until_there_is_a_count_here() -> None:
    steps = ((NOON - 23 * HOUR_US, 40), (NOON, 10), (NOON - 25 * HOUR_US, 99))
    book = book_of(last_day(100, steps))
    assert only(book).spent == 50, "what lies before the window is not told, and would not count"
    limit(book, last_day(100, (*steps, (NOON - HOUR_US, 5))))
    assert only(book).spent == 55
    book.replay(request(), Used(0, 0, 7), 0.0)
    limit(book, last_day(100, ((NOON, 100),)))
    assert only(book).spent == 62
    book.tick(NOON + 2 * HOUR_US, 0.0)
    assert only(book).spent == 22


@pytest.mark.parametrize("policy_first", [True, False])
def test_the_next_leader_goes_on_with_the_window_as_it_was(policy_first: bool) -> None:
    budget = last_day(100)
    book = book_of(budget)
    for hours, tokens in ((0, 10), (5, 20), (9, 30)):
        book.tick(NOON + hours * HOUR_US, 0.0)
        book.replay(request(), Used(0, 0, tokens), 0.0)
    left, at = book.spent(), NOON + 10 * HOUR_US
    after = LimitBook(at, 0.0)
    if policy_first:
        limit(after, last_day(100, ((NOON, 99),)))
    after.restore(left, [], at, at, 0.0)
    if not policy_first:
        limit(after, budget)
    assert only(after).spent == 60
    for hours, spent in ((25, 50), (30, 30), (34, 0)):
        after.tick(NOON + hours * HOUR_US, 0.0)
        assert only(after).spent == spent


def test_a_clock_that_goes_back_frees_nothing_of_a_window_and_one_set_right_counts_from_now() -> None:
    book = book_of(last_day(100))
    book.replay(request(), Used(0, 0, 60), 0.0)
    book.tick(NOON - HOUR_US, 0.0)
    book.tick(NOON + HOUR_US, 0.0)
    assert only(book).spent == 60
    book.tick(wall("2031-01-01 00:00"), 0.0)
    assert only(book).spent == 0
    book.replay(request(), Used(0, 0, 70), 0.0)
    book.tick(NOON, 0.0)
    assert only(book).spent == 70
    book.tick(NOON + 25 * HOUR_US, 0.0)
    assert only(book).spent == 0


def test_a_clock_that_was_days_ahead_neither_doubles_what_the_ledger_said_nor_keeps_a_long_window_waiting() -> None:
    day, told = 24 * HOUR_US, ((NOON - 24 * HOUR_US, 40), (NOON, 10))
    book = book_of(last_day(100, told, window_s=30 * DAY_S))
    book.tick(NOON + 20 * day, 0.0)
    book.tick(NOON, 0.0)
    limit(book, last_day(100, told, window_s=30 * DAY_S))
    assert only(book).spent == 50
    book.replay(request(), Used(0, 0, 7), 0.0)
    assert only(book).spent == 57
    for days, spent in ((29, 57), (33, 0)):
        book.tick(NOON + days * day, 0.0)
        assert only(book).spent == spent, days


def test_a_window_is_handed_over_as_one_count_with_a_number_for_each_step() -> None:
    book = book_of(last_day(100))
    book.replay(request(), Used(0, 0, 60), 0.0)
    for hours in range(1, 4):
        book.tick(NOON + hours * HOUR_US, 0.0)
    book.replay(request(), Used(0, 0, 5), 0.0)
    (left,) = book.spent()
    assert (left.period_start_us, left.amount, left.later) == (NOON, 60, (0, 0, 5))
    # Here the clock is behind: what was used in steps that are still to come counts from now.
    after = LimitBook(NOON + HOUR_US, 0.0)
    limit(after, last_day(100))
    after.restore([left], [], NOON + HOUR_US, NOON + HOUR_US, 0.0)
    assert [(one.period_start_us, one.amount, one.later) for one in after.spent()] == [(NOON, 60, (5,))]


def test_another_window_is_a_new_budget_and_another_amount_is_not() -> None:
    book = book_of(last_day(100))
    book.replay(request(), Used(0, 0, 60), 0.0)
    limit(book, last_day(50))
    assert (only(book).spent, only(book).free) == (60, -10)
    limit(book, last_day(50, window_s=2 * DAY_S))
    assert only(book).spent == 0


def test_steps_are_whole_parts_of_the_window_from_the_beginning_of_time() -> None:
    span = span_of_window(DAY_S, NOON + 17)
    assert (span.start_us, span.end_us) == (NOON - 24 * HOUR_US, NOON + HOUR_US)
    assert step_us(3600) * STEPS == 3600 * 1_000_000


def test_what_was_carried_over_counts_in_its_period_alone_whenever_it_is_told() -> None:
    today, tomorrow = wall("2026-11-22 00:00"), wall("2026-11-23 00:00")
    book = book_of(a_day(100, carried=30, since=today))
    assert only(book) == BudgetStanding("user:alice", "d", 130, 0, 0, 0)
    book.replay(request(), Used(0, 0, 120), 0.0)
    limit(book, a_day(100, carried=50, since=tomorrow))
    assert only(book).free == -20, "told before the period has begun here, it does not count yet"
    book.tick(tomorrow, 0.0)
    assert only(book) == BudgetStanding("user:alice", "d", 150, 0, 0, 0)
    limit(book, a_day(100, carried=20, since=tomorrow))
    assert only(book).amount == 120, "rows came in late"
    book.tick(tomorrow - HOUR_US, 0.0)
    assert only(book).amount == 120, "a clock that steps back over the end of a period changes nothing"
    book.tick(wall("2026-11-24 00:00"), 0.0)
    assert only(book).amount == 100
