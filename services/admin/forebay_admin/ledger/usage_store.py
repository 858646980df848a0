"""What was used in a span of time, from the sums of the ledger, and of minutes that are not summed up from its rows, all
as it is at one moment. Besides, the newest rows themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.ledger_id import day_of
from forebay_admin.ledger.partitions import LEDGER
from forebay_admin.ledger.rollup_store import NUMBERS, SUMS, bounds, held, of_row, standing, together
from forebay_admin.ledger.usage_pieces import Piece, pieces
from forebay_admin.ledger.usage_question import Answer, Line, Measure, Question, Sums
from forebay_admin.ledger.usage_rows import LedgerRow
from forebay_admin.ledger.usage_sums import Column, Source, cut_with
from forebay_admin.tables import SCHEMA
from forebay_admin.tables import usage_ledger as ledger

_MEASURES = {
    Measure.TOKENS: "CAST(prompt_tokens AS numeric) + completion_tokens",  # each may be the most that 64 bits hold
    Measure.REQUESTS: "requests",
    Measure.COST: "cost_micros",
    Measure.DURATION: "duration_ms",
}
_FAST, _WIDE = f"{SCHEMA}.add_up", "sum"
"""What adds up: in 64 bits, and in as many as it takes."""
_TOO_MUCH = "22003"
"""What Postgres says where 64 bits do not hold a sum."""
_DAY = timedelta(days=1)
_MEMORY = "64MB"
_MOST_PARTS = 24
"""Of each source, in one statement: Postgres plans each of them by itself, which is best for few."""


async def answer(connection: AsyncConnection, question: Question) -> Answer:
    """The connection's transaction sees one moment (`see_one_moment`). Lines come by bucket, then the most first."""
    asked: dict[str, Any] = {
        "edges": list(question.edges),
        "limit": question.limit + 1,
        "skip": question.skip,
        "top": question.top,
        **{f"only_{column}": sorted(values) for column, values in question.only.items()},
    }
    parts = []
    for source, ranges in _ranges(pieces(question.edges, await standing(connection))).items():
        name = source.value if source is not None else "row"
        if len(ranges) > _MOST_PARTS:
            asked |= {f"{name}_from": [one.since for one in ranges], f"{name}_to": [one.until for one in ranges]}
            parts.append(_part_of_many(name, source, question))
            continue
        for number, one in enumerate(ranges):
            asked |= {f"{name}{number}_{key}": value for key, value in _bounds(one).items()}
            parts.append(_part(source, question, *(f":{name}{number}_{key}" for key in _bounds(one))))
    # Sums are gathered in a table in memory; what Postgres uses by itself makes it sort names on the disk instead.
    await connection.execute(text(f"SET LOCAL work_mem = '{_MEMORY}'"))
    rows = await _told(connection, question, parts, asked) if parts else []
    columns = len(question.by)
    lines: list[Line] = []
    total = Sums()
    for bucket, is_rest, *told in rows:
        sums = Sums(*told[columns:]) if told[columns] else None
        if is_rest is None:
            total = sums or total
        elif sums is not None:
            lines.append(Line(bucket - 1, () if is_rest else tuple(told[:columns]), is_rest, sums))
    return Answer(lines[: question.limit], len(lines) > question.limit, total)


async def _told(
    connection: AsyncConnection, question: Question, parts: Sequence[str], asked: Mapping[str, Any]
) -> Sequence[Any]:
    try:
        async with connection.begin_nested():
            return (await connection.execute(text(_statement(question, parts, _FAST)), asked)).all()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _TOO_MUCH:
            raise
    return (await connection.execute(text(_statement(question, parts, _WIDE)), asked)).all()


async def newest_rows(connection: AsyncConnection, since: datetime, user_id: str | None, limit: int) -> list[LedgerRow]:
    """Newest first."""
    columns = [ledger.c[name] for name in LedgerRow._fields]
    # The day lets Postgres leave out partitions. It comes from the ledger id, which is minted a moment after the start.
    clauses: list[ColumnElement[bool]] = [
        ledger.c.day >= since.date() - timedelta(days=1),
        ledger.c.started_at >= since,
    ]
    if user_id is not None:
        clauses.append(ledger.c.user_id == user_id)
    rows = await connection.execute(
        select(*columns).where(*clauses).order_by(ledger.c.started_at.desc(), ledger.c.ledger_id).limit(limit)
    )
    return [LedgerRow._make(row) for row in rows]


async def rows_between(
    connection: AsyncConnection,
    since: datetime,
    until: datetime,
    only: Mapping[Column, Collection[str]],
    after: str,
    limit: int,
) -> list[LedgerRow]:
    """Those that began then, by day and ledger id, which is nearly the order in which they began. `after`: the id of the
    last one that is known already, hexadecimal; empty: none."""
    last = UUID(after) if after else None
    first_day = (since - _DAY).date() if last is None else max((since - _DAY).date(), day_of(last.bytes))
    query = select(*(ledger.c[name] for name in LedgerRow._fields)).where(
        ledger.c.day.between(first_day, (until + _DAY).date()),
        ledger.c.started_at >= since,
        ledger.c.started_at < until,
    )
    if last is not None:
        query = query.where((ledger.c.day > first_day) | (ledger.c.ledger_id > last))
    for column, values in only.items():
        query = query.where(ledger.c[column].in_(values))
    rows = await connection.execute(query.order_by(ledger.c.day, ledger.c.ledger_id).limit(limit))
    return [LedgerRow._make(row) for row in rows]


