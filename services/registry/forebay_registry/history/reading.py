"""Questions about history: series and their points, in pages. Readers go by series and time through an index, over the
partitions that their span touches; hours that are not summed up yet are read from their minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.errors import BadInput, NotFound
from forebay_registry.history.grid import Grid, Kept, Resolution, grid
from forebay_registry.history.rollup import Energy
from forebay_registry.history.series import METRICS, Kind
from forebay_registry.history.store import Written
from forebay_registry.history.tables import history_hours_due, history_series
from forebay_registry.keeping.tables import SCHEMA

MOST_NAMES = 1_000
PAGE = 10_000
"""Numbers of one page, of however many series: what is read in one go holds up everything else for so long."""


@dataclass(frozen=True, slots=True)
class Question:
    kind: Kind
    names: Sequence[str]
    """Empty: all of that kind."""
    since: float
    until: float
    resolution_s: int = 0
    """0: what suits."""
    zone: str = ""
    """Of days; empty: UTC."""
    metrics: Sequence[str] = ()
    """Empty: all of that kind."""
    has_metrics: bool = True
    """False: energy only."""
    page: str = ""
    is_whole: bool = False
    """One point for all of the span."""


@dataclass(frozen=True, slots=True)
class Value:
    samples: int
    least: float | None
    mean: float | None
    most: float | None
    last: float | None


@dataclass(slots=True)
class Point:
    values: dict[str, Value] = field(default_factory=dict)
    """By metric; one that was not told is not there."""
    energy: Energy | None = None


@dataclass(frozen=True, slots=True)
class Found:
    ref: str
    name: str
    points: Mapping[int, Point]
    """By the place of the bucket in the grid. What is not there is a gap."""
    first: int
    last: int
    """The buckets that this page covers: from `first` to before `last`."""


@dataclass(frozen=True, slots=True)
class Page:
    grid: Grid
    metrics: tuple[str, ...]
    series: tuple[Found, ...]
    next: str
    """What to ask with for the rest; empty: this is all."""


class HistoryReader:
    def __init__(self, database: Written, clock: Clock, kept: Kept) -> None:
        self._database = database
        self._clock = clock
        self._kept = kept

    async def read(self, question: Question) -> Page:
        """Raises BadInput, NotFound, Unavailable."""
        cut = grid(
            question.since,
            question.until,
            question.resolution_s,
            question.zone,
            self._clock.now(),
            self._kept,
            is_whole=question.is_whole,
        )
        metrics = _metrics(question)
        start = _read_page(question.page)
        async with self._database.reading() as connection:
            # One picture: an hour that is summed up meanwhile must not be in both of its forms, or in none.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            series = await _series(connection, question)
            pieces, after = _pieces(list(series), cut.buckets, start, PAGE // max(3, len(metrics)))
            points: dict[int, dict[int, Point]] = {}
            for ids, first, last in pieces:
                found = await _points(connection, question.kind, ids, cut, first, last, metrics)
                for series_id, by_bucket in found.items():
                    points.setdefault(series_id, {}).update(by_bucket)
        told = tuple(
            Found(*series[one], points.get(one, {}), first, last) for ids, first, last in pieces for one in ids
        )
        return Page(cut, metrics, told, after)

    async def names(self, kind: Kind) -> list[str]:
        """Of the series of that kind, each once."""
        async with self._database.reading() as connection:
            return await _names(connection, kind)


async def _series(connection: AsyncConnection, question: Question) -> dict[int, tuple[str, str]]:
    """Id → (ref, name), by name. Raises NotFound for a name that there is not."""
    if len(question.names) > MOST_NAMES:
        raise BadInput(f"At most {MOST_NAMES} names at once.")
    table = history_series.c
    statement = select(table.id, table.ref, table.name).where(table.kind == question.kind)
    if question.names:
        statement = statement.where(table.name.in_(question.names))
    found = sorted((await connection.execute(statement)).all(), key=lambda row: (row.name, row.id))
    missing = [name for name in question.names if name not in {row.name for row in found}]
    if missing:
        near = get_close_matches(missing[0], await _names(connection, question.kind), n=3)
        hint = f" There are: {', '.join(near)}." if near else ""
        raise NotFound(f"There is no history of a {question.kind} {missing[0]!r}.{hint}")
    return {row.id: (row.ref, row.name) for row in found}


async def _names(connection: AsyncConnection, kind: Kind) -> list[str]:
    return sorted(set(await connection.scalars(select(history_series.c.name).where(history_series.c.kind == kind))))


Piece = tuple[list[int], int, int]
"""Series, and the buckets of theirs from the second number to before the third."""


def _pieces(ids: list[int], buckets: int, start: tuple[int, int] | None, most: int) -> tuple[list[Piece], str]:
    """What a page covers, and the name of the next one. One longer than a page comes in parts; short ones together."""
    place, bucket = 0, 0
    if start is not None:
        if start[0] not in ids or not 0 <= start[1] < buckets:
            raise BadInput("This page belongs to another question.")
        place, bucket = ids.index(start[0]), start[1]
    if buckets - bucket > most:
        return [([ids[place]], bucket, bucket + most)], f"{ids[place]}:{bucket + most}"
    pieces: list[Piece] = []
    if place < len(ids) and bucket:
        pieces.append(([ids[place]], bucket, buckets))
        place += 1
    room = (most - sum(last - first for _, first, last in pieces)) // buckets
    if together := ids[place : place + room]:
        pieces.append((together, 0, buckets))
    place += len(together)
    return pieces, f"{ids[place]}:0" if place < len(ids) else ""


def _read_page(page: str) -> tuple[int, int] | None:
    if not page:
        return None
    series, _, bucket = page.partition(":")
    if not (series.isdecimal() and bucket.isdecimal() and len(page) < 40):
        raise BadInput("This is not the name of a page.")
    return int(series), int(bucket)


def _metrics(question: Question) -> tuple[str, ...]:
    known = METRICS[question.kind]
    if not question.has_metrics:
        return ()
    for metric in question.metrics:
        if metric not in known:
            raise BadInput(f"A {question.kind} has no {metric!r}; there are {', '.join(known)}.")
    return tuple(m for m in known if m in question.metrics) or known


async def _points(
    connection: AsyncConnection,
    kind: Kind,
    ids: list[int],
    cut: Grid,
    first: int,
    last: int,
    metrics: tuple[str, ...],
) -> dict[int, dict[int, Point]]:
    edges = list(cut.edges[first : last + 1])
    source, due = _MINUTES, []
    if cut.resolution >= Resolution.HOUR:
        hour = history_hours_due.c.hour
        # The hours of a day in a zone of half hours begin half an hour before it.
        touched = hour > edges[0] - timedelta(hours=1), hour < edges[-1]
        due = list(await connection.scalars(select(hour).where(*touched).order_by(hour)))
        source = _HOURS_AND_DUE if due else _HOURS
    asked: dict[str, Any] = {"ids": ids, "edges": edges, "since": edges[0], "until": edges[-1]}
    if due:
        asked |= {"due": due, "first_due": due[0], "past_due": due[-1] + timedelta(hours=1)}
    found: dict[int, dict[int, Point]] = {}
    for row in await connection.execute(text(source + _ENERGY), asked):
        energy = Energy(row.gpu_wh, row.server_wh, row.idle_wh, row.measured_s, row.is_estimated)
        found.setdefault(row.series_id, {})[first + row.bucket - 1] = Point(energy=energy)
    if metrics:
        places = [METRICS[kind].index(metric) + 1 for metric in metrics]
        names = dict(zip(places, metrics, strict=True))
        for row in await connection.execute(text(source + _VALUES), asked | {"places": places}):
            point = found[row.series_id][first + row.bucket - 1]
            point.values[names[row.n]] = Value(row.samples, row.least, row.mean, row.most, row.last)
    return found


_ROW = "series_id, at, mins, means, maxs, lasts, gpu_wh, server_wh, idle_wh, measured_s, is_estimated"
_OF_THESE = "series_id = ANY(CAST(:ids AS int[])) AND at >= :since AND at < :until"
# The weight of a mean: in how many minutes it was told. Not how many samples it has: agents tell more often while something
# happens, and an hour must not look busier for it.
_FROM_MINUTES = (
    f"SELECT {_ROW}, CAST(samples AS int[]) AS samples, CAST(NULL AS smallint[]) AS minutes "
    f"FROM {SCHEMA}.history_minutes"
)
_FROM_HOURS = f"SELECT {_ROW}, samples, minutes FROM {SCHEMA}.history_hours"
_MINUTES = f"WITH source AS ({_FROM_MINUTES} WHERE {_OF_THESE})"
_HOURS = f"WITH source AS ({_FROM_HOURS} WHERE {_OF_THESE})"
_HOURS_AND_DUE = f"""
    WITH source AS (
        {_FROM_HOURS} WHERE {_OF_THESE} AND NOT at = ANY(CAST(:due AS timestamptz[]))
        UNION ALL
        {_FROM_MINUTES} WHERE {_OF_THESE} AND at >= :first_due AND at < :past_due
            AND date_trunc('hour', at, 'UTC') = ANY(CAST(:due AS timestamptz[]))
    )
"""
_BUCKET = "width_bucket(at, CAST(:edges AS timestamptz[]))"
_ENERGY = f"""
    SELECT series_id, {_BUCKET} AS bucket, sum(gpu_wh) AS gpu_wh, sum(server_wh) AS server_wh, sum(idle_wh) AS idle_wh,
        sum(measured_s) AS measured_s, bool_or(is_estimated) AS is_estimated
    FROM source GROUP BY series_id, bucket
"""
_VALUES = f"""
    SELECT series_id, {_BUCKET} AS bucket, n, sum(told) AS samples, min(least) AS least,
        sum(mean * coalesce(weight, 1)) / sum(coalesce(weight, 1)) AS mean, max(most) AS most,
        (array_agg(last ORDER BY at DESC))[1] AS last
    FROM source, unnest(source.samples, source.minutes, source.mins, source.means, source.maxs, source.lasts)
        WITH ORDINALITY AS one(told, weight, least, mean, most, last, n)
    WHERE n = ANY(CAST(:places AS int[])) AND mean IS NOT NULL
    GROUP BY series_id, bucket, n
"""
