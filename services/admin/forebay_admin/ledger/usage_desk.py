"""What was used, for operators: who may ask about whom, names in the place of ids, and pages. The sums are
`usage_store`'s."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import MAXYEAR, UTC, datetime, timedelta

from sqlalchemy import ColumnElement, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotPossible
from forebay.wire.v1 import admin_pb2, usage_queries_pb2
from forebay_admin.ledger.rollup_store import see_one_moment
from forebay_admin.ledger.usage_question import (
    MOST_ROWS,
    USUAL_ROWS,
    Answer,
    Bucket,
    Line,
    Question,
    before,
    edges_of,
)
from forebay_admin.ledger.usage_rows import record_from
from forebay_admin.ledger.usage_store import answer, newest_rows, rows_between
from forebay_admin.ledger.usage_sums import Column
from forebay_admin.ledger.usage_wire import bucket_from, columns_from, fill, order_from, outcome_from, sums_to_wire
from forebay_admin.people.access import Actor
from forebay_admin.people.group_store import group_named
from forebay_admin.people.people_desk import whose
from forebay_admin.people.people_store import user_named
from forebay_admin.quotas.periods import DEFAULT_ZONE, zone_named
from forebay_admin.tables import SCHEMA, groups, keys, users
from forebay_admin.wire_forms import moment, moment_us

_USUAL_SPAN = timedelta(hours=24)
_USUAL_NEWEST = 50
_MOST_TOP = 100
_MOST_SKIPPED = 1_000_000
_MOST_READ, _USUAL_READ = 5000, 1000
_LONGEST_S = 10
_CANCELLED = "57014"
"""What Postgres says of a statement whose time is over."""

_WITHIN = text(f"""
    WITH RECURSIVE within AS (
        SELECT CAST(:id AS text) AS id
        UNION SELECT groups.id FROM {SCHEMA}.groups JOIN within ON groups.parent_id = within.id
    )
    SELECT id FROM within