def _ranges(found: Iterable[Piece]) -> Mapping[Source, Sequence[Piece]]:
    """By source, those that touch each other as one: into which bucket a sum falls, its beginning says."""
    ranges: dict[Source, list[Piece]] = {}
    for piece in found:
        mine = ranges.setdefault(piece.source, [])
        if mine and mine[-1].until == piece.since:
            mine[-1] = Piece(piece.source, mine[-1].since, piece.until)
        else:
            mine.append(piece)
    return ranges


def _bounds(one: Piece) -> dict[str, object]:
    whole = bounds(one.since, one.until)
    return whole if one.source is None else {"since": whole["since"], "until": whole["until"]}


def _part(source: Source, question: Question, since: str, until: str, first_day: str = "", last_day: str = "") -> str:
    """What one source adds, with the bucket."""
    if source is None:
        at, place, cut = "started_at", LEDGER.table, f"day BETWEEN {first_day} AND {last_day}"
        told = [f"{of_row(number)} AS {number}" for number in NUMBERS]
    else:
        at, place, cut = "at", SUMS[source].table, f"cut = '{cut_with(question.needs, source)}'"
        told = list(NUMBERS)
    only = "".join(f" AND {column} = ANY(CAST(:only_{column} AS text[]))" for column in question.only)
    bucket = f"width_bucket({at}, CAST(:edges AS timestamptz[]))" if question.in_buckets else "1"
    return (
        f"SELECT {', '.join((f'{bucket} AS bucket', *question.by, *told))} "
        f"FROM {SCHEMA}.{place} WHERE {cut} AND {at} >= {since} AND {at} < {until}{only}"
    )


def _part_of_many(name: str, source: Source, question: Question) -> str:
    """The same of more ranges than a statement should have parts."""
    days = ("CAST(range.since AT TIME ZONE 'UTC' AS date) - 1", "CAST(range.until AT TIME ZONE 'UTC' AS date) + 1")
    inner = _part(source, question, "range.since", "range.until", *(days if source is None else ()))
    return (
        f"SELECT part.* FROM unnest(CAST(:{name}_from AS timestamptz[]), CAST(:{name}_to AS timestamptz[])) "
        f"AS range (since, until) CROSS JOIN LATERAL ({inner}) AS part"
    )


def _statement(question: Question, parts: Sequence[str], add: str) -> str:
    """Each line with whether it is the rest of the groups; and one where that is null, the total. Amounts become whole
    numbers of 64 bits only in the end, since there are many more of them before."""
    numbers = ", ".join(f"{together(one, one, add)} AS {one}" for one in NUMBERS)
    told = ", ".join(f"{held(one)} AS {one}" for one in NUMBERS)
    whole = ", ".join(f"{held(together(one, one, add))} AS {one}" for one in NUMBERS)
    columns = "".join(f", {column}" for column in question.by)
    measure = _MEASURES[question.order]
    sums = f"SELECT bucket{columns}, {numbers} FROM ({' UNION ALL '.join(parts)}) AS part GROUP BY bucket{columns}"
    if question.top and question.by:
        whose = ", ".join(question.by)
        kept = "".join(f", CASE WHEN place <= :top THEN {column} ELSE '' END AS {column}" for column in question.by)
        found = (
            f"SELECT bucket, place > :top AS rest{kept}, {numbers} FROM sums JOIN ("
            f"SELECT {whose}, row_number() OVER (ORDER BY sum({measure}) DESC, {whose}) AS place "
            f"FROM sums GROUP BY {whose}) AS places USING ({whose}) "
            f"GROUP BY bucket, rest{''.join(f', {n}' for n in range(3, 3 + len(question.by)))}"
        )
    else:
        found = f"SELECT bucket, false AS rest{columns}, {', '.join(NUMBERS)} FROM sums"
    nobody = "".join(f", '' AS {column}" for column in question.by)
    return (
        f"WITH sums AS MATERIALIZED ({sums}), found AS ({found}) "
        f"SELECT * FROM (SELECT bucket, rest{columns}, {told} FROM ("
        f"SELECT * FROM found ORDER BY bucket, rest, {measure} DESC{columns} LIMIT :limit OFFSET :skip) AS page "
        f"UNION ALL SELECT 0, NULL{nobody}, {whole} FROM sums) AS told "
        f"ORDER BY rest IS NULL, bucket, rest, {measure} DESC{columns}"
    )


assert tuple(Sums.__slots__) == NUMBERS, "sums are told in the order of their columns"
