"""Sums of the ledger are those of its rows: whatever comes late, and wherever what makes them dies."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from forebay.clock import ManualClock
from forebay.database import Database, open_database
from forebay.errors import Unavailable
from forebay.ledger_id import new_ledger_id
from forebay.metrics import Metrics
from forebay.wire.v1 import types_pb2, usage_pb2
from forebay_admin.ledger.keeping import LedgerKeeping
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.ledger.partitions import LEDGER, Partitioned, partitions_of
from forebay_admin.ledger.retention import Keeping
from forebay_admin.ledger.rollup_store import SUMS, RollupStore, see_one_moment, standing
from forebay_admin.ledger.rollups import Rollups
from forebay_admin.ledger.usage_question import Answer, Bucket, Line, Measure, Question, Sums, edges_of
from forebay_admin.ledger.usage_rows import LedgerRow, parse_batch
from forebay_admin.ledger.usage_store import answer
from forebay_admin.ledger.usage_sums import Column, Cut, Span

NOW = datetime(2026, 12, 1, 12, 30, 30, tzinfo=UTC)
OUTCOMES = (
    *3 * (types_pb2.OUTCOME_FINISHED,),
    *(types_pb2.OUTCOME_CANCELLED, types_pb2.OUTCOME_FAILED, types_pb2.OUTCOME_REFUSED, types_pb2.OUTCOME_GATEWAY_LOST),
)


def rows_at(dice: random.Random, moments: Sequence[datetime]) -> Sequence[LedgerRow]:
    records = [
        usage_pb2.UsageRecord(
            ledger_id=new_ledger_id(at.timestamp()),
            key_id=f"key{dice.randrange(3)}",
            user_id=f"user{dice.randrange(2)}",
            group_id=f"group{dice.randrange(2)}",
            pool="default",
            model=dice.choice(("small", "large")),
            backend_id=f"b{dice.randrange(2)}",
            outcome=dice.choice(OUTCOMES),
            started_at_us=round(at.timestamp() * 1_000_000),
            queue_ms=dice.randrange(100),
            ttft_ms=dice.choice((None, 5, 70)),
            duration_ms=dice.randrange(1000),
            usage=types_pb2.TokenUsage(prompt_tokens=dice.randrange(50), completion_tokens=dice.randrange(9)),
        )
        for at in moments
    ]
    rows = parse_batch("s", usage_pb2.UsageBatch(records=records).SerializeToString(), NOW).rows
    return [row._replace(cost_micros=dice.choice((None, 0, 7))) for row in rows]


class Killed(Unavailable):
    """The process died there."""


class Mortal(Database):
    """Dies before its `lives`th statement that writes, or once that many transactions were committed without its hearing
    of it."""

    def __init__(self, database: Database, lives: int, *, after_commit: bool) -> None:
        self._inner, self._lives, self._after_commit = database, lives, after_commit
        self.reading = database.reading  # type: ignore[method-assign]

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Any]:
        async with self._inner.writing() as connection:
            yield connection if self._after_commit else _Counted(connection, self._count)
        if self._after_commit:
            self._count()

    def _count(self) -> None:
        self._lives -= 1
        if self._lives < 0:
            raise Killed("killed")


class _Counted:
    def __init__(self, connection: Any, count: Any) -> None:
        self._connection, self._count = connection, count

    async def execute(self, *words: Any) -> Any:
        self._count()
        return await self._connection.execute(*words)

    async def scalar(self, *words: Any) -> Any:
        self._count()
        return await self._connection.scalar(*words)


@pytest.fixture
async def database(admin_database_url: str) -> AsyncIterator[Database]:
    async with open_database(admin_database_url, "admin") as opened:
        yield opened


def rollups(database: Database, now: datetime) -> Rollups:
    return Rollups(RollupStore(database), ManualClock(now.timestamp()), Metrics())


QUESTIONS = [
    Question(edges_of(Bucket.ALL, "UTC", NOW - timedelta(days=40), NOW + timedelta(days=1))),
    Question(
        edges_of(Bucket.DAY, "Asia/Kolkata", NOW - timedelta(days=4, seconds=17), NOW + timedelta(hours=3)),
        (Column.USER, Column.MODEL),
        order=Measure.REQUESTS,
    ),
    Question(edges_of(Bucket.HOUR, "UTC", NOW - timedelta(days=2), NOW), (Column.KEY, Column.BACKEND, Column.OUTCOME)),
    Question([NOW - timedelta(days=40), NOW], (Column.GROUP,), {Column.MODEL: ["small"], Column.OUTCOME: ["finished"]}),
]


async def ask(database: Database, question: Question) -> Answer:
    async with database.reading() as connection:
        await see_one_moment(connection)
        return await answer(connection, question)


async def agrees_with_the_ledger(database: Database) -> None:
    """Every question is answered as from the rows alone."""
    for question in QUESTIONS:
        told = await ask(database, question)
        async with database.reading() as connection:
            assert told.lines == await by_rows(connection, question)


async def by_rows(connection: Any, question: Question) -> list[Any]:
    """The same answer, added up in Python."""
    found: dict[tuple[int, tuple[str, ...]], dict[str, int]] = {}
    for row in (await connection.execute(text("SELECT * FROM admin.usage_ledger"))).mappings():
        at = row["started_at"]
        if not question.edges[0] <= at < question.edges[-1]:
            continue
        if any(row[column] not in values for column, values in question.only.items()):
            continue
        bucket = sum(edge <= at for edge in question.edges) - 1
        sums = found.setdefault((bucket, tuple(row[column] for column in question.by)), {})
        failed = row["outcome"] in ("failed", "gateway_lost")
        added = {
            "requests": 1,
            "failed": int(failed),
            **({row["outcome"]: 1} if not failed else {}),
            "unbilled": int(row["cost_micros"] is None),
            "cost_micros": row["cost_micros"] or 0,
            "answered": int(row["ttft_ms"] is not None),
            "ttft_ms": row["ttft_ms"] or 0,
            **{name: row[name] for name in ("queue_ms", "duration_ms", "prompt_tokens", "completion_tokens")},
        }
        for name, value in added.items():
            sums[name] = sums.get(name, 0) + value
        for name in ("queue_ms", "ttft_ms", "duration_ms"):
            sums[f"most_{name}"] = max(sums.get(f"most_{name}", 0), row[name] or 0)
    lines = [Line(bucket, whose, False, Sums(**sums)) for (bucket, whose), sums in found.items()]

    def measure(sums: Sums) -> int:
        return sums.requests if question.order is Measure.REQUESTS else sums.prompt_tokens + sums.completion_tokens

    return sorted(lines, key=lambda line: (line.bucket, -measure(line.sums), line.whose))


async def is_summed_up(database: Database) -> None:
    """Nothing waits but what is not over, and each length of sums has all rows of what it covers."""
    async with database.reading() as connection:
        touched = (await standing(connection)).touched
        for span, sums in SUMS.items():
            over = span.of(NOW)
            assert all(at >= over for at in touched.get(span, ()))
            rows = await connection.scalar(
                text("SELECT count(*) FROM admin.usage_ledger WHERE started_at < :at"), {"at": over}
            )
            for cut in ("whole",) if span is Span.MINUTE else list(Cut):
                counted = await connection.scalar(
                    text(f"SELECT sum(requests) FROM admin.{sums.table} WHERE cut = :cut AND at < :over"),
                    {"cut": cut, "over": over},
                )
                assert counted == rows, (span, cut)


async def forget_when_it_was_noted(database: Database) -> None:
    """As if it had been at once: how long late rows are waited for is a matter of its own, and Postgres has no clock of
    ours."""
    async with database.writing() as connection:
        await connection.execute(text("UPDATE admin.usage_touched SET made_at = at"))


def moments(dice: random.Random, count: int) -> list[datetime]:
    """Of the last days, more of them lately; on few minutes, so that rows share them."""
    return [
        NOW - timedelta(minutes=int(4 * 1440 * dice.random() ** 4) // 7 * 7, seconds=dice.randrange(30))
        for _ in range(count)
    ]


@pytest.mark.parametrize("after_commit", [False, True])
async def test_sums_are_those_of_the_rows_wherever_it_dies(database: Database, after_commit: bool) -> None:
    dice = random.Random(7)
    store = LedgerStore(database)
    await store.write(rows_at(dice, moments(dice, 60)), ())
    await agrees_with_the_ledger(database)
    lives, finished = 0, False
    while not finished:
        await forget_when_it_was_noted(database)
        mortal = Mortal(database, lives, after_commit=after_commit)
        try:
            await rollups(mortal, NOW).sum_up()
            finished = True
        except Killed:
            pass
        if lives % 6 == 0:  # something late, in between
            await store.write(rows_at(dice, moments(dice, 3)), ())
        await agrees_with_the_ledger(database)
        lives += 7 if not after_commit else 4
    await forget_when_it_was_noted(database)
    for _ in Span:  # each time what waited for the one before
        await rollups(database, NOW).sum_up()
        await forget_when_it_was_noted(database)
    await agrees_with_the_ledger(database)
    await is_summed_up(database)


async def test_what_is_old_is_dropped_by_partition_and_the_sums_still_tell_it(database: Database) -> None:
    dice = random.Random(3)
    at = [NOW - timedelta(days=days, hours=1) for days in (70, 40, 12, 2)]
    store = LedgerStore(database)
    await store.write(rows_at(dice, at), ())
    await add_budget(database, created_at=NOW - timedelta(days=41))
    await forget_when_it_was_noted(database)
    keeping = LedgerKeeping(database, Keeping(ledger=10, minutes=5, hours=20), ManualClock(NOW.timestamp()), Metrics())
    await keeping.drop_old()
    assert len(await partitions(database, LEDGER)) == 4, "nothing goes that was not summed up"
    for _ in range(3):
        await rollups(database, NOW).sum_up()
        await forget_when_it_was_noted(database)

    await keeping.drop_old()
    await keeping.drop_old()
    assert await partitions(database, LEDGER) == [day.date() for day in at[1:]], "a budget counts the others"
    assert await partitions(database, SUMS[Span.MINUTE]) == [at[3].date()]
    assert await partitions(database, SUMS[Span.HOUR]) == [NOW.date().replace(month=11, day=1)]
    whole = Question([NOW - timedelta(days=365), NOW])
    assert (await ask(database, whole)).total.requests == 4
    async with database.reading() as connection:
        acts = await connection.scalars(text("SELECT subject FROM admin.audit_log WHERE action = 'usage.drop'"))
        assert sorted(acts) == ["usage_hours", "usage_hours", "usage_ledger", *3 * ["usage_minutes"]]

    # Late rows of a time whose minutes are gone count, and those of a day that is gone change nothing that was told of it.
    await store.write(rows_at(dice, [at[1], at[0]]), ())
    await forget_when_it_was_noted(database)
    for _ in range(3):
        await rollups(database, NOW).sum_up()
        await forget_when_it_was_noted(database)
    assert (await ask(database, whole)).total.requests == 5
    await keeping.drop_old()
    assert await partitions(database, LEDGER) == [day.date() for day in at[1:]]


async def test_minutes_that_nobody_told_of_are_found_and_summed_up(database: Database) -> None:
    """As after a replica of the version before, which enters rows and notes nothing."""
    await LedgerStore(database).write(rows_at(random.Random(5), [NOW - timedelta(minutes=m) for m in (3, 90, 91)]), ())
    async with database.writing() as connection:
        await connection.execute(text("DELETE FROM admin.usage_touched"))
    keeper = rollups(database, NOW)
    assert (await ask(database, Question([NOW - timedelta(days=1), NOW]))).total.requests == 0
    await keeper.mend()
    assert (await ask(database, Question([NOW - timedelta(days=1), NOW]))).total.requests == 3
    await forget_when_it_was_noted(database)
    await keeper.sum_up()
    await keeper.mend()
    async with database.reading() as connection:
        assert not (await standing(connection)).touched.get(Span.MINUTE)


async def partitions(database: Database, of: Partitioned) -> list[date]:
    async with database.reading() as connection:
        return await partitions_of(connection, of)


async def add_budget(database: Database, *, created_at: datetime) -> None:
    async with database.writing() as connection:
        for statement in (
            "INSERT INTO admin.groups (id, name, created_at, version) VALUES ('g', 'g', now(), 1)",
            "INSERT INTO admin.budgets (id, group_id, unit, amount, period, time_zone, created_by, created_at)"
            " VALUES ('b', 'g', 'tokens', 1, 'ever', 'UTC', '', :at)",
        ):
            await connection.execute(text(statement), {"at": created_at})