""")
_Only = dict[Column, Collection[str]]


class UsageDesk:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def show(self, request: admin_pb2.ShowUsageRequest, actor: Actor) -> admin_pb2.ShowUsageResponse:
        name = whose(request.user, actor, "ShowUsage")
        if request.since_us < 0:
            raise BadInput("since_us is before 1970.")
        if request.limit > MOST_ROWS:
            raise BadInput(f"At most {MOST_ROWS} rows are told at once.")
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        since = moment(request.since_us) if request.since_us else now - _USUAL_SPAN
        async with self._database.reading() as connection:
            await see_one_moment(connection)
            user_id = (await user_named(connection, name)).id if name else None
            if request.rows:
                rows = await newest_rows(connection, since, user_id, request.limit or _USUAL_NEWEST)
                return admin_pb2.ShowUsageResponse(rows=[record_from(row) for row in rows])
            if since >= now:
                return admin_pb2.ShowUsageResponse()
            # Past now: a gateway's clock may be ahead of ours.
            edges = edges_of(Bucket.ALL, DEFAULT_ZONE, since, now + _USUAL_SPAN)
            only: _Only = {Column.USER: [user_id]} if user_id is not None else {}
            by = (Column.USER, Column.MODEL)
            found = await _answer(connection, Question(edges, by, only, limit=MOST_ROWS))
            names = await _names(connection, by, found.lines)
        return admin_pb2.ShowUsageResponse(
            sums=[
                admin_pb2.UsageSum(
                    user_name=names[Column.USER].get(line.whose[0], line.whose[0]),
                    model=line.whose[1],
                    requests=line.sums.requests,
                    finished=line.sums.finished,
                    refused=line.sums.refused,
                    failed=line.sums.failed,
                    cancelled=line.sums.cancelled,
                    prompt_tokens=line.sums.prompt_tokens,
                    completion_tokens=line.sums.completion_tokens,
                )
                for line in found.lines
            ]
        )

    async def query(
        self, request: usage_queries_pb2.QueryUsageRequest, actor: Actor
    ) -> usage_queries_pb2.QueryUsageResponse:
        name = whose(request.user, actor, "QueryUsage")
        since, until = self._span(request.from_us, request.to_us)
        by, bucket = columns_from(request), bucket_from(request)
        zone = request.time_zone or DEFAULT_ZONE
        zone_named(zone)
        if request.limit > MOST_ROWS:
            raise BadInput(f"At most {MOST_ROWS} lines are told at once.")
        if request.top > _MOST_TOP:
            raise BadInput(f"At most the {_MOST_TOP} with the most are told apart.")
        if request.compare and bucket is not Bucket.ALL:
            raise BadInput("Spans are compared as a whole: ask without buckets.")
        edges = edges_of(bucket, zone, since, until)
        skip = _skipped(request.page)
        async with self._database.reading() as connection:
            await see_one_moment(connection)
            only = await self._only(connection, request, name)
            question = Question(
                edges,
                by,
                only,
                order_from(request),
                top=request.top if by else 0,
                limit=request.limit or USUAL_ROWS,
                skip=skip,
            )
            found = await _answer(connection, question)
            compared = await _answer(connection, _of_these(before(question), found)) if request.compare else None
            whole = await _answer(connection, _all_together(before(question))) if request.compare else None
            names = await _names(connection, by, found.lines)
        response = usage_queries_pb2.QueryUsageResponse(
            from_us=moment_us(since),
            to_us=moment_us(until),
            total=sums_to_wire(found.total),
            next_page=str(skip + question.limit) if found.more else "",
        )
        if whole is not None:
            response.total_before.CopyFrom(sums_to_wire(whole.total))
        then = {line.whose: line.sums for line in compared.lines} if compared is not None else {}
        for line in found.lines:
            told = response.lines.add(
                at_us=moment_us(edges[line.bucket]), rest=line.is_rest, sums=sums_to_wire(line.sums)
            )
            for column, value in zip(by, line.whose, strict=False):
                fill(told, column, value, names.get(column, {}))
            if line.whose in then and not line.is_rest:
                told.before.CopyFrom(sums_to_wire(then[line.whose]))
        return response

    async def read(
        self, request: usage_queries_pb2.ReadLedgerRequest, actor: Actor
    ) -> usage_queries_pb2.ReadLedgerResponse:
        name = whose(request.user, actor, "ReadLedger")
        since, until = self._span(request.from_us, request.to_us)
        if since >= until:
            raise BadInput("The span ends before it begins.")
        if request.limit > _MOST_READ:
            raise BadInput(f"At most {_MOST_READ} rows are told at once.")
        limit = request.limit or _USUAL_READ
        after = _row_after(request.page)
        async with self._database.reading() as connection:
            only = await self._only(connection, request, name)
            await connection.execute(text(f"SET LOCAL statement_timeout = '{_LONGEST_S}s'"))
            rows = await rows_between(connection, since, until, only, after, limit)
        return usage_queries_pb2.ReadLedgerResponse(
            from_us=moment_us(since),
            to_us=moment_us(until),
            rows=[record_from(row) for row in rows],
            next_page=rows[-1].ledger_id.hex if len(rows) == limit else "",
        )

    def _span(self, from_us: int, to_us: int) -> tuple[datetime, datetime]:
        """Raises BadInput."""
        if min(from_us, to_us) < 0:
            raise BadInput("That is before 1970.")
        until = moment(to_us) if to_us else datetime.fromtimestamp(self._clock.now(), UTC)
        since = moment(from_us) if from_us else until - _USUAL_SPAN
        if max(since, until).year == MAXYEAR:  # days and months that begin after it are no dates
            raise BadInput("That is later than a calendar holds.")
        return since, until

    async def _only(
        self,
        connection: AsyncConnection,
        request: usage_queries_pb2.QueryUsageRequest | usage_queries_pb2.ReadLedgerRequest,
        name: str,
    ) -> _Only:
        """Raises NotFound."""
        only: _Only = {}
        if name:
            only[Column.USER] = [(await user_named(connection, name)).id]
        if request.group:
            group = await group_named(connection, request.group)
            only[Column.GROUP] = list(await connection.scalars(_WITHIN, {"id": group.id}))
        if request.key_id:
            only[Column.KEY] = [request.key_id]
        if isinstance(request, usage_queries_pb2.QueryUsageRequest):
            told = {
                Column.MODEL: request.model,
                Column.BACKEND: request.backend_id,
                Column.POOL: request.pool,
                Column.OUTCOME: outcome_from(request),
            }
            only |= {column: [value] for column, value in told.items() if value}
        return only


async def _answer(connection: AsyncConnection, question: Question) -> Answer:
    """Raises NotPossible for what takes too long."""
    await connection.execute(text(f"SET LOCAL statement_timeout = '{_LONGEST_S}s'"))
    try:
        return await answer(connection, question)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _CANCELLED:
            raise NotPossible(
                f"This cannot be added up in {_LONGEST_S} s: ask for a shorter time, longer buckets or fewer columns."
            ) from error
        raise


def _of_these(question: Question, found: Answer) -> Question:
    """Only what the lines are about, and perhaps a little more."""
    only = dict(question.only)
    for place, column in enumerate(question.by):
        only[column] = {line.whose[place] for line in found.lines if line.whose}
    return Question(question.edges, question.by, only, limit=question.limit)


def _all_together(question: Question) -> Question:
    return Question(question.edges, (), question.only, limit=1)


async def _names(
    connection: AsyncConnection, by: Sequence[Column], lines: Sequence[Line]
) -> Mapping[Column, Mapping[str, str]]:
    """Of the ids in the lines, as things are called now."""
    places: Mapping[Column, tuple[ColumnElement[str], ColumnElement[str]]] = {
        Column.USER: (users.c.id, users.c.name),
        Column.GROUP: (groups.c.id, groups.c.name),
        Column.KEY: (keys.c.public_id, keys.c.name),
    }
    found = {}
    for place, column in enumerate(by):
        if column in places:
            ids = {line.whose[place] for line in lines if line.whose}
            key, name = places[column]
            rows = await connection.execute(select(key, name).where(key.in_(ids)))
            found[column] = {row[0]: row[1] for row in rows}
    return found


def _skipped(page: str) -> int:
    """Raises BadInput."""
    if not page:
        return 0
    if not (page.isascii() and page.isdigit() and len(page) <= 7 and int(page) <= _MOST_SKIPPED):
        raise BadInput("This page is none that an answer named.")
    return int(page)


def _row_after(page: str) -> str:
    """The ledger id after which the page begins. Raises BadInput."""
    if page and not (len(page) == 32 and page.isascii() and set(page) <= set("0123456789abcdef")):
        raise BadInput("This page is none that an answer named.")
    return page
