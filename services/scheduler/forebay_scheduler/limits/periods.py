"""Calendar periods: when the hour, day, week, month or year began that a moment lies in, and when the next one begins,
by the clocks on the wall of a place; and what counts of a window without a calendar. Moments are microseconds since the
epoch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from forebay_scheduler.terms import Period

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HOUR_US = 3_600_000_000
_LAST_US = (datetime(9990, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The calendar ends soon after; clocks that show more are broken."""


@dataclass(frozen=True, slots=True)
class Span:
    start_us: int
    end_us: int | None
    """The first moment of the next one; None when there is none."""

    def holds(self, wall_us: int) -> bool:
        return self.start_us <= wall_us and (self.end_us is None or wall_us < self.end_us)


EVER = Span(0, None)


def span_at(period: Period, zone: tzinfo, wall_us: int) -> Span:
    """The period that this moment lies in. A day may have 23 hours, or 25; it begins when its date does."""
    if period is Period.EVER:
        return EVER
    wall_us = min(max(0, wall_us), _LAST_US)
    local = (_EPOCH + timedelta(microseconds=wall_us)).astimezone(zone)
    if period is Period.HOUR:
        # By the offset of this moment, so that the hour that clocks show twice is two hours.
        offset_us = (local.utcoffset() or timedelta()) // _MICROSECOND
        start_us = (wall_us + offset_us) // _HOUR_US * _HOUR_US - offset_us
        return Span(start_us, start_us + _HOUR_US)
    first, following = _dates(period, local.date())
    return Span(_begin_us(first, zone), _begin_us(following, zone))


STEPS = 24
"""Of a window: what was used in one of them counts until all of it is older than the window, so that within no window's
length more is spent than there is, and nothing counts for longer than the window and one step."""


def step_us(window_s: int) -> int:
    return window_s * 1_000_000 // STEPS


def span_of_window(window_s: int, wall_us: int) -> Span:
    """All steps that count at this moment; it ends when the next one begins."""
    step = step_us(window_s)
    current = max(0, wall_us) // step * step
    return Span(max(0, current - window_s * 1_000_000), current + step)


def zone_named(name: str) -> tzinfo | None:
    """None when this host knows no zone of this name."""
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # unknown, malformed, or a folder of the zone database
        return None


def moment_words(wall_us: int, zone: tzinfo) -> str:
    return f"{(_EPOCH + timedelta(microseconds=wall_us)).astimezone(zone):%Y-%m-%d %H:%M}"


def _dates(period: Period, day: date) -> tuple[date, date]:
    match period:
        case Period.WEEK:
            monday = day - timedelta(days=day.weekday())
            return monday, monday + timedelta(days=7)
        case Period.MONTH:
            first = day.replace(day=1)
            return first, (first + timedelta(days=31)).replace(day=1)
        case Period.YEAR:
            return date(day.year, 1, 1), date(day.year + 1, 1, 1)
        case _:
            return day, day + timedelta(days=1)


def _begin_us(day: date, zone: tzinfo) -> int:
    # Where clocks skip midnight, Python reads it by the offset before: that is the very moment of the skip. Where they
    # show it twice, the first is meant.
    return (datetime(day.year, day.month, day.day, tzinfo=zone) - _EPOCH) // _MICROSECOND
