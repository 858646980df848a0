"""When the period of a budget began and when it ends, by the calendar of a time zone, or as a window that moves. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from forebay.errors import BadInput

DEFAULT_ZONE = "UTC"

_NO_PLACES = frozenset({"Factory", "localtime"})
"""Names in some machines' time zone data that mean nothing elsewhere."""


class Period(StrEnum):
    EVER = "ever"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    """From Monday."""
    MONTH = "month"
    YEAR = "year"


@dataclass(frozen=True, slots=True)
class Span:
    since: datetime
    until: datetime | None
    """None: it does not end."""


_FIRST = datetime(1970, 1, 1, tzinfo=UTC)


def span_of(period: Period, zone: str, now: datetime) -> Span:
    """The period in which `now` is, in UTC. Where a clock is set forward past midnight, the day begins at what would have
    been midnight, as the zone's rules before the change have it. A zone that this machine does not know any more is UTC, as
    it is for the scheduler; who names a new one is refused by `zone_named`."""
    if period is Period.EVER:
        return Span(_FIRST, None)
    place = _zone_or_utc(zone)
    local = now.astimezone(place)
    if period is Period.HOUR:
        # By the clock on the wall, whose hour that is set back comes twice and is two hours.
        since = now - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        return Span(since.astimezone(UTC), (since + timedelta(hours=1)).astimezone(UTC))
    first, step = _CALENDAR[period]
    # Of a midnight that clocks show twice the first is meant, also in the hour after the second.
    begins = first(local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0))
    return Span(_at(begins, place), _at(step(begins), place))


def span_before(period: Period, zone: str, now: datetime) -> Span:
    """The period before that in which `now` is. Not for EVER."""
    return span_of(period, zone, span_of(period, zone, now).since - timedelta(microseconds=1))


STEPS = 24
"""In which a window moves, as the scheduler has it too: what was used in one of them counts until all of it is older than
the window. They begin at multiples of their length since 1970."""
LONGEST_WINDOW = timedelta(days=366)
_HOUR = timedelta(hours=1)


def span_of_window(window_s: int, now: datetime) -> Span:
    """All steps that count now."""
    step = step_of(window_s)
    return Span(now - (now - _FIRST) % step - timedelta(seconds=window_s), None)


def step_of(window_s: int) -> timedelta:
    return timedelta(seconds=window_s) / STEPS


def demand_window(window_s: int) -> int | None:
    """In seconds; None for 0. Raises BadInput."""
    if not window_s:
        return None
    window = timedelta(seconds=window_s)
    if window % _HOUR or window > LONGEST_WINDOW:
        raise BadInput(f"A window is of whole hours, at most {LONGEST_WINDOW.days} days.")
    return window_s


def zone_named(name: str) -> tzinfo:
    """Raises BadInput for a zone that this machine does not know."""
    if name == DEFAULT_ZONE:
        return UTC
    if name not in _zones():
        raise BadInput(f"There is no time zone {name}{_near(name)}.")
    return ZoneInfo(name)


def _zone_or_utc(name: str) -> tzinfo:
    try:
        return zone_named(name)
    except BadInput:
        return UTC


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_PLACES


def _near(name: str) -> str:
    zones = _zones()
    if not zones:
        return " here: this machine has no time zone data (the package tzdata)"
    wanted = name.strip().replace(" ", "_").lower()
    by_lower = {zone.lower(): zone for zone in sorted(zones)}
    cities = {lower.rpartition("/")[2]: lower for lower in by_lower}
    near = [cities[wanted]] if wanted in cities else []
    near += get_close_matches(wanted, by_lower, n=3, cutoff=0.75)
    near += [cities[city] for city in get_close_matches(wanted.rpartition("/")[2], cities, n=3, cutoff=0.75)]
    if not near:
        return "; write it as Europe/Berlin or America/New_York"
    return f"; did you mean {' or '.join(by_lower[one] for one in list(dict.fromkeys(near))[:3])}?"


def _at(local: datetime, place: tzinfo) -> datetime:
    return local.replace(tzinfo=place).astimezone(UTC)


def _next_month(first: datetime) -> datetime:
    return (first + timedelta(days=32)).replace(day=1)


_Move = Callable[[datetime], datetime]
_CALENDAR: Mapping[Period, tuple[_Move, _Move]] = {
    Period.DAY: (lambda at: at, lambda at: at + timedelta(days=1)),
    Period.WEEK: (lambda at: at - timedelta(days=at.weekday()), lambda at: at + timedelta(days=7)),
    Period.MONTH: (lambda at: at.replace(day=1), _next_month),
    Period.YEAR: (lambda at: at.replace(month=1, day=1), lambda at: at.replace(year=at.year + 1)),
}
