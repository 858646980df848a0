"""What the scheduler lends and bounds: ceilings, credits, allotments; and how a rate's standing is told to clients."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_gateway.rate_standing import RateStanding, anthropic_rate_headers, duration, rate_headers
from forebay_gateway.slots.allotments import Allotment, Allotments
from forebay_gateway.slots.ceilings import Ceiling, Ceilings
from forebay_gateway.slots.credits import Credit, Credits, Lent


def lent(number: int = 1, *, slots: int = 2, expires_at: float = 10.0, leases: int = 5, first: int = 100) -> Lent:
    return Lent(number, "b", "default", "m", slots, expires_at, first, leases)


def test_a_ceiling_that_nobody_told_is_none_and_the_newest_word_counts() -> None:
    ceilings = Ceilings()
    assert ceilings.room("b") == 0
    ceilings.tell(Ceiling("b", "default", 4, 1))
    ceilings.take("b", 3)
    assert ceilings.tell(Ceiling("b", "default", 2, 2)) == 3, "what is held is acknowledged"
    assert ceilings.room("b") == -1
    ceilings.give_back("b", 3)
    assert ceilings.room("b") == 2
    ceilings.tell(Ceiling("b", "default", 0, 3))
    assert list(ceilings) == []
    assert ceilings.room("b") == 0


def test_a_credit_is_used_within_its_slots_leases_and_time() -> None:
    credits = Credits()
    credits.lend(lent(slots=2, leases=3))

    def begin(width: int = 1, now: float = 0.0) -> int | None:
        credit = credits.find("default", "m", width, now)
        return credit.begin(width) if credit is not None else None

    assert begin(width=3) is None
    assert (begin(), begin(), begin()) == (100, 101, None)
    (credit,) = [credits.find("default", "m", 0, 0.0)]
    assert credit is not None
    credit.in_use -= 1
    assert begin(now=10.0) is None, "it has expired"
    assert begin(now=9.9) == 102
    credit.in_use -= 2
    assert begin() is None, "each lease is used once"
    assert credits.find("default", "other", 1, 0.0) is None


def test_a_credit_told_again_lasts_longer_and_one_that_ends_is_returned_once() -> None:
    credits = Credits()
    credits.lend(lent(1, expires_at=1.0))
    credits.lend(lent(1, expires_at=2.0))
    credits.lend(lent(2, expires_at=1.5))
    credits.end_expired(1.0)
    assert credits.take_ended() == []
    credits.end_expired(1.5)
    assert credits.take_ended() == [2]
    credits.end(1)
    credits.end(7)  # one that is not known here
    assert credits.take_ended() == [1, 7]
    assert credits.take_ended() == []
    credits.lend(lent(1, expires_at=9.0))  # a renewal that was on its way
    assert not credits
    credits.forget_numbers()
    credits.lend(lent(1, expires_at=9.0))
    assert len(credits) == 1, "of another leader"
    credits.end_all()
    assert credits.find("default", "m", 1, 0.0) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3), st.floats(0, 3)), max_size=60))
def test_no_use_of_credits_is_ever_beyond_them(steps: list[tuple[int, int, float]]) -> None:
    credits, now, number = Credits(), 0.0, 0
    begun: list[tuple[Credit, int]] = []
    leases: list[int] = []
    for step, width, seconds in steps:
        match step:
            case 0:
                number += 1
                credits.lend(lent(number, slots=width, expires_at=now + seconds, leases=width + 1, first=number * 1000))
            case 1 | 2:
                credit = credits.find("default", "m", width, now)
                if credit is not None:
                    leases.append(credit.begin(width))
                    begun.append((credit, width))
                    assert now < credit.lent.expires_at
                    assert credit.in_use <= credit.lent.slots
                    assert leases[-1] < credit.lent.first_lease + credit.lent.leases
            case 3 if begun:
                credit, held = begun.pop()
                credit.in_use -= held
            case 4:
                now += seconds
                credits.end_expired(now)
    assert len(set(leases)) == len(leases)


def test_nothing_begins_unasked_for_a_key_of_which_nothing_is_known() -> None:
    allotments = Allotments()
    assert not allotments.spend("k", 1, now=0.0)
    allotments.note("k", is_limited=False)
    assert allotments.spend("k", 10**9, now=0.0)
    allotments.note("k", is_limited=True)
    assert not allotments.spend("k", 1, now=0.0)


def test_a_limited_key_spends_what_was_lent_and_no_more() -> None:
    allotments = Allotments()
    allotments.lend(Allotment(1, "k", requests=2, tokens=100, expires_at=5.0))
    assert allotments.is_limited("k")
    assert not allotments.spend("k", 101, now=0.0)
    assert allotments.spend("k", 60, now=0.0)
    assert not allotments.spend("k", 60, now=0.0)
    assert allotments.spend("k", 40, now=4.9)
    assert not allotments.spend("k", 0, now=4.9), "its requests are spent"
    allotments.lend(Allotment(1, "k", requests=2, tokens=100, expires_at=6.0))
    assert not allotments.spend("k", 0, now=4.9), "told again, it lasts longer and has no more in it"
    allotments.lend(Allotment(2, "k", requests=9, tokens=100, expires_at=5.0))
    assert not allotments.spend("k", 1, now=5.0)
    allotments.end_expired(6.0)
    assert sorted(allotments.take_ended()) == [1, 2]
    allotments.lend(Allotment(1, "k", requests=2, tokens=100, expires_at=9.0))
    assert not allotments


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.12, "120ms"), (1, "1s"), (8.64, "8.64s"), (360, "6m0s"), (90.5, "1m30.5s"), (3600, "1h0m0s")],
)
def test_durations_are_told_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_only_what_is_limited_is_told() -> None:
    assert rate_headers(RateStanding()) == {}
    assert rate_headers(RateStanding(limit_requests=60, remaining_requests=59, reset_requests_s=1.0)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
    }
    assert rate_headers(RateStanding(limit_tokens=9, remaining_tokens=0, reset_tokens_s=0.05)) == {
        "x-ratelimit-limit-tokens": "9",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "50ms",
    }
    assert anthropic_rate_headers(RateStanding(), 0) == {}
    assert anthropic_rate_headers(RateStanding(limit_tokens=9, remaining_tokens=0, reset_tokens_s=0.05), 59.0) == {
        "anthropic-ratelimit-tokens-limit": "9",
        "anthropic-ratelimit-tokens-remaining": "0",
        "anthropic-ratelimit-tokens-reset": "1970-01-01T00:01:00Z",
    }
