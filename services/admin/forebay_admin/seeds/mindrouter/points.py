"""Points of history as MindRouter spaces them. Of 15 minutes and 6 hours we keep none: finer ones are put together. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from forebay.errors import BadInput
from forebay_admin.seeds.fields import Fields

RESOLUTIONS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "6h": 21_600, "1d": 86_400}
KEPT = {60: 60, 300: 300, 900: 300, 3600: 3600, 21_600: 3600, 86_400: 86_400}
"""Asked for → what it is made of. Seconds."""
RANGES = {"1h": 1, "6h": 6, "24h": 24, "7d": 168, "30d": 720}
MOST_POINTS = 20_000
"""Of one series."""
MOST_AT_ONCE = 100_000
"""Of all together."""


@dataclass(frozen=True, slots=True)
class Span:
    since: datetime
    until: datetime
    resolution: str

    @property
    def step_s(self) -> int:
        return RESOLUTIONS[self.resolution]


@dataclass(frozen=True, slots=True)
class Value:
    mean: float
    least: float
    most: float


Points = Mapping[int, Value]
"""When it begins, in seconds since the epoch → value."""


def asked_span(query: Fields, now: datetime, *, usual: str = "1h", resolution: str = "5m") -> Span:
    """Raises BadFields, BadInput."""
    hours = query.text("range")
    start, end = query.moment("start"), query.moment("end")
    resolution = query.word("resolution", tuple(RESOLUTIONS), resolution)
    if hours:
        query.word("range", tuple(RANGES), usual)
    query.done()
    if hours or (start is None and end is None):
        span = Span(now - timedelta(hours=RANGES[hours or usual]), now, resolution)
    else:
        until = end or now
        first = datetime.min.replace(tzinfo=until.tzinfo) + timedelta(hours=1)
        span = Span(start or max(until, first) - timedelta(hours=1), until, resolution)
    if span.since >= span.until:
        raise BadInput("start is not before end.")
    if (span.until - span.since).total_seconds() / span.step_s > MOST_POINTS:
        raise BadInput(f"These are more than {MOST_POINTS} points: take a coarser resolution.")
    return span


def demand_few(span: Span, series: int) -> None:
    """Raises BadInput."""
    points = (span.until - span.since).total_seconds() / KEPT[span.step_s] * series
    if points > MOST_AT_ONCE:
        raise BadInput(
            f"These are more than {MOST_AT_ONCE} points of {series} series: take a shorter time, a coarser resolution, or "
            "one of them alone."
        )


def gathered(points: Points, step_s: int) -> dict[int, Value]:
    """One value for each `step_s`."""
    parts: dict[int, list[Value]] = {}
    for at, value in points.items():
        parts.setdefault(at // step_s * step_s, []).append(value)
    return {
        at: Value(sum(v.mean for v in held) / len(held), min(v.least for v in held), max(v.most for v in held))
        for at, held in sorted(parts.items())
    }


def together(series: Iterable[Points], *, adds_up: bool) -> dict[int, Value]:
    """Of several things at once: their sum, or their mean."""
    parts: dict[int, list[Value]] = {}
    for points in series:
        for at, value in points.items():
            parts.setdefault(at, []).append(value)
    told = {}
    for at, held in sorted(parts.items()):
        by = 1 if adds_up else len(held)
        told[at] = Value(
            sum(value.mean for value in held) / by,
            sum(value.least for value in held) / by,
            sum(value.most for value in held) / by,
        )
    return told


def of_column(at_us: Sequence[int], means: Sequence[float], mins: Sequence[float], maxs: Sequence[float]) -> Points:
    """Without those that nobody knows."""
    return {
        at // 1_000_000: Value(mean, least, most)
        for at, mean, least, most in zip(at_us, means, mins, maxs, strict=True)
        if not math.isnan(mean)
    }
