"""History in Postgres: minutes are copied in, hours are summed up from them in the database, old partitions are dropped.

Each batch of minutes has an id: one whose commit was not answered can be written again and counts once. A minute that is
there already (a registry was restarted in it, or a counter told later of a gap) is merged with what is new, not replaced.
But what two registries have heard at the same time counts once: one that was cut off while another wrote adds nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import ForebayError, Unavailable
from forebay_registry.history import partitions
from forebay_registry.history.closing import with_idle
from forebay_registry.history.partitions import Partition
from forebay_registry.history.rollup import Energy, Minute, merge
from forebay_registry.history.series import Series
from forebay_registry.history.tables import history_flushes, history_hours_due, history_series
from forebay_registry.keeping.tables import SCHEMA

log = logging.getLogger(__name__)

_COLUMNS = (
    "series_id",
    "at",
    "samples",
    "mins",
    "means",
    "maxs",
    "lasts",
    "gpu_wh",
    "server_wh",
    "idle_wh",
    "measured_s",
    "is_estimated",
)
_BAD_VALUE = "22"
_REFUSED = (asyncpg.DataError, ValueError, OverflowError)
"""What Postgres, or the driver before it, says of a value that no column takes."""
_HOUR = timedelta(hours=1)
_LATE = timedelta(minutes=2)
"""After its end an hour is summed up: by then its last minute is written."""
_FLUSH_KEPT = timedelta(hours=2)
_MOST_IDS = 50_000
"""Of series, kept in memory; what is forgotten is asked for again."""
_SERIES_AT_ONCE = 500
"""Summed up by one statement, so that each is far from the limit of its time."""


class Written(Protocol):
    """Transactions of the registry; `forebay.database.Database` is one."""

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]: ...
    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]: ...


class NotWritten(ForebayError):
    """PostgreSQL refuses minutes of the history."""


class Superseded(ForebayError):
    """Another registry has written the history of this time."""


class HistoryStore:
    """Every method raises Unavailable while Postgres is away."""

    def __init__(self, database: Written) -> None:
        self._database = database
        self._run, self._since = uuid4(), datetime.max.replace(tzinfo=UTC)
        self._ids: dict[Series, tuple[int, str]] = {}
        self._partitions: set[Partition] = set()
        self._refused: set[datetime] = set()
        """Hours that Postgres does not sum up, in this process's time."""

    async def begin(self, ago_s: float) -> None:
        """What is written from now on was heard since `ago_s`."""
        async with self._database.reading() as connection:
            now = (await connection.execute(_CLOCK)).scalar_one()
        self._run, self._since = uuid4(), now - timedelta(seconds=ago_s)

    async def write(self, flush: UUID, minutes: Sequence[Minute], names: Callable[[Series], str]) -> None:
        """All or none, and once for each `flush`. `names`: what people call a series. No two of one series and time.

        Raises Superseded when another run has written since this one began or wrote last, and NotWritten."""
        with _not_now():
            await self._write_once(flush, minutes, names)

    async def _write_once(self, flush: UUID, minutes: Sequence[Minute], names: Callable[[Series], str]) -> None:
        ids = await self._ensure_series({minute.series for minute in minutes}, names)
        moments = {_moment(minute.at) for minute in minutes}
        await self._ensure({partitions.of_minutes(at) for at in moments} | {partitions.of_hours(at) for at in moments})
        by_key = {(ids[minute.series], _moment(minute.at)): minute for minute in minutes}
        try:
            self._since = await self._write(flush, by_key, is_merged=False)
        except asyncpg.UniqueViolationError:
            self._since = await self._write(flush, by_key, is_merged=True)
        except asyncpg.CheckViolationError as error:  # a partition that we knew is gone: somebody dropped it
            self._partitions.clear()
            raise Unavailable("A partition of the history is gone; it is made anew.") from error

    async def prepare(self, now: float) -> None:
        """Makes the partitions that will be needed next."""
        with _not_now():
            await self._ensure(partitions.needed(_moment(now)))

    async def _ensure(self, wanted: Iterable[Partition]) -> None:
        """Makes the partitions that are missing."""
        missing = set(wanted) - self._partitions
        if missing:
            async with self._database.writing() as connection:
                await partitions.make(connection, missing)
            self._partitions |= missing

    async def sum_up(self, now: float) -> int:
        """Sums up the hours that are over and have changed; how many."""
        with _not_now():
            return await self._sum_up(now)

    async def _sum_up(self, now: float) -> int:
        before = _moment(now) - _LATE - _HOUR
        due = history_hours_due.c.hour
        async with self._database.reading() as connection:
            hours = list(await connection.scalars(select(due).where(due <= before).order_by(due)))
            ids = list(await connection.scalars(select(history_series.c.id).order_by(history_series.c.id)))
        done = 0
        for hour in (hour for hour in hours if hour not in self._refused):
            try:
                with _not_now():
                    await self._sum_up_hour(hour, ids)
                done += 1
            except NotWritten as error:  # it stays as minutes, and the others do not wait for it
                self._refused.add(hour)
                fields = {"action": "hour_refused", "hour": hour.isoformat(), "why": error.message}
                log.error("an hour of the history is not summed up", extra=fields)
        return done

    async def _sum_up_hour(self, hour: datetime, ids: Sequence[int]) -> None:
        await self._ensure({partitions.of_hours(hour)})
        async with self._database.writing() as connection:
            # Taken first: it waits for a batch that is being written, and a later one marks the hour anew.
            await connection.execute(delete(history_hours_due).where(history_hours_due.c.hour == hour))
            for first in range(0, len(ids), _SERIES_AT_ONCE):
                of_these = {"hour": hour, "end": hour + _HOUR, "ids": ids[first : first + _SERIES_AT_ONCE]}
                await connection.execute(_FORGET_HOUR, of_these)
                await connection.execute(_SUM_UP, of_these)

    async def drop_old(self, now: float, minutes_s: float, hours_s: float) -> int:
        """Drops partitions in which everything is older than that; how many. Raises Unavailable also while somebody reads
        there for long."""
        with _not_now():
            return await self._drop_old(now, minutes_s, hours_s)

    async def _drop_old(self, now: float, minutes_s: float, hours_s: float) -> int:
        async with self._database.reading() as connection:
            # A clock that is ahead throws nothing away, unless Postgres's is ahead too.
            now = min(now, (await connection.execute(_CLOCK)).scalar_one().timestamp())
        dropped = 0
        for table, keep_s in (("history_minutes", minutes_s), ("history_hours", hours_s)):
            async with self._database.writing() as connection:
                dropped += await partitions.drop(connection, table, _moment(now - keep_s))
        self._partitions.clear()
        async with self._database.writing() as connection:
            old = history_flushes.c.at < _moment(now) - _FLUSH_KEPT
            await connection.execute(delete(history_flushes).where(old))
        return dropped

    async def _write(self, flush: UUID, minutes: Mapping[tuple[int, datetime], Minute], *, is_merged: bool) -> datetime:
        """When, by the database's clock."""
        async with self._database.writing() as connection:
            at: datetime = (await connection.execute(_CLOCK)).scalar_one()
            others = select(history_flushes.c.id).where(
                history_flushes.c.run != self._run, history_flushes.c.at > self._since
            )
            if (await connection.execute(others.limit(1))).first() is not None:
                raise Superseded
            began = insert(history_flushes).values(id=flush, run=self._run, at=at).on_conflict_do_nothing()
            if not (await connection.execute(began)).rowcount:
                return at
            hours = sorted({at.replace(minute=0) for _, at in minutes})
            if hours:
                marked = insert(history_hours_due).values([{"hour": hour} for hour in hours])
                # An update and not nothing: the row stays locked until the minutes are there, see `sum_up`.
                await connection.execute(
                    marked.on_conflict_do_update(index_elements=["hour"], set_={"hour": marked.excluded.hour})
                )
            if is_merged:
                minutes = {**minutes, **await _merged(connection, minutes)}
            driver: Any = (await connection.get_raw_connection()).driver_connection
            records = [_record(series, at, minute) for (series, at), minute in minutes.items()]
            await driver.copy_records_to_table("history_minutes", schema_name=SCHEMA, columns=_COLUMNS, records=records)
        return at

    async def _ensure_series(self, wanted: set[Series], names: Callable[[Series], str]) -> dict[Series, int]:
        """The ids; new ones and new names are written down."""
        changed = {s: name for s in wanted if (self._ids.get(s) or (0, ""))[1] != (name := names(s))}
        if changed:
            put = insert(history_series).values(
                [{"kind": s.kind, "ref": s.ref, "name": name} for s, name in sorted(changed.items(), key=_by_ref)]
            )
            put = put.on_conflict_do_update(index_elements=["kind", "ref"], set_={"name": put.excluded.name})
            async with self._database.writing() as connection:
                rows = await connection.execute(
                    put.returning(history_series.c.id, history_series.c.kind, history_series.c.ref)
                )
                ids = {(row.kind, row.ref): row.id for row in rows}
            if len(self._ids) > _MOST_IDS:  # engines may list other models all the time
                self._ids = {s: known for s, known in self._ids.items() if s in wanted}
            self._ids |= {s: (ids[s.kind, s.ref], name) for s, name in changed.items()}
        return {s: self._ids[s][0] for s in wanted}


