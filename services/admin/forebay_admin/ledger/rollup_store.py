"""The ledger summed up in Postgres, by minute, hour and day. A span that rows were entered in is deleted and made again
whole, in one transaction with what says that it was touched; so sums are those of the rows whatever dies at which
moment.

Whoever enters rows says in the same transaction which minutes it touched (`touch`). Summing up looks at everything as it
was at one moment and deletes the notes that it saw: a row that it did not see has a note that it did not see either."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database
from forebay_admin.ledger.key_uses import note_uses
from forebay_admin.ledger.partitions import LEDGER, Length, Partitioned, make_partitions
from forebay_admin.ledger.rollup_rules import Touched, source_of
from forebay_admin.ledger.usage_pieces import Standing
from forebay_admin.ledger.usage_sums import COLUMNS, Column, Cut, Source, Span
from forebay_admin.tables import SCHEMA

SUMS: dict[Span, Partitioned] = {
    Span.MINUTE: Partitioned("usage_minutes", Length.DAY),
    Span.HOUR: Partitioned("usage_hours", Length.MONTH),
    Span.DAY: Partitioned("usage_days", Length.YEAR),
}
LEDGER_WORD = "ledger"
_LOCK = 0x464F5247  # any number; every admin replica uses this one, so that one of them sums up at a time
_CHANGED_MEANWHILE = "40001"
"""What Postgres says where another transaction changed what this one saw."""
_MOST = 2**63 - 1

_DAY_OF_ROW = timedelta(days=1)
"""A row's day comes from its ledger id, which is made within a day of when it began: `usage_rows` takes no other."""


def _if(condition: str) -> str:
    return f"CAST(CAST({condition} AS integer) AS bigint)"


_OF_ROW: dict[str, str] = {
    "requests": "CAST(1 AS bigint)",
    "finished": _if("outcome = 'finished'"),
    "refused": _if("outcome = 'refused'"),
    "failed": _if("outcome IN ('failed', 'gateway_lost')"),
    "cancelled": _if("outcome = 'cancelled'"),
    "prompt_tokens": "prompt_tokens",
    "cached_prompt_tokens": "cached_prompt_tokens",
    "completion_tokens": "completion_tokens",
    "cost_micros": "coalesce(cost_micros, 0)",
    "unbilled": _if("cost_micros IS NULL"),
    "queue_ms": "queue_ms",
    "most_queue_ms": "queue_ms",
    "answered": _if("ttft_ms IS NOT NULL"),
    "ttft_ms": "coalesce(ttft_ms, 0)",
    "most_ttft_ms": "coalesce(ttft_ms, 0)",
    "duration_ms": "duration_ms",
    "most_duration_ms": "duration_ms",
}
NUMBERS = tuple(_OF_ROW)
"""The columns of a sum, in their order."""
_LARGEST = frozenset(name for name in NUMBERS if name.startswith("most_"))
"""Of which the largest counts; the others are added up."""


def of_row(number: str) -> str:
    """What a row of the ledger adds to it, as SQL."""
    return _OF_ROW[number]


def together(number: str, expression: str, add: str = "sum") -> str:
    """Of several rows, or of several sums. `add`: the aggregate that adds up."""
    return f"max({expression})" if number in _LARGEST else f"{add}({expression})"


def held(expression: str) -> str:
    """No engine's nonsense may stop the summing up: what is more than a column holds is told as the most it holds."""
    return f"CAST(least(coalesce({expression}, 0), {_MOST}) AS bigint)"


async def touch(connection: AsyncConnection, minutes: Collection[datetime]) -> None:
    """In the transaction that enters rows which began in these minutes."""
    await _note(connection, Span.MINUTE, minutes)


async def standing(connection: AsyncConnection) -> Standing:
    """As the connection's transaction sees it."""
    touched: dict[Span, set[datetime]] = {}
    for row in await connection.execute(text(f"SELECT DISTINCT span, at FROM {SCHEMA}.usage_touched")):
        touched.setdefault(Span(row.span), set()).add(row.at)
    kept = await connection.execute(text(f"SELECT what, since FROM {SCHEMA}.usage_kept"))
    return Standing(touched, {None if row.what == LEDGER_WORD else Span(row.what): row.since for row in kept})


async def see_one_moment(connection: AsyncConnection) -> None:
    """The first words of a transaction whose queries must agree with each other."""
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


class RollupStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def touched(self) -> list[Touched]:
        """Raises Unavailable."""
        async with self._database.reading() as connection:
            rows = await connection.execute(
                text(
                    f"SELECT span, at, min(made_at) AS since FROM {SCHEMA}.usage_touched GROUP BY span, at ORDER BY at"
                )
            )
            return [Touched(Span(row.span), row.at, row.since) for row in rows]

    async def sum_up(self, span: Span, at: Sequence[datetime]) -> bool:
        """Makes these anew. False: another replica is at it, or came between; nothing is changed. Raises Unavailable."""
        await self._prepare(span, at)
        try:
            async with self._database.writing() as connection:
                await see_one_moment(connection)
                if not await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}):
                    return False
                await self._sum_up(connection, span, at)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _CHANGED_MEANWHILE:
                raise
            return False
        return True

    async def _sum_up(self, connection: AsyncConnection, span: Span, at: Sequence[datetime]) -> None:
        await connection.execute(
            text(f"DELETE FROM {SCHEMA}.usage_touched WHERE span = :span AND at = ANY(CAST(:at AS timestamptz[]))"),
            {"span": span.value, "at": list(at)},
        )
        kept = (await standing(connection)).kept
        by_source: dict[Source, list[datetime]] = {}
        for one in at:
            can_be, source = source_of(span, one, kept)
            if can_be:
                by_source.setdefault(source, []).append(one)
        for source, mine in by_source.items():
            # Late rows of a time whose sums of this length were dropped count in the longer ones.
            here = [one for one in mine if span not in kept or one >= kept[span]]
            if here:
                await _make(connection, span, source, here)
                if span is Span.MINUTE:
                    await note_uses(connection, here)
            if span is not Span.DAY:
                longer = Span.HOUR if span is Span.MINUTE else Span.DAY
                await _note(connection, longer, {longer.of(one) for one in mine})

    async def mend(self, since: datetime, until: datetime) -> int:
        """Compares how many rows of the ledger began in each minute with its sum, and notes those that differ as
        touched: for rows that nobody told of, as a replica of the version before enters them. How many differed. Raises
        Unavailable."""
        async with self._database.writing() as connection:
            await see_one_moment(connection)
            result = await connection.execute(text(_MEND), bounds(since, until))
            return result.rowcount

    async def _prepare(self, span: Span, at: Iterable[datetime]) -> None:
        async with self._database.writing() as connection:
            await make_partitions(connection, SUMS[span], {one.date() for one in at})


_MEND = f"""
    INSERT INTO {SCHEMA}.usage_touched (span, at)
    SELECT 'minute', differing.at FROM (
        SELECT at FROM (
            SELECT date_trunc('minute', started_at, 'UTC') AS at, count(*) AS n FROM {SCHEMA}.{LEDGER.table}
            WHERE day BETWEEN :first_day AND :last_day AND started_at >= :since AND started_at < :until GROUP BY 1
        ) AS counted FULL JOIN (
            SELECT at, sum(requests) AS n FROM {SCHEMA}.usage_minutes
            WHERE cut = 'whole' AND at >= :since AND at < :until GROUP BY 1
        ) AS summed USING (at)
        WHERE counted.n IS DISTINCT FROM summed.n
    ) AS differing
    WHERE NOT EXISTS (SELECT FROM {SCHEMA}.usage_touched AS known WHERE known.span = 'minute' AND known.at = differing.at)
"""


async def _note(connection: AsyncConnection, span: Span, at: Collection[datetime]) -> None:
    await connection.execute(
        text(
            f"INSERT INTO {SCHEMA}.usage_touched (span, at) "
            "SELECT CAST(:span AS text), at FROM unnest(CAST(:at AS timestamptz[])) AS touched (at)"
        ),
        {"span": span.value, "at": sorted(at)},
    )


async def _make(connection: AsyncConnection, span: Span, source: Source, at: Sequence[datetime]) -> None:
    table = f"{SCHEMA}.{SUMS[span].table}"
    asked = {"at": list(at), **bounds(min(at), max(at) + span.length)}
    await connection.execute(text(f"DELETE FROM {table} WHERE at = ANY(CAST(:at AS timestamptz[]))"), {"at": list(at)})
    columns, numbers = ", ".join(Column), ", ".join(NUMBERS)
    if source is None:
        when, place, by = "started_at", f"{SCHEMA}.{LEDGER.table}", "day BETWEEN :first_day AND :last_day"
        sums = [together(number, of_row(number)) for number in NUMBERS]
    else:
        when, place, by = "at", f"{SCHEMA}.{SUMS[source].table}", "cut = 'whole'"
        sums = [together(number, number) for number in NUMBERS]
        del asked["first_day"], asked["last_day"]
    begins = f"date_trunc('{span.value}', {when}, 'UTC')"
    await connection.execute(
        text(
            f"INSERT INTO {table} (at, cut, {columns}, {numbers}) "
            f"SELECT {begins}, '{Cut.WHOLE}', {columns}, {', '.join(map(held, sums))} FROM {place} "
            f"WHERE {by} AND {when} >= :since AND {when} < :until AND {begins} = ANY(CAST(:at AS timestamptz[])) "
            # Many at once, after a time away, lie as if each had been made in its time: a question then reads few pages.
            f"GROUP BY {begins}, {columns} ORDER BY {begins}"
        ),
        asked,
    )
    numbers_of = ", ".join(held(together(number, number)) for number in NUMBERS)
    # In order: who adds up many hours then goes through the groups in much the same way each time, and what was counted
    # of the next one is in the processor's cache.
    for cut in () if span is Span.MINUTE else (cut for cut in Cut if cut is not Cut.WHOLE):
        kept = COLUMNS[cut]
        told = ", ".join(column if column in kept else "''" for column in Column)
        await connection.execute(
            text(
                f"INSERT INTO {table} (at, cut, {columns}, {numbers}) "
                f"SELECT at, '{cut}', {told}, {numbers_of} FROM {table} "
                f"WHERE cut = '{Cut.WHOLE}' AND at = ANY(CAST(:at AS timestamptz[])) "
                f"GROUP BY at, {', '.join(kept)} ORDER BY at, {', '.join(kept)}"
            ),
            {"at": list(at)},
        )


def bounds(since: datetime, until: datetime) -> dict[str, object]:
    """Of a query of the ledger; days let Postgres leave out partitions."""
    return {
        "since": since,
        "until": until,
        "first_day": (since - _DAY_OF_ROW).date(),
        "last_day": (until + _DAY_OF_ROW).date(),
    }
