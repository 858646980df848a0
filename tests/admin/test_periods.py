"""When the period of a budget begins and ends, by the calendar on somebody's wall."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import BadInput
from forebay_admin.quotas.periods import Period, span_of, zone_named

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "zone", "now", "since", "until"),
    [
        (Period.HOUR, "UTC", "2027-01-15T08:59:59", "2027-01-15T08:00", "2027-01-15T09:00"),
        (Period.HOUR, "Asia/Kathmandu", "2027-01-15T08:20", "2027-01-15T08:15", "2027-01-15T09:15"),
        (Period.DAY, "Europe/Berlin", "2027-01-15T23:30", "2027-01-15T23:00", "2027-01-16T23:00"),
        (Period.DAY, "Europe/Berlin", "2027-03-28T12:00", "2027-03-27T23:00", "2027-03-28T22:00"),
        (Period.WEEK, "UTC", "2027-01-17T12:00", "2027-01-11T00:00", "2027-01-18T00:00"),
        (Period.MONTH, "Europe/Berlin", "2027-10-31T23:30", "2027-10-31T23:00", "2027-11-30T23:00"),
        (Period.MONTH, "UTC", "2027-12-31T23:59", "2027-12-01T00:00", "2028-01-01T00:00"),
        (Period.YEAR, "America/New_York", "2028-01-01T03:00", "2027-01-01T05:00", "2028-01-01T05:00"),
    ],
)
def test_a_period_is_that_of_the_calendar(period: Period, zone: str, now: str, since: str, until: str) -> None:
    span = span_of(period, zone, at(now))
    assert (span.since, span.until) == (at(since), at(until))


def test_a_day_that_has_no_midnight_begins_when_the_clock_is_set_forward() -> None:
    span = span_of(Period.DAY, "America/Sao_Paulo", at("2018-11-04T12:00"))
    assert (span.since, span.until) == (at("2018-11-04T03:00"), at("2018-11-05T02:00"))


def test_what_lasts_for_ever_has_no_end() -> None:
    assert span_of(Period.EVER, "UTC", at("2027-01-15T00:00")).until is None


@given(
    st.sampled_from([p for p in Period if p is not Period.EVER]),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)),
)
def test_every_moment_is_in_its_own_period_and_the_next_begins_where_it_ends(
    period: Period, zone: str, now: datetime
) -> None:
    span = span_of(period, zone, now)
    assert span.until is not None
    assert span.since <= now < span.until
    assert span_of(period, zone, span.since).since == span.since
    if period is not Period.HOUR:  # an hour that the clock is set back in is there twice
        assert span_of(period, zone, span.until).since == span.until
        assert span_of(period, zone, span.until - timedelta(microseconds=1)).since == span.since


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Berlin", "Europe/Berlin"),
        ("europe/berlin", "Europe/Berlin"),
        ("Europe/Belrin", "Europe/Berlin"),
        ("New York", "America/New_York"),
        ("Amerika/New_York", "America/New_York"),
    ],
)
def test_a_zone_that_there_is_not_is_refused_with_those_that_were_meant(name: str, near: str) -> None:
    with pytest.raises(BadInput, match=f"There is no time zone {name}; did you mean .*{near}"):
        zone_named(name)


def test_a_zone_that_nothing_is_near_to_is_refused_with_an_example() -> None:
    with pytest.raises(BadInput, match="write it as Europe/Berlin"):
        zone_named("xyzzy-42")
    with pytest.raises(BadInput):
        zone_named("../../etc/passwd")


def test_a_zone_that_this_machine_no_longer_knows_is_utc_for_what_was_kept_with_it() -> None:
    now = at("2027-01-15T12:00")
    assert span_of(Period.DAY, "Mars/Olympus", now) == span_of(Period.DAY, "UTC", now)
