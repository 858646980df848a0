"""History as rows: each series' points of each time, read from the registry's answers, page after page."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from forebay.wire.v1 import history_pb2 as wire

STATISTICS = ("min", "mean", "max", "last")
ENERGIES = ("gpu_wh", "server_wh", "idle_wh", "measured_s")

Row = Mapping[str, Any]
TEXTS = ("kind", "name", "id")
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Point:
    at_us: int
    values: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Metric → its STATISTICS; one that was not told is not there."""
    samples: dict[str, int] = field(default_factory=dict)
    energies: tuple[float | None, ...] = (None,) * len(ENERGIES)
    is_estimated: bool = False


def points_of(series: wire.HistorySeries) -> Iterator[Point]:
    """What is known of it, the oldest first."""
    for i, at_us in enumerate(series.at_us):
        told = [column for column in series.columns if column.samples[i]]
        yield Point(
            at_us,
            {c.metric: tuple(_known(numbers[i]) for numbers in (c.mins, c.means, c.maxs, c.lasts)) for c in told},
            {c.metric: c.samples[i] for c in told},
            tuple(_known(getattr(series, name)[i]) for name in ENERGIES),
            series.estimated[i],
        )


def with_gaps(points: Iterable[Point], from_us: int, to_us: int, resolution_s: int, zone: str) -> list[Point]:
    """With an empty point for each time of which nothing is known."""
    known = {point.at_us: point for point in points}
    return [known.get(at_us, Point(at_us)) for at_us in _times(from_us, to_us, resolution_s, zone)]


async def pages_of(
    ask: Callable[[wire.ReadHistoryRequest], Awaitable[wire.ReadHistoryResponse]], request: wire.ReadHistoryRequest
) -> AsyncGenerator[wire.ReadHistoryResponse, None]:
    """All of the answer. `request` is changed on the way."""
    while True:
        answer = await ask(request)
        # Settled once: what suits the span is the same on each page, also when the clock has gone on.
        request.resolution_s = answer.resolution_s
        yield answer
        if not answer.next_page:
            return
        request.page = answer.next_page


def columns_of(metrics: Sequence[str]) -> list[str]:
    """Of every format: one row for each series and time."""
    told = [f"{metric}_{statistic}" for metric in metrics for statistic in (*STATISTICS, "samples")]
    return ["at", *TEXTS, *told, *(f"energy_{name}" for name in ENERGIES), "energy_estimated"]


def row_of(point: Point, kind: str, name: str, series_id: str, metrics: Sequence[str]) -> Row:
    """What is not known is None. `at_us` stands for `at`."""
    row: dict[str, Any] = {"at_us": point.at_us, "kind": kind, "name": name, "id": series_id}
    for metric in metrics:
        told = point.values.get(metric, (None,) * len(STATISTICS))
        row |= {f"{metric}_{statistic}": number for statistic, number in zip(STATISTICS, told, strict=True)}
        row[f"{metric}_samples"] = point.samples.get(metric, 0)
    row |= {f"energy_{energy}": wh for energy, wh in zip(ENERGIES, point.energies, strict=True)}
    row["energy_estimated"] = point.is_estimated
    return row


def rows_of(page: wire.ReadHistoryResponse, kind: str, metrics: Sequence[str]) -> Iterator[Row]:
    """`kind`: the word for what it is the history of."""
    for series in page.series:
        for point in points_of(series):
            yield row_of(point, kind, series.name, series.id, metrics)


def _times(from_us: int, to_us: int, resolution_s: int, zone: str) -> Iterator[int]:
    if resolution_s != _DAY_S:
        yield from range(from_us, to_us, resolution_s * 1_000_000)
        return
    place = ZoneInfo(zone) if zone else UTC
    day = datetime.fromtimestamp(from_us / 1_000_000, UTC).astimezone(place).date()
    while True:
        # By the calendar: a day on which clocks change has 23 or 25 hours.
        at_us = round(datetime(day.year, day.month, day.day, tzinfo=place).timestamp() * 1_000_000)
        if at_us >= to_us:
            return
        yield at_us
        day += timedelta(days=1)


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number
