"""Calendar periods, by the clocks of a place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_scheduler.limits.periods import EVER, Span, span_at, zone_named
from forebay_scheduler.terms import Period

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
HOUR_US = 3_600_000_000


def us(text: str, zone: tzinfo = UTC, fold: int = 0) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)
    return (moment.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)


def dates(span: Span, zone: tzinfo) -> tuple[str, str]:
    assert span.end_us is not None
    return tuple(  # type: ignore[return-value]
        (EPOCH + timedelta(microseconds=moment)).astimezone(zone).strftime("%Y-%m-%d %H:%M")
        for moment in (span.start_us, span.end_us)
    )


@pytest.mark.parametrize(
    ("period", "at", "start", "end"),
    [
        (Period.HOUR, "2026-11-22T01:47:03", "2026-11-22 01:00", "2026-11-22 02:00"),
        (Period.DAY, "2026-11-22T23:59:59.999999", "2026-11-22 00:00", "2026-11-23 00:00"),
        (Period.WEEK, "2026-11-22T12:00", "2026-11-16 00:00", "2026-11-23 00:00"),  # a Sunday
        (Period.WEEK, "2026-11-23T00:00", "2026-11-23 00:00", "2026-11-30 00:00"),  # a Monday
        (Period.WEEK, "2027-01-01T09:00", "2026-12-28 00:00", "2027-01-04 00:00"),
        (Period.MONTH, "2026-01-31T10:00", "2026-01-01 00:00", "2026-02-01 00:00"),
        (Period.MONTH, "2028-02-29T10:00", "2028-02-01 00:00", "2028-03-01 00:00"),
        (Period.MONTH, "2026-12-31T23:59", "2026-12-01 00:00", "2027-01-01 00:00"),
        (Period.YEAR, "2028-12-31T23:59", "2028-01-01 00:00", "2029-01-01 00:00"),
        (Period.DAY, "2028-02-28T10:00", "2028-02-28 00:00", "2028-02-29 00:00"),
    ],
)
@pytest.mark.parametrize("zone", [UTC, BERLIN, ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/New_York")])
def test_a_moment_lies_in_the_period_that_the_clocks_there_show(
    zone: tzinfo, period: Period, at: str, start: str, end: str
) -> None:
    assert dates(span_at(period, zone, us(at, zone)), zone) == (start, end)


def test_a_day_in_spring_has_23_hours_and_one_in_autumn_25() -> None:
    spring = span_at(Period.DAY, BERLIN, us("2026-03-29T12:00", BERLIN))
    autumn = span_at(Period.DAY, BERLIN, us("2026-10-25T12:00", BERLIN))
    assert spring.end_us == spring.start_us + 23 * HOUR_US
    assert autumn.end_us == autumn.start_us + 25 * HOUR_US


def test_the_hour_that_clocks_show_twice_is_two_hours() -> None:
    first = span_at(Period.HOUR, BERLIN, us("2026-10-25T02:30", BERLIN, fold=0))
    second = span_at(Period.HOUR, BERLIN, us("2026-10-25T02:30", BERLIN, fold=1))
    assert first.end_us == second.start_us == first.start_us + HOUR_US


def test_a_day_whose_midnight_is_skipped_begins_with_its_first_moment() -> None:
    zone = ZoneInfo("America/Sao_Paulo")  # 2018-11-04 began at 01:00
    span = span_at(Period.DAY, zone, us("2018-11-04T12:00", zone))
    assert dates(span, zone) == ("2018-11-04 01:00", "2018-11-05 00:00")
    assert span_at(Period.DAY, zone, span.start_us - 1).end_us == span.start_us


def test_a_midnight_that_is_shown_twice_begins_the_day_once() -> None:
    zone = ZoneInfo("America/Havana")  # on 2018-11-04 clocks went from 01:00 back to 00:00
    first = span_at(Period.DAY, zone, us("2018-11-04T00:30", zone, fold=0))
    second = span_at(Period.DAY, zone, us("2018-11-04T00:30", zone, fold=1))
    assert first == second
    assert first.end_us == first.start_us + 25 * HOUR_US


def test_for_ever_has_no_end() -> None:
    assert span_at(Period.EVER, BERLIN, us("2026-11-22T12:00")) is EVER
    assert EVER.holds(10**18)


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", "Europe", "a\0b", "/etc/localtime", "x" * 300])
def test_a_zone_that_nobody_knows_is_none(name: str) -> None:
    assert zone_named(name) is None


def test_no_zone_is_utc() -> None:
    assert zone_named("") is UTC
    assert zone_named("UTC") is UTC


@given(
    st.sampled_from([p for p in Period if p is not Period.EVER]),
    st.sampled_from(
        ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Havana", "Asia/Kathmandu", "Africa/Cairo"]
    ),
    st.integers(-(10**18), 10**18),
)
def test_every_moment_lies_in_its_period_and_the_next_begins_where_it_ends(
    period: Period, name: str, at_us: int
) -> None:
    zone = zone_named(name)
    assert zone is not None
    span = span_at(period, zone, at_us)
    assert span.end_us is not None
    if us("1971-01-01T00:00") <= at_us < us("9000-01-01T00:00"):
        assert span.holds(at_us)
        assert span_at(period, zone, span.end_us).holds(span.end_us)
        if name != "Australia/Lord_Howe" or period is not Period.HOUR:  # shifts by half an hour
            assert span_at(period, zone, span.start_us) == span
            assert span_at(period, zone, span.end_us).start_us == span.end_us