async def _merged(
    connection: AsyncConnection, minutes: Mapping[tuple[int, datetime], Minute]
) -> dict[tuple[int, datetime], Minute]:
    """Takes out what is there already, and gives it joined with what is new."""
    keys = {"ids": [series for series, _ in minutes], "moments": [at for _, at in minutes]}
    rows = await connection.execute(_TAKE_OUT, keys)
    found: dict[tuple[int, datetime], Minute] = {}
    for row in rows.mappings():
        key = row["series_id"], row["at"]
        new = minutes[key]
        energy = Energy(*(row[name] for name in _COLUMNS[7:]))
        mins, means, maxs, lasts = (row[name] for name in ("mins", "means", "maxs", "lasts"))
        old = Minute(new.series, new.at, row["samples"], mins, means, maxs, lasts, energy)
        # Of both together: a part that came late knows its energy only.
        found[key] = with_idle(merge(old, new))
    return found


@contextmanager
def _not_now() -> Iterator[None]:
    """What Postgres refuses for reasons that are not the values' (a deadlock, a missing right) may pass, and disturbs
    nothing else: it is tried again, and the log says what it waits for."""
    try:
        yield
    except _REFUSED as error:
        raise NotWritten(f"PostgreSQL refuses minutes of the history: {error}") from error
    except (asyncpg.PostgresError, DBAPIError) as error:
        if str(getattr(getattr(error, "orig", None), "sqlstate", "")).startswith(_BAD_VALUE):
            raise NotWritten(f"PostgreSQL refuses minutes of the history: {error}") from error
        log.error("history cannot be written", extra={"action": "history_stuck", "why": str(error)})
        raise Unavailable(f"PostgreSQL does not take the history now: {error}") from error


