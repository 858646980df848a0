"""Into which pieces a span of time is cut, and what may be asked for. Pure.

Minutes, hours and what lies between them begin where UTC's do; days begin where a time zone's do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from enum import IntEnum
from zoneinfo import ZoneInfo, available_timezones

from forebay.errors import BadInput

MOST_BUCKETS = 25_000
"""Of one series in one question: 17 days of minutes."""
USUAL_BUCKETS = 600
"""The finest resolution with no more than this is taken when none is asked for."""


class Resolution(IntEnum):
    """Seconds."""

    MINUTE = 60
    FIVE_MINUTES = 300
    HOUR = 3600
    DAY = 86_400


@dataclass(frozen=True, slots=True)
class Kept:
    """How long what is kept."""

    minutes_s: float
    hours_s: float


@dataclass(frozen=True, slots=True)
class Grid:
    resolution: Resolution
    edges: tuple[datetime, ...]
    """The beginnings of the buckets, and at last the end of the last one; UTC."""

    @property
    def buckets(self) -> int:
        return len(self.edges) - 1


def grid(
    since: float, until: float, resolution_s: int, zone: str, now: float, kept: Kept, *, is_whole: bool = False
) -> Grid:
    """The buckets that touch the span; seconds since the epoch. `resolution_s` of 0: what suits. `is_whole`: one bucket, of
    whole hours. Raises BadInput."""
    if since < 0 or until < 0:
        raise BadInput("A span of time needs a beginning and an end after 1970.")
    if since >= until:
        raise BadInput(f"The span ends before it begins: from {_said(since)} to {_said(until)}.")
    if since >= now:
        raise BadInput(f"There is no history of the future: {_said(since)} has not come yet.")
    until = min(until, now + Resolution.DAY)
    if now - since > kept.hours_s + 2 * Resolution.DAY:
        raise BadInput(f"History is kept for {_days(kept.hours_s)}; {_said(since)} is longer ago.")
    place = _zone(zone)
    if is_whole:
        edges = _even(since, until, Resolution.HOUR)
        return Grid(Resolution.HOUR, (edges[0], edges[-1]))
    resolution = _resolution(since, until, resolution_s, now, kept)
    if (until - since) / resolution > MOST_BUCKETS:
        raise BadInput(
            f"That would be more than {MOST_BUCKETS} points a series: ask for a shorter time, or for a coarser resolution."
        )
    if resolution is Resolution.DAY:
        return Grid(resolution, _days_of(since, until, place))
    return Grid(resolution, _even(since, until, resolution))


def _resolution(since: float, until: float, asked_s: int, now: float, kept: Kept) -> Resolution:
    has_minutes = now - since <= kept.minutes_s + Resolution.DAY
    if asked_s:
        if asked_s not in set(Resolution):
            raise BadInput(f"A resolution is 1m, 5m, 1h or 1d, not {asked_s} s.")
        asked = Resolution(asked_s)
        if asked < Resolution.HOUR and not has_minutes:
            raise BadInput(f"Minutes are kept for {_days(kept.minutes_s)}: ask for a resolution of 1h or 1d.")
        return asked
    for resolution in Resolution:
        if resolution < Resolution.HOUR and not has_minutes:
            continue
        if (until - since) / resolution <= USUAL_BUCKETS:
            return resolution
    return Resolution.DAY


def _even(since: float, until: float, step: Resolution) -> tuple[datetime, ...]:
    first, last = int(since // step) * step, -int(-until // step) * step
    return tuple(datetime.fromtimestamp(at, UTC) for at in range(first, last + step, step))


def _days_of(since: float, until: float, place: tzinfo) -> tuple[datetime, ...]:
    day = datetime.fromtimestamp(since, place).date()
    edges: list[datetime] = []
    while True:
        # By the calendar and not by adding 24 hours: a day on which clocks change has 23 or 25 of them.
        edges.append(datetime(day.year, day.month, day.day, tzinfo=place).astimezone(UTC))
        if edges[-1].timestamp() >= until:
            return tuple(edges)
        day += timedelta(days=1)


def _zone(name: str) -> tzinfo:
    if not name:
        return UTC
    names = available_timezones()
    if name not in names:
        near = get_close_matches(name, names, n=1)
        raise BadInput(
            f"{name!r} is not a time zone; write one such as Europe/Berlin."
            + (f" Did you mean {near[0]}?" if near else "")
        )
    return ZoneInfo(name)


def _said(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{at:.0f} s"


def _days(seconds: float) -> str:
    return f"{seconds / Resolution.DAY:.0f} days"
