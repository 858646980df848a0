"""What requests cost: by the price in force when they started, to the micro-unit, whatever prices come later."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import BadInput
from forebay_admin.money.costs import MOST_COST, WHY, Unbilled, cost_of, meter_of
from forebay_admin.money.price_book import Bill, PriceBook
from forebay_admin.money.prices import (
    MOST_MICROS,
    Hardware,
    Prices,
    PriceVersion,
    Tier,
    demand_prices,
    start_of,
)

NOW = datetime(2027, 3, 28, 0, 59, 59, tzinfo=UTC)
HOUR = timedelta(hours=1)
PLAIN = Prices(1_000_000, 500_000, 2_000_000)

_price = st.integers(0, MOST_MICROS)
_count = st.integers(0, 10**9)
_tiers = st.lists(st.integers(1, 10**6), max_size=3, unique=True).flatmap(
    lambda starts: st.tuples(*(st.builds(Tier, st.just(start), _price, _price, _price) for start in sorted(starts)))
)
_hardware = st.builds(
    Hardware, st.integers(1, 16), st.integers(1, 64), st.integers(1, 1000), st.integers(0, 10**8), st.integers(1, 10**7)
)
PRICES = st.builds(Prices, _price, _price, _price, _price, _price, _price, _tiers, st.none() | _hardware)


def version(number: int, model: str, starts_at: datetime, prices: Prices | None = PLAIN) -> PriceVersion:
    return PriceVersion(number, model, starts_at, prices, "admin", starts_at)


def bill(book: PriceBook, **changed: Any) -> Bill:
    use: dict[str, Any] = {
        "model": "llama3:8b",
        "started_at": NOW,
        "outcome": "finished",
        "key_id": "k",
        "ttft_ms": 10,
        "usage_source": "engine",
        "prompt_tokens": 100,
        "cached_prompt_tokens": 40,
        "completion_tokens": 50,
    }
    return book.bill(**{**use, **changed})


@given(PRICES, _count, _count, _count, st.integers(0, 1000), _count, _count)
def test_a_cost_is_the_exact_sum_of_its_parts_rounded_once_half_up_and_never_a_float(
    prices: Prices, prompt: int, cached: int, completion: int, images: int, audio_ms: int, busy_ms: int
) -> None:
    used = (prompt, cached, completion, images, audio_ms, busy_ms)
    by: Prices | Tier = prices
    for tier in prices.tiers:
        by = tier if prompt >= tier.from_prompt_tokens else by
    heard = min(cached, prompt)
    million = 1_000_000
    parts = [
        Fraction((prompt - heard) * by.prompt_micros, million),
        Fraction(heard * by.cached_prompt_micros, million),
        Fraction(completion * by.completion_micros, million),
        Fraction(prices.request_micros),
        Fraction(images * prices.image_micros),
        Fraction(audio_ms * prices.audio_second_micros, 1000),
    ]
    if prices.hardware is not None:
        hardware = prices.hardware
        gpu_hours = Fraction(busy_ms * hardware.gpus, hardware.shared_by * 3_600_000)
        parts += [
            gpu_hours * hardware.gpu_hour_micros,
            gpu_hours * Fraction(hardware.gpu_watts, 1000) * hardware.kwh_micros,
        ]
    cost = cost_of(prices, *used)
    assert type(cost) is int
    assert cost == (sum(parts) + Fraction(1, 2)).__floor__()
    assert meter_of(prices)(*used) == cost


def test_own_hardware_costs_its_share_of_gpus_and_energy() -> None:
    # Two GPUs for an hour, an eighth of them each: a quarter of a GPU-hour of 2.00, and at 400 W 0.1 kWh of 0.30.
    prices = Prices(hardware=Hardware(2, 8, 400, 2_000_000, 300_000))
    assert cost_of(prices, busy_ms=3_600_000) == 500_000 + 30_000
    book = PriceBook([version(1, "llama3:8b", NOW - HOUR, prices)])
    assert bill(book, queue_ms=1000, duration_ms=1_801_000, width=2).cost_micros == 530_000


def test_a_long_prompt_is_charged_by_the_last_tier_that_it_reaches_all_of_it() -> None:
    prices = replace(PLAIN, tiers=(Tier(1000, 2_000_000, 2_000_000, 0), Tier(2000, 3_000_000, 0, 0)))
    assert [cost_of(prices, tokens) for tokens in (999, 1000, 1999, 2000)] == [999, 2000, 3998, 6000]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Bill(60 + 20 + 100, 1, None)),
        ({"model": "unknown"}, Bill(None, None, "no_price")),
        ({"started_at": NOW - 2 * HOUR}, Bill(None, None, "no_price")),
        ({"outcome": "refused"}, Bill(None, None, "refused")),
        ({"key_id": ""}, Bill(None, None, "nobody")),
        ({"outcome": "failed", "ttft_ms": None, "completion_tokens": 0}, Bill(None, None, "no_output")),
        ({"outcome": "cancelled", "completion_tokens": 1}, Bill(60 + 20 + 2, 1, None)),
        (
            {"usage_source": "estimated", "prompt_tokens": 0, "completion_tokens": 0, "cached_prompt_tokens": 0},
            Bill(None, 1, "usage_unknown"),
        ),
        ({"prompt_tokens": 0, "completion_tokens": 0, "cached_prompt_tokens": 0}, Bill(0, 1, None)),
        ({"prompt_tokens": 2**63 - 1}, Bill(None, 1, "too_much")),
    ],
)
def test_a_row_has_a_cost_or_says_why_not(changed: dict[str, Any], expected: Bill) -> None:
    assert bill(PriceBook([version(1, "llama3:8b", NOW - HOUR)]), **changed) == expected


def test_what_is_charged_by_the_piece_is_not_charged_at_nothing_where_nobody_counted_the_pieces() -> None:
    book = PriceBook([version(1, "llama3:8b", NOW - HOUR, Prices(image_micros=40_000, audio_second_micros=6))])
    assert bill(book) == Bill(None, 1, "usage_unknown")
    assert bill(book, images=3) == Bill(120_000, 1, None)
    assert bill(book, audio_ms=1500) == Bill(9, 1, None)
    assert bill(book, images=0) == Bill(0, 1, None)


def test_each_reason_is_told_in_a_sentence() -> None:
    assert set(WHY) == set(Unbilled)


def test_the_narrowest_name_counts_and_gives_way_when_it_ends() -> None:
    book = PriceBook(
        [
            version(1, "*", NOW - 3 * HOUR),
            version(2, "llama3*", NOW - 3 * HOUR),
            version(3, "llama3:8b", NOW - 2 * HOUR),
            version(4, "llama3:8b", NOW - HOUR, None),
            version(5, "llama3*", NOW + HOUR, None),
            version(6, "odd[a]?", NOW - HOUR),
            version(7, "odd[a]*?", NOW - HOUR),
        ]
    )

    def at(model: str, when: datetime) -> int | None:
        found = book.price_at(model, when)
        return found.id if found is not None else None

    hours = [at("llama3:8b", NOW + hours * HOUR) for hours in (-4, -3, -2, -1, 0, 1, 2)]
    assert hours == [None, 2, 3, 2, 2, 1, 1]
    assert at("mistral", NOW) == 1
    assert (at("odd[a]?", NOW), at("odd[a]x?", NOW), at("odda?", NOW)) == (6, 7, 1)
    assert book.names_for("llama3:70b") == {"*", "llama3*"}


def test_what_the_scheduler_counts_is_tokens_and_requests_that_used_any() -> None:
    rich = replace(PLAIN, request_micros=7, image_micros=1000, tiers=(Tier(200, 0, 0, 0),))
    book = PriceBook([version(1, "llama3:8b", NOW - HOUR, rich), version(2, "*", NOW - HOUR)])
    assert book.counted("llama3:8b", NOW, "cancelled", 100, 40, 50) == 187
    assert book.counted("llama3:8b", NOW, "finished", 200, 40, 50) == 7
    assert book.counted("llama3:8b", NOW, "finished", 0, 0, 0) == 0
    assert book.counted("mistral", NOW, "finished", 100, 40, 50) == 180
    assert book.counted("mistral", NOW - 2 * HOUR, "finished", 100, 40, 50) == 0
    assert book.counted("llama3:8b", NOW, "refused", 100, 40, 50) == 0
    assert book.counted("mistral", NOW, "finished", 2**63 - 1, 0, 0) == MOST_COST


_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["llama3:8b", "llama3*", "*"]),
        st.none() | st.integers(0, 10**6),
        st.integers(-5000, 5000),
        st.none() | st.just(PLAIN) | st.builds(Prices, st.integers(1, 9)),
    ),
    min_size=1,
    max_size=12,
)


@given(_CHANGES, st.lists(st.integers(-5000, 5000), max_size=4))
def test_no_sequence_of_changes_changes_what_was_charged_also_when_the_clock_steps_back(
    changes: list[tuple[str, int | None, int, Prices | None]], moments: list[int]
) -> None:
    versions: list[PriceVersion] = []
    newest_now = NOW - timedelta(seconds=10**4)
    now = NOW
    for number, (model, ahead_s, step_s, prices) in enumerate(changes, start=1):
        now += timedelta(seconds=step_s)
        newest_now = max(newest_now, now)
        past = [now - timedelta(seconds=1), *(now - timedelta(seconds=abs(s) + 1) for s in moments)]
        before = [PriceBook(versions).price_at("llama3:8b", when) for when in past]
        begun = max((v.starts_at for v in versions if v.model == model and v.starts_at <= newest_now), default=None)
        asked = now + timedelta(seconds=ahead_s) if ahead_s is not None else None
        versions.append(version(number, model, start_of(asked, begun, now), prices))
        assert [PriceBook(versions).price_at("llama3:8b", when) for when in past] == before


def test_a_price_begins_now_or_later_and_never_before_the_one_in_force() -> None:
    assert start_of(None, None, NOW) == NOW
    assert start_of(NOW + HOUR, NOW, NOW) == NOW + HOUR
    assert start_of(None, NOW + HOUR, NOW) > NOW + HOUR
    with pytest.raises(BadInput, match="is past"):
        start_of(NOW - timedelta(microseconds=1), None, NOW)
    with pytest.raises(BadInput, match="three years"):
        start_of(NOW + timedelta(days=2000), None, NOW)


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        (Prices(prompt_micros=-1), "prompt_micros is -1"),
        (Prices(image_micros=MOST_MICROS + 1), "image_micros is 1000000000001"),
        (Prices(tiers=(Tier(0, 1, 1, 1),)), "from_prompt_tokens is 0"),
        (Prices(tiers=(Tier(5, 1, 1, 1), Tier(5, 1, 1, 1))), "Tiers go upwards"),
        (Prices(tiers=(Tier(5, 1, -1, 1),)), "cached_prompt_micros is -1"),
        (Prices(tiers=tuple(Tier(n, 1, 1, 1) for n in range(1, 18))), "at most 16 tiers"),
        (Prices(hardware=Hardware(gpus=0)), "gpus is 0"),
        (Prices(hardware=Hardware(kwh_micros=1)), "give its watts"),
        (Prices(hardware=Hardware(gpu_watts=1)), "Watts cost nothing"),
        (Prices(audio_second_micros=1, prompt_micros=1), "stands alone"),
        (Prices(audio_second_micros=1, request_micros=1), "stands alone"),
        (Prices(audio_second_micros=1, tiers=(Tier(1, 1, 1, 1),)), "stands alone"),
        (Prices(audio_second_micros=1, hardware=Hardware()), "stands alone"),
    ],
)
def test_negative_and_overflowing_prices_are_refused(prices: Prices, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        demand_prices(prices)
