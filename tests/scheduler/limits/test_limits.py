"""Limits of keys, users and groups: what is refused, in which words, and what is counted."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest

from forebay.errors import Refusal
from forebay_scheduler.events import PolicyChanged
from forebay_scheduler.limits.limits import BudgetStanding, LimitBook
from forebay_scheduler.limits.refusals import Refused
from forebay_scheduler.request import GroupId, KeyId, LedgerId, Request, Used, UserId
from forebay_scheduler.terms import (
    Budget,
    BudgetUnit,
    GroupTerms,
    KeyTerms,
    Limits,
    ModelTerms,
    Period,
    PriceTerms,
    PriceTier,
    UserTerms,
)

SECOND_US = 1_000_000
NUMBERS = itertools.count(1)


def wall(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND_US


NOON = wall("2026-11-22 12:00")


def request(
    user: str = "alice", *, key: str = "k", group: str = "", prompt: int = 0, model: str = "m", at: float = 0.0
) -> Request:
    return Request(
        LedgerId(next(NUMBERS).to_bytes(16)),
        UserId(user),
        model,
        at,
        key=KeyId(key),
        group=GroupId(group),
        prompt_tokens=prompt,
    )


def tokens(amount: int, period: Period = Period.EVER, zone: str = "UTC", spent: int = 0, at_us: int = 0) -> Budget:
    return Budget("t", BudgetUnit.TOKENS, amount, period, zone, spent, at_us)


def book_of(
    user: Limits | None = None, key: Limits | None = None, group: Limits | None = None, faculty: Limits | None = None
) -> LimitBook:
    """alice, with key k, in physics, within the faculty."""
    book = LimitBook(NOON, 0.0)
    book.change(
        PolicyChanged(
            users=(UserTerms(UserId("alice"), GroupId("physics"), limits=user or Limits()),),
            groups=(
                GroupTerms(GroupId("physics"), GroupId("faculty"), limits=group or Limits()),
                GroupTerms(GroupId("faculty"), limits=faculty or Limits()),
            ),
            keys=(KeyTerms(KeyId("k"), UserId("alice"), limits=key or Limits()),),
            models=(
                ModelTerms("m", prompt_micros=2_000_000, cached_prompt_micros=500_000, completion_micros=6_000_000),
            ),
        ),
        0.0,
    )
    return book


def limit_user(book: LimitBook, limits: Limits, now: float = 0.0) -> None:
    book.change(PolicyChanged(users=(UserTerms(UserId("alice"), GroupId("physics"), limits=limits),)), now)


def refused(book: LimitBook, one: Request, estimate: int = 0, now: float = 0.0) -> Refused:
    found = book.admit(one, estimate, now)
    assert found is not None
    return found


def only_budget(book: LimitBook) -> BudgetStanding:
    (found,) = book.budgets()
    return found


# --- who is counted -----------------------------------------------------------------------------------------------------


def test_who_has_no_limits_leaves_no_trace() -> None:
    book = book_of(user=Limits(concurrency=0))
    stranger = request("bob", key="other")
    assert not book.is_limited(stranger)
    assert book.admit(stranger, 10**9, 0.0) is None
    book.settle(stranger.ledger_id, Used(1, 0, 1), 1.0)
    assert book.standing(stranger, 1.0) is None
    assert book.is_limited(request())


@pytest.mark.parametrize("where", ["key", "user", "group", "faculty"])
def test_limits_of_the_key_the_user_the_group_and_the_groups_around_it_all_apply(where: str) -> None:
    book = book_of(**{where: Limits(concurrency=1)})
    assert book.admit(request(), 1, 0.0) is None
    found = refused(book, request(), 1)
    assert found.reason is Refusal.CONCURRENCY_LIMITED
    who = {"key": "This API key", "user": "This user"}.get(where, "A group of this user")
    assert found.message == f"{who} may have 1 request at once, waiting ones included, and has as many."


def test_a_refusal_reserves_nothing() -> None:
    book = book_of(
        key=Limits(requests_per_minute=60, tokens_per_minute=1000, concurrency=5),
        user=Limits(budgets=(tokens(1000),)),
        faculty=Limits(concurrency=1),
    )
    first = request()
    assert book.admit(first, 100, 0.0) is None
    before = (list(book.budgets()), book.levels(0.0), book.standing(first, 0.0))
    refused(book, request(), 100)
    assert (list(book.budgets()), book.levels(0.0), book.standing(first, 0.0)) == before


def test_the_group_that_policy_knows_counts_and_the_gateways_word_where_it_knows_none() -> None:
    book = book_of(group=Limits(concurrency=0))
    assert book.admit(request("alice", group="elsewhere"), 1, 0.0) is not None
    assert book.admit(request("newcomer", key="", group="physics"), 1, 0.0) is not None
    assert book.admit(request("newcomer", key="", group="elsewhere"), 1, 0.0) is None


def test_groups_that_lie_in_themselves_count_once() -> None:
    book = LimitBook(NOON)
    book.change(
        PolicyChanged(
            users=(UserTerms(UserId("alice"), GroupId("a")),),
            groups=(
                GroupTerms(GroupId("a"), GroupId("b"), limits=Limits(concurrency=2)),
                GroupTerms(GroupId("b"), GroupId("a"), limits=Limits(budgets=(tokens(100),))),
            ),
        ),
        0.0,
    )
    assert book.admit(request(), 10, 0.0) is None
    assert only_budget(book).reserved == 10
    assert book.admit(request(), 10, 0.0) is None
    assert refused(book, request(), 10).reason is Refusal.CONCURRENCY_LIMITED


def test_a_submit_that_comes_again_is_counted_once() -> None:
    book = book_of(user=Limits(requests_per_minute=1, concurrency=1, budgets=(tokens(100),)))
    one = request()
    for _ in range(3):
        assert book.admit(one, 60, 0.0) is None
    assert only_budget(book).reserved == 60


# --- rates --------------------------------------------------------------------------------------------------------------


def test_a_rate_refuses_with_the_moment_at_which_there_is_room() -> None:
    book = book_of(user=Limits(requests_per_minute=30))
    for _ in range(30):
        one = request()
        assert book.admit(one, 0, 10.0) is None
    found = refused(book, request(), now=10.5)
    assert (found.reason, found.retry_after_s) == (Refusal.RATE_LIMITED, 1.5)
    assert found.message == "This user may use 30 requests a minute; there is room for it in 1.5 s."
    assert book.admit(request(), 0, 12.0) is None


def test_of_several_rates_the_longest_wait_is_told() -> None:
    book = book_of(key=Limits(requests_per_minute=60), user=Limits(requests_per_minute=6))
    while book.admit(request(), 0, 0.0) is None:
        pass
    assert refused(book, request()).retry_after_s == 10.0


def test_a_token_rate_is_charged_with_the_estimate_and_corrected_both_ways() -> None:
    book = book_of(user=Limits(tokens_per_minute=600))
    less, more = request(prompt=10), request(prompt=10)
    assert book.admit(less, 300, 0.0) is None
    assert book.admit(more, 300, 0.0) is None
    found = refused(book, request(), 100)
    assert (found.reason, found.retry_after_s) == (Refusal.RATE_LIMITED, 10.0)
    book.settle(less.ledger_id, Used(10, 0, 90), 0.0)
    standing = book.standing(less, 0.0)
    assert standing is not None
    assert (standing.limit_tokens, standing.remaining_tokens, standing.reset_tokens_s) == (600, 200, 40.0)
    book.settle(more.ledger_id, Used(10, 0, 890), 0.0)
    assert refused(book, request(), 100).retry_after_s == 50.0


def test_a_token_rate_is_charged_as_an_answer_runs_over_its_estimate() -> None:
    book = book_of(user=Limits(tokens_per_minute=600))
    one = request(prompt=100)
    book.admit(one, 200, 0.0)
    assert book.extend(one.ledger_id, 400, 0.0), "a rate never ends an answer"
    assert refused(book, request(), 200).retry_after_s == 10.0
    book.settle(one.ledger_id, Used(100, 0, 400), 0.0)
    assert refused(book, request(), 200).retry_after_s == 10.0


def test_a_request_larger_than_a_whole_minute_passes_when_nothing_else_is_charged() -> None:
    book = book_of(user=Limits(tokens_per_minute=600))
    assert book.admit(request(), 6000, 0.0) is None
    assert refused(book, request(), 1, now=300.0).retry_after_s == pytest.approx(240.1)
    assert book.admit(request(), 6000, 600.0) is None


def test_what_never_ran_does_not_count_against_rates_and_what_ran_does() -> None:
    book = book_of(user=Limits(requests_per_minute=1, tokens_per_minute=100))
    one, other = request(), request()
    book.admit(one, 100, 0.0)
    book.release(one.ledger_id, 0.0)
    assert book.admit(other, 100, 0.0) is None
    book.settle(other.ledger_id, Used(), 0.0)
    standing = book.standing(other, 0.0)
    assert standing is not None
    assert (standing.remaining_requests, standing.remaining_tokens) == (0, 100)


def test_the_tightest_limit_is_the_standing() -> None:
    book = book_of(
        key=Limits(requests_per_minute=10), user=Limits(requests_per_minute=100), faculty=Limits(concurrency=9)
    )
    one = request()
    book.admit(one, 10, 0.0)
    standing = book.standing(one, 0.0)
    assert standing is not None
    assert (standing.limit_requests, standing.remaining_requests, standing.reset_requests_s) == (10, 9, 6.0)
    assert standing.limit_tokens is None


def test_a_rate_that_is_removed_and_set_again_starts_anew() -> None:
    book = book_of(user=Limits(requests_per_minute=1))
    one = request()
    book.admit(one, 0, 0.0)
    limit_user(book, Limits())
    assert book.admit(request(), 0, 0.0) is None
    limit_user(book, Limits(requests_per_minute=1))
    book.release(one.ledger_id, 0.0)
    assert book.admit(request(), 0, 0.0) is None
    assert refused(book, request()).retry_after_s == 60.0


def test_a_clock_that_stands_still_or_goes_back_refills_nothing() -> None:
    book = book_of(user=Limits(requests_per_minute=1))
    book.admit(request(), 0, 100.0)
    assert refused(book, request(), now=100.0).retry_after_s == 60.0
    assert refused(book, request(), now=1.0).retry_after_s == 60.0
    assert book.admit(request(), 0, 1e9) is None
    assert refused(book, request(), now=1e9).retry_after_s == 60.0


# --- requests at once ---------------------------------------------------------------------------------------------------


def test_a_full_house_says_how_long_its_requests_take() -> None:
    book = book_of(user=Limits(concurrency=2))
    assert refused(book_of(user=Limits(concurrency=0)), request()).retry_after_s is None
    first, second = request(), request()
    book.admit(first, 0, 0.0)
    book.admit(second, 0, 0.0)
    assert refused(book, request()).retry_after_s == 1.0, "nothing is known yet"
    book.settle(first.ledger_id, Used(), 12.0)
    assert book.admit(request(), 0, 12.0) is None
    assert refused(book, request(), now=12.0).retry_after_s == 6.0, "one of two that take 12 s each"


def test_a_house_that_was_made_smaller_empties_first() -> None:
    book = book_of(user=Limits(concurrency=4))
    running = [request() for _ in range(4)]
    for one in running:
        book.admit(one, 0, 0.0)
    limit_user(book, Limits(concurrency=2))
    book.settle(running[0].ledger_id, Used(), 10.0)
    book.settle(running[1].ledger_id, Used(), 10.0)
    assert refused(book, request(), now=10.0).reason is Refusal.CONCURRENCY_LIMITED
    book.settle(running[2].ledger_id, Used(), 10.0)
    assert book.admit(request(), 0, 10.0) is None
    for _ in range(2):
        book.settle(running[3].ledger_id, Used(), 11.0)
    assert book.admit(request(), 0, 11.0) is None
    assert book.admit(request(), 0, 11.0) is not None


# --- budgets ------------------------------------------------------------------------------------------------------------


def test_a_spent_budget_says_whose_it_is_and_when_it_begins_anew() -> None:
    book = book_of(group=Limits(budgets=(tokens(2_000_000, Period.MONTH, "Europe/Berlin"),)))
    one = request()
    book.admit(one, 1000, 0.0)
    book.settle(one.ledger_id, Used(1_500_000, 0, 500_000), 60.0)
    found = refused(book, request(), 1000, now=60.0)
    assert found.message == (
        "A group of this user has spent its budget of 2,000,000 tokens for this month; "
        "it begins anew on 2026-12-01 00:00 (Europe/Berlin)."
    )
    assert found.reason is Refusal.QUOTA_SPENT
    assert found.retry_after_s == (wall("2026-11-30 23:00") - NOON) / SECOND_US - 60


def test_a_budget_for_ever_does_not_begin_anew() -> None:
    book = book_of(key=Limits(budgets=(Budget("b", BudgetUnit.MONEY, 2_500_000),)))
    one = request(prompt=1_000_000)
    book.admit(one, 1_000_000, 0.0)
    book.settle(one.ledger_id, Used(1_250_000, 0, 0), 1.0)
    found = refused(book, request(prompt=1), 10, now=1.0)
    assert found.retry_after_s is None
    assert found.message == "This API key has spent its budget of 2.50 in money; it does not begin anew."


def test_what_running_requests_hold_is_not_called_spent() -> None:
    book = book_of(user=Limits(budgets=(tokens(1000, Period.DAY),)))
    one = request()
    book.admit(one, 700, 0.0)
    found = refused(book, request(), 400)
    assert found.message == (
        "This user has 1,000 tokens of its budget of 1,000 tokens for this day left, and running requests may need "
        "700 tokens of it; this request may need 400 tokens; it begins anew on 2026-11-23 00:00 (UTC)."
    )
    assert found.retry_after_s == 1.0
    book.settle(one.ledger_id, Used(0, 0, 100), 9.0)
    assert book.admit(request(), 400, 9.0) is None


def test_what_is_larger_than_the_whole_budget_never_passes() -> None:
    book = book_of(user=Limits(budgets=(tokens(1000, Period.DAY),)))
    assert refused(book, request(), 1001).retry_after_s is None
    assert refused(book_of(user=Limits(budgets=(tokens(0),))), request(), 0).retry_after_s is None


def test_money_is_rounded_once_half_up_and_cached_tokens_have_their_price() -> None:
    book = book_of(user=Limits(budgets=(Budget("b", BudgetUnit.MONEY, 10**9),)))
    book.change(PolicyChanged(models=(ModelTerms("tiny", 100_000, 50_000, 300_000),)), 0.0)
    one = request(prompt=10, model="tiny")
    book.admit(one, 20, 0.0)
    assert only_budget(book).reserved == 4  # 1 + 3
    book.settle(one.ledger_id, Used(10, 5, 1), 0.0)  # 0.5 + 0.25 + 0.3 = 1.05
    assert only_budget(book).spent == 1
    book.replay(request(model="tiny"), Used(15, 0, 0), 0.0)  # 1.5
    assert only_budget(book).spent == 3
    book.replay(request(model="tiny"), Used(4, 9, 0), 0.0)  # more cached than there were: 0.2
    book.replay(request(model="free of charge"), Used(10**6, 0, 10**6), 0.0)
    assert only_budget(book).spent == 3


@pytest.mark.parametrize(
    ("model", "prompt", "completion", "money"),
    [
        ("m", 100, 10, 2 * 100 + 6 * 10 + 5),
        ("m", 1000, 10, 1 * 1000 + 1 * 10 + 5),  # its prompt reaches the tier
        ("mistral", 100, 10, 3 * 110),
        ("mistral-large", 100, 10, 4 * 110),
        ("odd[a]", 100, 10, 1 * 110),
        ("oddaa", 100, 10, 0),
        ("m", 0, 0, 0),
    ],
)
def test_a_price_is_that_of_the_narrowest_name_with_its_tiers_and_for_the_request(
    model: str, prompt: int, completion: int, money: int
) -> None:
    def flat(name: str, micros: int) -> PriceTerms:
        return PriceTerms(name, micros, micros, micros)

    book = book_of(user=Limits(budgets=(Budget("t", BudgetUnit.MONEY, 100_000),)))
    tiers = (PriceTier(1000, 1_000_000, 0, 1_000_000),)
    prices = (
        PriceTerms("m", 2_000_000, 500_000, 6_000_000, 5, tiers),
        flat("mistral*", 3_000_000),
        flat("mistral-l*", 4_000_000),
        flat("odd[a]*", 1_000_000),
    )
    book.change(PolicyChanged(prices=prices), 0.0)
    one = request(prompt=prompt, model=model)
    assert book.admit(one, prompt + completion, 0.0) is None
    if prompt:
        assert only_budget(book).reserved == money
    book.settle(one.ledger_id, Used(prompt, 0, completion), 1.0)
    assert only_budget(book).spent == money


def test_prices_stay_as_they_were_until_they_are_told_again() -> None:
    book = book_of(user=Limits(budgets=(Budget("t", BudgetUnit.MONEY, 100_000),)))
    book.change(PolicyChanged(prices=(PriceTerms("*", 1_000_000, 0, 0),)), 0.0)
    book.change(PolicyChanged(models=(ModelTerms("m", prompt_micros=9_000_000),)), 0.0)
    book.replay(request(), Used(100, 0, 0), 0.0)
    assert only_budget(book).spent == 100, "whoever tells prices tells all of them"
    book.change(PolicyChanged(prices=()), 0.0)
    book.replay(request(), Used(100, 0, 0), 0.0)
    assert only_budget(book).spent == 100


def test_what_costs_nothing_passes_where_no_money_is_left() -> None:
    book = book_of(user=Limits(budgets=(Budget("b", BudgetUnit.MONEY, 10),)))
    book.replay(request(), Used(0, 0, 100), 0.0)
    assert only_budget(book).free < 0
    assert book.admit(request(model="free of charge"), 500, 0.0) is None
    assert refused(book, request(), 500).reason is Refusal.QUOTA_SPENT


def test_a_request_pays_the_prices_it_was_admitted_at() -> None:
    book = book_of(user=Limits(budgets=(Budget("b", BudgetUnit.MONEY, 10**9),)))
    one = request(prompt=10)
    book.admit(one, 20, 0.0)
    book.change(PolicyChanged(removed_models=("m",)), 0.0)
    book.settle(one.ledger_id, Used(10, 0, 10), 0.0)
    assert only_budget(book).spent == 80


def test_an_answer_that_outruns_its_budget_ends_and_is_paid_for() -> None:
    book = book_of(user=Limits(budgets=(tokens(100),)), faculty=Limits(budgets=(tokens(1000),)))
    one = request(prompt=20)
    assert book.admit(one, 50, 0.0) is None
    assert book.extend(one.ledger_id, 30, 1.0)
    assert book.extend(one.ledger_id, 80, 2.0), "to the last token"
    assert not book.extend(one.ledger_id, 96, 3.0)
    assert {b.subject: (b.reserved, b.free) for b in book.budgets()} == {
        "user:alice": (116, -16),
        "group:faculty": (116, 884),
    }
    assert book.extend(one.ledger_id, 90, 3.0), "news that is older changes nothing"
    book.settle(one.ledger_id, Used(20, 0, 97), 4.0)
    assert {b.subject: (b.spent, b.reserved) for b in book.budgets()} == {
        "user:alice": (117, 0),
        "group:faculty": (117, 0),
    }
    assert book.extend(one.ledger_id, 500, 5.0), "nothing is known of it any more"


def test_a_money_budget_ends_an_answer_too() -> None:
    book = book_of(user=Limits(budgets=(Budget("b", BudgetUnit.MONEY, 100),)))
    one = request(prompt=5)
    assert book.admit(one, 15, 0.0) is None  # 10 + 60
    assert book.extend(one.ledger_id, 15, 1.0)
    assert not book.extend(one.ledger_id, 16, 1.0)
    assert only_budget(book).free == -6


def test_a_budget_lowered_below_its_use_lets_what_runs_end_within_its_estimate() -> None:
    book = book_of(user=Limits(budgets=(tokens(1000),)))
    one = request()
    book.admit(one, 300, 0.0)
    limit_user(book, Limits(budgets=(tokens(100),)))
    assert only_budget(book).free == -200
    assert book.extend(one.ledger_id, 300, 1.0)
    assert not book.extend(one.ledger_id, 301, 1.0)
    book.settle(one.ledger_id, Used(0, 0, 301), 1.0)
    assert (only_budget(book).spent, only_budget(book).reserved) == (301, 0)
    limit_user(book, Limits(budgets=(tokens(500),)))
    assert only_budget(book).free == 199


def test_a_new_id_or_another_calendar_is_a_new_budget() -> None:
    book = book_of(user=Limits(budgets=(tokens(100),)))
    running = request()
    book.admit(running, 60, 0.0)
    limit_user(book, Limits(budgets=(tokens(100, Period.DAY),)))
    assert only_budget(book).free == 100
    book.settle(running.ledger_id, Used(0, 0, 60), 1.0)
    assert only_budget(book) == BudgetStanding("user:alice", "t", 100, 0, 0, 0)


def test_settling_twice_is_once_and_an_unknown_one_is_nothing() -> None:
    book = book_of(user=Limits(concurrency=1, tokens_per_minute=1000, budgets=(tokens(100),)))
    one = request()
    book.admit(one, 50, 0.0)
    for _ in range(3):
        book.settle(one.ledger_id, Used(10, 0, 10), 1.0)
        book.release(one.ledger_id, 1.0)
    book.settle(LedgerId(b"nobody knows it."), Used(10, 0, 10), 1.0)
    assert only_budget(book) == BudgetStanding("user:alice", "t", 100, 20, 0, 0)


# --- periods ------------------------------------------------------------------------------------------------------------


def test_a_budget_begins_anew_with_its_period_and_what_runs_is_charged_where_it_settles() -> None:
    book = book_of(user=Limits(budgets=(tokens(100, Period.DAY),)))
    over, one = request(), request()
    book.admit(over, 40, 0.0)
    book.settle(over.ledger_id, Used(0, 0, 40), 1.0)
    book.admit(one, 60, 1.0)
    book.tick(wall("2026-11-22 23:59:59"), 43199.0)
    assert only_budget(book).spent == 40
    book.tick(wall("2026-11-23 00:00"), 43200.0)
    assert only_budget(book) == BudgetStanding("user:alice", "t", 100, 0, 60, 0)
    book.settle(one.ledger_id, Used(0, 0, 50), 43201.0)
    assert only_budget(book) == BudgetStanding("user:alice", "t", 100, 50, 0, 0)


def test_without_a_time_of_day_it_is_as_it_was_plus_what_has_passed() -> None:
    book = book_of(user=Limits(budgets=(tokens(100, Period.DAY),)))
    book.replay(request(), Used(0, 0, 40), 1.0)
    book.tick(None, 43199.0)
    assert only_budget(book).spent == 40
    book.tick(None, 43200.0)
    assert only_budget(book).spent == 0


def test_a_wall_clock_that_goes_back_unrolls_nothing() -> None:
    book = book_of(user=Limits(budgets=(tokens(100, Period.DAY),)))
    book.replay(request(), Used(0, 0, 70), 1.0)
    book.tick(wall("2026-11-23 00:00:01"), 2.0)
    book.replay(request(), Used(0, 0, 30), 3.0)
    book.tick(wall("2026-11-22 23:00"), 4.0)
    assert only_budget(book).spent == 30
    book.tick(wall("2026-11-23 00:00:01"), 5.0)
    assert only_budget(book).spent == 30, "and it does not begin anew twice"


def test_a_clock_that_was_years_ahead_leaves_nobody_waiting_for_years() -> None:
    book = book_of(user=Limits(budgets=(tokens(100, Period.MONTH),)))
    book.tick(wall("2061-05-01 00:00"), 1.0)
    book.replay(request(), Used(0, 0, 100), 2.0)
    book.tick(wall("2026-11-22 12:00"), 3.0)
    found = refused(book, request(), 10, now=3.0)
    assert "2026-12-01" in found.message
    book.tick(wall("2026-12-01 00:00"), 4.0)
    assert only_budget(book).spent == 0


def test_a_clock_beyond_all_calendars_is_survived() -> None:
    book = book_of(user=Limits(budgets=(tokens(100, Period.YEAR),)))
    for moment in (10**18, -(10**18), 0, NOON):
        book.tick(moment, 1.0)
    assert only_budget(book).free == 100


def test_a_time_zone_that_nobody_knows_is_utc_and_told() -> None:
    book = book_of(user=Limits(budgets=(tokens(100, Period.DAY, "Mars/Olympus"),)))
    assert book.unknown_zones == {"Mars/Olympus"}
    book.replay(request(), Used(0, 0, 100), 1.0)
    assert "2026-11-23 00:00 (UTC)" in refused(book, request(), 1).message


def test_the_ledgers_word_counts_only_where_there_is_no_count_of_our_own() -> None:
    ledger = Limits(budgets=(tokens(100, Period.DAY, spent=40, at_us=NOON - SECOND_US),))
    book = book_of(user=ledger)
    assert only_budget(book).spent == 40
    limit_user(book, Limits(budgets=(tokens(100, Period.DAY, spent=50, at_us=NOON),)))
    assert only_budget(book).spent == 50, "nothing was counted here: its newer word"
    book.replay(request(), Used(0, 0, 5), 0.0)
    limit_user(book, Limits(budgets=(tokens(100, Period.DAY, spent=99, at_us=NOON),)))
    assert only_budget(book).spent == 55
    book.tick(wall("2026-11-23 00:00"), 1.0)
    assert only_budget(book).spent == 0


def test_the_ledgers_word_of_another_period_is_not_this_ones() -> None:
    book = book_of(user=Limits(budgets=(tokens(100, Period.DAY, spent=40, at_us=wall("2026-11-21 23:59")),)))
    assert only_budget(book).spent == 0


def test_before_the_time_of_day_is_known_budgets_count_and_nothing_is_lost() -> None:
    book = LimitBook()
    limit_user(book, Limits(budgets=(tokens(100, Period.DAY, spent=40, at_us=NOON),)))
    book.replay(request(), Used(0, 0, 5), 0.0)
    assert refused(book, request(), 96).retry_after_s is None
    assert book.levels(0.0) == []
    book.tick(NOON, 1.0)
    assert only_budget(book).spent == 45


# --- another leader -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy_first", [True, False])
def test_the_next_leader_goes_on_where_this_one_was(policy_first: bool) -> None:
    limits = Limits(
        requests_per_minute=10,
        tokens_per_minute=600,
        concurrency=3,
        budgets=(tokens(1000, Period.DAY, spent=7, at_us=NOON),),
    )
    book = book_of(user=limits)
    running, ended = request(at=0.0), request(at=0.0)
    for one in (running, ended):
        assert book.admit(one, 200, 0.0) is None
    book.settle(ended.ledger_id, Used(0, 0, 150), 10.0)
    spent, levels, before = book.spent(), book.levels(10.0), book.standing(running, 10.0)

    later = LimitBook(NOON + 10 * SECOND_US, 500.0)
    if policy_first:
        limit_user(later, limits, 500.0)
    later.restore(spent, levels, NOON + 10 * SECOND_US, NOON + 10 * SECOND_US, 500.0)
    if not policy_first:
        assert later.spent() == spent, "kept until its policy comes"
        limit_user(later, limits, 500.0)
    again = Request(running.ledger_id, running.user, "m", 490.0, key=running.key)
    later.adopt(again, 200, 500.0)
    later.adopt(again, 200, 500.0)
    assert later.standing(again, 500.0) == before
    assert only_budget(later) == only_budget(book) == BudgetStanding("user:alice", "t", 1000, 157, 200, 0)
    later.settle(again.ledger_id, Used(0, 0, 300), 501.0)
    book.settle(running.ledger_id, Used(0, 0, 300), 11.0)
    assert later.standing(again, 501.0) == book.standing(running, 11.0)
    assert only_budget(later).spent == 457


def test_what_came_after_the_last_snapshot_is_charged_when_it_is_told_of() -> None:
    limits = Limits(requests_per_minute=10, tokens_per_minute=600, concurrency=1)
    book = LimitBook(NOON, 0.0)
    limit_user(book, limits)
    book.restore([], [], NOON - SECOND_US, NOON, 100.0)
    for one in (request(at=99.5), request(at=99.9)):
        book.adopt(one, 50, 100.0)
    standing = book.standing(request(), 100.0)
    assert standing is not None
    assert (standing.remaining_requests, standing.remaining_tokens) == (8, 500)
    assert refused(book, request(), 1, now=100.0).reason is Refusal.CONCURRENCY_LIMITED, "adopting refuses nobody"


def test_a_count_of_a_period_that_is_over_is_not_restored() -> None:
    book = book_of(user=Limits(budgets=(tokens(100, Period.DAY),)))
    book.replay(request(), Used(0, 0, 60), 0.0)
    kept = book.spent()
    later = book_of(user=Limits(budgets=(tokens(100, Period.DAY),)))
    tomorrow = wall("2026-11-23 08:00")
    later.restore(kept, [], NOON, tomorrow, 0.0)
    assert only_budget(later).spent == 0


def test_counts_whose_policy_never_comes_are_forgotten() -> None:
    book = book_of(user=Limits(budgets=(tokens(100),)))
    book.replay(request(), Used(0, 0, 60), 0.0)
    later = LimitBook(NOON, 0.0)
    later.restore(book.spent(), [], NOON, NOON, 0.0)
    later.tick(NOON, 700.0)
    assert later.spent() == book.spent(), "admin may be away"
    later.change(PolicyChanged(), 701.0)
    later.tick(NOON, 1400.0)
    assert later.spent() == []


def test_a_replayed_end_is_charged_at_once() -> None:
    book = book_of(user=Limits(requests_per_minute=10, tokens_per_minute=600, concurrency=1, budgets=(tokens(100),)))
    book.replay(request(), Used(30, 0, 20), 0.0)
    assert only_budget(book) == BudgetStanding("user:alice", "t", 100, 50, 0, 0)
    standing = book.standing(request(), 0.0)
    assert standing is not None
    assert (standing.remaining_requests, standing.remaining_tokens) == (9, 550)
    known = request()
    book.admit(known, 40, 0.0)
    book.replay(known, Used(0, 0, 10), 0.0)
    assert only_budget(book) == BudgetStanding("user:alice", "t", 100, 60, 0, 0)


# --- what is lent -------------------------------------------------------------------------------------------------------

ROOMY = Limits(
    requests_per_minute=600,
    tokens_per_minute=60_000,
    concurrency=80,
    budgets=(tokens(100_000), Budget("b", BudgetUnit.MONEY, 8_000_000)),
)


def test_a_second_of_rate_and_an_eighth_of_what_is_free_is_lent() -> None:
    book = book_of(user=ROOMY, key=Limits(concurrency=1000))
    lent = book.lend(KeyId("k"), UserId("alice"), GroupId(""), 0.0)
    assert lent is not None
    assert (lent.requests, lent.tokens, lent.money_micros) == (10, 1000, 1_000_000)
    assert {(b.budget_id, b.lent) for b in book.budgets()} == {("t", 1000), ("b", 1_000_000)}
    standing = book.standing(request(), 0.0)
    assert standing is not None
    assert (standing.remaining_requests, standing.remaining_tokens) == (590, 59_000)
    assert book.lent_to(KeyId("k")) == [lent.id]
    for _ in range(2):
        book.take_back(lent.id, 0.0)
    assert all(b.lent == 0 for b in book.budgets())
    assert book.standing(request(), 0.0) == book_of(user=ROOMY).standing(request(), 0.0)


@pytest.mark.parametrize(
    "tight",
    [
        Limits(requests_per_minute=59),
        Limits(tokens_per_minute=15_000),
        Limits(concurrency=7),
        Limits(budgets=(tokens(2000),)),
        Limits(budgets=(Budget("b", BudgetUnit.MONEY, 7),)),
    ],
)
def test_nothing_is_lent_where_it_is_tight(tight: Limits) -> None:
    book = book_of(user=ROOMY, faculty=tight)
    assert book.lend(KeyId("k"), UserId("alice"), GroupId(""), 0.0) is None


def test_what_was_begun_on_an_allotment_is_reserved_from_what_was_lent() -> None:
    book = book_of(user=ROOMY)
    lent = book.lend(KeyId("k"), UserId("alice"), GroupId(""), 0.0)
    assert lent is not None
    one = request(prompt=100)
    for _ in range(2):
        book.admit_lent(one, lent.id, 300, 0.0)
    assert {(b.budget_id, b.lent, b.reserved) for b in book.budgets()} == {("t", 700, 300), ("b", 998_600, 1400)}
    book.take_back(lent.id, 0.0)
    book.settle(one.ledger_id, Used(100, 0, 50), 1.0)
    for _ in range(2):
        book.admit_lent(one, lent.id, 300, 1.0)
    assert {(b.budget_id, b.spent, b.lent, b.reserved) for b in book.budgets()} == {("t", 150, 0, 0), ("b", 500, 0, 0)}


def test_what_was_used_of_an_allotment_is_lent_again() -> None:
    """Else whoever has one would, once it is used up, ask for every request for as long as it is renewed."""
    book = book_of(user=ROOMY)
    lent = book.lend(KeyId("k"), UserId("alice"), GroupId(""), 0.0)
    assert lent is not None
    assert book.top_up(lent.id, 0.0) is None, "nothing was used"
    begun = [request(prompt=50) for _ in range(4)]
    for one in begun:
        book.admit_lent(one, lent.id, 100, 0.0)
    more = book.top_up(lent.id, 0.0)
    assert more is not None
    # Of 80 places 6 are still lent and 4 taken: an eighth of what is free are 8.
    assert (more.id, more.requests, more.tokens) == (lent.id, 2, 400)
    assert {(b.lent, b.reserved) for b in book.budgets() if b.budget_id == "t"} == {(1000, 400)}
    standing = book.standing(request(), 0.0)
    assert standing is not None
    assert (standing.remaining_requests, standing.remaining_tokens) == (588, 58_600)
    for one in begun:
        book.settle(one.ledger_id, Used(50, 0, 25), 0.0)
    book.take_back(lent.id, 0.0)
    assert {(b.spent, b.lent, b.reserved) for b in book.budgets() if b.budget_id == "t"} == {(300, 0, 0)}
    assert book.top_up(lent.id, 0.0) is None, "it is over"


def test_where_it_has_become_tight_nothing_more_is_lent() -> None:
    book = book_of(user=Limits(budgets=(tokens(4000),)))
    lent = book.lend(KeyId("k"), UserId("alice"), GroupId(""), 0.0)
    assert lent is not None
    assert lent.tokens == 500
    for _ in range(6):
        book.admit(request(), 500, 0.0)
    book.admit_lent(request(), lent.id, 300, 0.0)
    assert book.top_up(lent.id, 0.0) is None


def test_what_an_allotment_does_not_cover_is_reserved_all_the_same() -> None:
    book = book_of(user=ROOMY)
    lent = book.lend(KeyId("k"), UserId("alice"), GroupId(""), 0.0)
    assert lent is not None
    book.admit_lent(request(), lent.id, 1500, 0.0)
    book.admit_lent(request(), 99, 10, 0.0)
    assert {(b.budget_id, b.lent, b.reserved) for b in book.budgets() if b.budget_id == "t"} == {("t", 0, 1510)}
    standing = book.standing(request(), 0.0)
    assert standing is not None
    assert (standing.remaining_requests, standing.remaining_tokens) == (589, 58_490)


@pytest.mark.parametrize("order", list(itertools.permutations(["started", "returned", "settled"])))
def test_in_whatever_order_it_is_told_the_sums_are_the_same(order: tuple[str, ...]) -> None:
    book = book_of(user=ROOMY)
    lent = book.lend(KeyId("k"), UserId("alice"), GroupId(""), 0.0)
    assert lent is not None
    one = request(prompt=100)
    for told in (*order, *order):
        match told:
            case "started":
                book.admit_lent(one, lent.id, 300, 0.0)
            case "returned":
                book.take_back(lent.id, 0.0)
            case _:
                book.settle(one.ledger_id, Used(100, 0, 50), 0.0)
    assert {(b.budget_id, b.spent, b.lent, b.reserved) for b in book.budgets()} == {("t", 150, 0, 0), ("b", 500, 0, 0)}
    standing = book.standing(request(), 0.0)
    assert standing is not None
    assert (standing.remaining_requests, standing.remaining_tokens) == (599, 59_850)


def test_a_refusal_names_the_allotments_that_hold_what_is_missing() -> None:
    book = book_of(user=ROOMY)
    lent = book.lend(KeyId("k"), UserId("alice"), GroupId(""), 0.0)
    assert lent is not None
    found = refused(book, request(), 99_500)
    assert found.lent == (lent.id,)
    book.take_back(lent.id, 0.0)
    assert refused(book, request(), 100_001).lent == ()
