"""Weights, money and limits as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import BadInput
from forebay_admin.cli.amounts import money, parse_cap, parse_money, parse_weight, weight


@pytest.mark.parametrize(
    ("text", "micros", "shown"),
    [
        ("25.00", 25_000_000, "25.00"),
        ("0.15", 150_000, "0.15"),
        ("0.075", 75_000, "0.075"),
        (".5", 500_000, "0.50"),
        ("1000000", 10**12, "1,000,000.00"),
        ("0.000001", 1, "0.000001"),
        ("0", 0, "0.00"),
    ],
)
def test_money_is_whole_millionths(text: str, micros: int, shown: str) -> None:
    assert parse_money(text) == micros
    assert money(micros) == shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.0000001", "at most 6 decimals"),
        ("-1", "less than nothing"),
        ("1e3", "is not an amount of money"),
        ("", "is not an amount of money"),
        ("25 EUR", "is not an amount of money"),
        ("nan", "is not an amount of money"),
        ("9" * 15, "more money than anybody can spend"),
        ("9" * 40, "is not an amount of money"),
    ],
)
def test_what_is_no_money_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        parse_money(text)


@pytest.mark.parametrize(("text", "milli"), [("1", 1000), ("0.5", 500), ("2.125", 2125), ("1000", 1_000_000)])
def test_a_weight_is_a_number(text: str, milli: int) -> None:
    assert parse_weight(text) == milli
    assert weight(milli) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0", "A weight is more than 0"),
        ("-2", "A weight is more than 0"),
        ("0.0001", "at most 3 decimals"),
        ("1001", "at most 1000"),
        ("heavy", "is not a weight"),
    ],
)
def test_what_is_no_weight_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        parse_weight(text)


def test_a_limit_is_a_whole_number_or_none() -> None:
    assert parse_cap("1,000,000") == 1_000_000
    assert parse_cap("none") is None
    assert parse_cap("default", "default") is None
    for text in ("-1", "1.5", "lots", "", "9" * 30):
        with pytest.raises(BadInput):
            parse_cap(text)


@given(st.integers(0, 10**18))
def test_money_that_is_shown_can_be_read_again(micros: int) -> None:
    assert parse_money(money(micros).replace(",", "")) == micros