def _record(series_id: int, at: datetime, minute: Minute) -> tuple[object, ...]:
    energy = minute.energy
    return (
        series_id,
        at,
        minute.samples,
        minute.mins,
        minute.means,
        minute.maxs,
        minute.lasts,
        energy.gpu_wh,
        energy.server_wh,
        energy.idle_wh,
        energy.measured_s,
        energy.is_estimated,
    )


_CLOCK = text("SELECT clock_timestamp()")
_TAKE_OUT = text(
    f"""
    DELETE FROM {SCHEMA}.history_minutes m
    USING unnest(CAST(:ids AS int[]), CAST(:moments AS timestamptz[])) AS key(series_id, at)
    WHERE m.series_id = key.series_id AND m.at = key.at
    RETURNING {", ".join(f"m.{name}" for name in _COLUMNS)}
    """
)
_FORGET_HOUR = text(
    f"DELETE FROM {SCHEMA}.history_hours WHERE at = :hour AND CAST(:end AS timestamptz) > at "
    "AND series_id = ANY(CAST(:ids AS int[]))"
)
# Each minute counts the same, however many samples it has: agents tell more often while something happens.
_SUM_UP = text(
    f"""
    WITH minutes AS (
        SELECT * FROM {SCHEMA}.history_minutes
        WHERE series_id = ANY(CAST(:ids AS int[])) AND at >= :hour AND at < :end
    ), told AS (
        SELECT series_id, n, sum(told) AS samples, count(mean) AS minutes, min(least) AS least, avg(mean) AS mean,
            max(most) AS most, (array_agg(last ORDER BY at DESC) FILTER (WHERE last IS NOT NULL))[1] AS last
        FROM minutes, unnest(samples, mins, means, maxs, lasts)
            WITH ORDINALITY AS one(told, least, mean, most, last, n)
        GROUP BY series_id, n
    ), taken AS (
        SELECT series_id, sum(gpu_wh) AS gpu_wh, sum(server_wh) AS server_wh, sum(idle_wh) AS idle_wh,
            sum(measured_s) AS measured_s, bool_or(is_estimated) AS is_estimated
        FROM minutes GROUP BY series_id
    ), numbers AS (
        SELECT series_id, array_agg(samples ORDER BY n) AS samples, array_agg(minutes ORDER BY n) AS minutes,
            array_agg(least ORDER BY n) AS mins, array_agg(mean ORDER BY n) AS means, array_agg(most ORDER BY n) AS maxs,
            array_agg(last ORDER BY n) AS lasts
        FROM told GROUP BY series_id
    )
    INSERT INTO {SCHEMA}.history_hours (series_id, at, samples, minutes, mins, means, maxs, lasts,
        gpu_wh, server_wh, idle_wh, measured_s, is_estimated)
    SELECT series_id, :hour, coalesce(samples, '{{}}'), coalesce(minutes, '{{}}'), coalesce(mins, '{{}}'),
        coalesce(means, '{{}}'), coalesce(maxs, '{{}}'), coalesce(lasts, '{{}}'),
        gpu_wh, server_wh, idle_wh, measured_s, is_estimated
    FROM taken LEFT JOIN numbers USING (series_id)
    """
)


def _by_ref(item: tuple[Series, str]) -> tuple[str, str]:
    return item[0].kind, item[0].ref


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
