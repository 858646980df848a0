"""Admin counts what was spent in the periods in which the scheduler spends it: both find the same ones, also where clocks
are set forward or back, by half an hour, or over a whole day."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from forebay_admin.quotas import periods as admin
from forebay_scheduler import terms
from forebay_scheduler.limits import periods as scheduler

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
CHANGES = (
    ("Europe/Berlin", "2027-03-28T01:00"),
    ("Europe/Berlin", "2027-10-31T01:00"),
    ("America/New_York", "2027-03-14T07:00"),
    ("America/New_York", "2027-11-07T06:00"),
    ("Australia/Lord_Howe", "2027-04-03T15:00"),
    ("Australia/Lord_Howe", "2027-10-02T15:30"),
    ("America/Sao_Paulo", "2018-11-04T03:00"),
    ("America/Havana", "2018-11-04T05:00"),
    ("Pacific/Apia", "2011-12-30T10:00"),
    ("Pacific/Kwajalein", "1993-08-21T12:00"),
)


def us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_both_find_the_same_periods_around_a_change_of_the_clocks_and_each_day_begins_where_the_last_ended(
    zone: str, change: str
) -> None:
    place = scheduler.zone_named(zone)
    assert place is not None
    days = set()
    for quarter in range(-120, 120):
        now = at(change) + quarter * QUARTER
        for period in admin.Period:
            mine = admin.span_of(period, zone, now)
            theirs = scheduler.span_at(terms.Period(period.value), place, us(now))
            assert us(mine.since) == theirs.start_us, (period, now)
            assert (us(mine.until) if mine.until is not None else None) == theirs.end_us, (period, now)
            assert theirs.holds(us(now)), (period, now)
            if period is admin.Period.DAY:
                days.add(theirs)
    in_order = sorted(days, key=lambda day: day.start_us)
    for earlier, later in itertools.pairwise(in_order):
        assert earlier.end_us == later.start_us, "no moment is in two days, and none in no day"


@pytest.mark.parametrize(
    ("zone", "now", "hours"),
    [
        ("Europe/Berlin", "2027-03-28T12:00", 23),
        ("Europe/Berlin", "2027-10-31T12:00", 25),
        ("Australia/Lord_Howe", "2027-04-03T20:00", 24.5),
        ("Australia/Lord_Howe", "2027-10-02T20:00", 23.5),
        ("Pacific/Apia", "2011-12-30T12:00", 24),  # the 31st: there was no 30th
    ],
)
def test_a_day_is_as_long_as_the_clocks_of_its_zone_make_it(zone: str, now: str, hours: float) -> None:
    span = admin.span_of(admin.Period.DAY, zone, at(now))
    assert span.until is not None
    assert span.until - span.since == timedelta(hours=hours)


@pytest.mark.parametrize("window_s", [3600, 86_400, 7 * 86_400, 366 * 86_400])
def test_both_move_a_window_by_the_same_steps(window_s: int) -> None:
    assert admin.STEPS == scheduler.STEPS
    for quarter in range(-50, 50):
        now = at("2027-03-28T01:00") + quarter * QUARTER + timedelta(microseconds=quarter)
        mine = admin.span_of_window(window_s, now)
        assert us(mine.since) == scheduler.span_of_window(window_s, us(now)).start_us
    assert us(EPOCH + admin.step_of(window_s)) == scheduler.step_us(window_s)
