"""Operators ask what was used: by whatever tells requests apart, in parts of time, compared, page by page; and look
after what could not be a row."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from forebay.clock import ManualClock
from forebay.database import Database, open_database
from forebay.ledger_id import new_ledger_id
from forebay.metrics import Metrics
from forebay.wire.v1 import types_pb2, usage_pb2
from forebay.wire.v1 import usage_queries_pb2 as wire
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.ledger.rollup_store import RollupStore
from forebay_admin.ledger.rollups import Rollups
from forebay_admin.ledger.usage_rows import Poison, parse_batch
from tests.admin.replica import OperatorCalls, Running, Site
from tests.admin.test_operator import query as sql
from tests.admin.test_operator import refused

NOW = datetime.fromtimestamp(time.time() // 3600 * 3600, UTC) - timedelta(hours=2)


def record(at: datetime, **changed: Any) -> usage_pb2.UsageRecord:
    fields: dict[str, Any] = {
        "ledger_id": new_ledger_id(at.timestamp()),
        "model": "small",
        "pool": "default",
        "backend_id": "b1",
        "outcome": types_pb2.OUTCOME_FINISHED,
        "started_at_us": round(at.timestamp() * 1_000_000),
        "duration_ms": 10,
        "ttft_ms": 4,
        "usage": types_pb2.TokenUsage(prompt_tokens=10, completion_tokens=5, source=types_pb2.USAGE_SOURCE_ENGINE),
    }
    return usage_pb2.UsageRecord(**{**fields, **changed})


def batch(*records: usage_pb2.UsageRecord) -> bytes:
    return usage_pb2.UsageBatch(records=records).SerializeToString()


@asynccontextmanager
async def opened(site: Site) -> AsyncIterator[Database]:
    async with open_database(site.database_url, "admin") as database:
        yield database


async def enter(database: Database, records: Sequence[usage_pb2.UsageRecord], poison: Sequence[Poison] = ()) -> None:
    await LedgerStore(database).write(parse_batch("s", batch(*records), datetime.now(UTC)).rows, poison)


def us(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)


async def query(calls: OperatorCalls, **asked: Any) -> wire.QueryUsageResponse:
    span = {"from_us": us(NOW - timedelta(days=2)), "to_us": us(NOW + timedelta(hours=1))}
    answer: wire.QueryUsageResponse = await calls.QueryUsage(**{**span, **asked})
    return answer


async def test_usage_is_told_by_whatever_tells_requests_apart(admin: Running) -> None:
    calls = await admin.operator()
    await calls.AddGroup(name="firm")
    await calls.AddGroup(name="team", parent="firm")
    alice = (await calls.AddUser(name="alice", group="team")).user
    bob = (await calls.AddUser(name="bob", group="firm")).user
    key = await calls.CreateKey(user="alice", name="laptop")
    ids = {group.name: group.id for group in (await calls.ListGroups()).groups}
    hers = {"user_id": alice.id, "group_id": ids["team"], "key_id": key.key.id}
    his = {"user_id": bob.id, "group_id": ids["firm"], "key_id": "gone"}
    async with opened(admin.site) as database:
        await enter(
            database,
            [
                *(record(NOW - timedelta(hours=hours), **hers) for hours in (0, 1, 30)),
                record(NOW, **his, model="large", outcome=types_pb2.OUTCOME_FAILED),
                record(NOW - timedelta(days=3), **hers),
                record(NOW - timedelta(hours=1), outcome=types_pb2.OUTCOME_REFUSED, usage=None, ttft_ms=None),
            ],
        )
        for summed_up in (False, True):
            if summed_up:
                await Rollups(RollupStore(database), ManualClock(time.time()), Metrics()).sum_up()
            whole = await query(calls)
            assert (len(whole.lines), whole.total.requests, whole.total.failed, whole.total.refused) == (1, 5, 1, 1)
            assert (whole.total.prompt_tokens, whole.total.answered, whole.total.ttft_ms) == (40, 4, 16)

            by_user = await query(calls, by=[wire.USAGE_COLUMN_USER, wire.USAGE_COLUMN_MODEL])
            assert [(line.user_name, line.model, line.sums.requests) for line in by_user.lines] == [
                ("alice", "small", 3),
                ("bob", "large", 1),
                ("", "small", 1),
            ]
            by_key = await query(calls, by=[wire.USAGE_COLUMN_KEY], user="alice")
            assert [(line.key_id, line.key_name) for line in by_key.lines] == [(key.key.id, "laptop")]

            within = await query(calls, by=[wire.USAGE_COLUMN_GROUP], group="firm")
            assert [(line.group_name, line.sums.requests) for line in within.lines] == [("team", 3), ("firm", 1)]
            assert (await query(calls, group="team")).total.requests == 3

            outcomes = await query(calls, by=[wire.USAGE_COLUMN_OUTCOME], order=wire.USAGE_ORDER_REQUESTS)
            assert [line.outcome for line in outcomes.lines] == [
                types_pb2.OUTCOME_FINISHED,
                types_pb2.OUTCOME_FAILED,
                types_pb2.OUTCOME_REFUSED,
            ]
            hours = await query(calls, bucket=wire.USAGE_BUCKET_HOUR, outcome=types_pb2.OUTCOME_FINISHED)
            assert [(line.at_us, line.sums.requests) for line in hours.lines] == [
                (us(NOW - timedelta(hours=back)), 1) for back in (30, 1, 0)
            ]
            top = await query(calls, by=[wire.USAGE_COLUMN_USER], top=1)
            assert [(line.user_name, line.rest, line.sums.requests) for line in top.lines] == [
                ("alice", False, 3),
                ("", True, 2),
            ]
            compared = await query(calls, by=[wire.USAGE_COLUMN_USER], compare=True)
            assert compared.total_before.requests == 1
            assert [(line.user_name, line.before.requests) for line in compared.lines] == [
                ("alice", 1),
                ("bob", 0),
                ("", 0),
            ]
            page = await query(calls, by=[wire.USAGE_COLUMN_USER], limit=2)
            rest = await query(calls, by=[wire.USAGE_COLUMN_USER], limit=2, page=page.next_page)
            assert [line.user_name for line in (*page.lines, *rest.lines)] == ["alice", "bob", ""]
            assert (rest.next_page, rest.total) == ("", page.total)

            shown = await calls.ShowUsage(since_us=us(NOW - timedelta(days=2)))
            assert (shown.sums[0].user_name, shown.sums[0].model, shown.sums[0].requests) == ("alice", "small", 3)
    bobs = await admin.operator((await calls.CreateKey(user="bob")).secret)
    assert (await query(bobs)).total.requests == 1
    assert "may see only what is their own" in await refused(query(bobs, user="alice"))


async def test_more_than_64_bits_hold_is_told_as_the_most_that_they_hold(admin: Running) -> None:
    calls = await admin.operator()
    most = 2**63 - 1
    nonsense = types_pb2.TokenUsage(prompt_tokens=most, completion_tokens=most, source=types_pb2.USAGE_SOURCE_ENGINE)
    async with opened(admin.site) as database:
        await enter(database, [record(NOW, usage=nonsense), record(NOW, usage=nonsense), record(NOW, model="large")])
        for summed_up in (False, True):
            if summed_up:
                await Rollups(RollupStore(database), ManualClock(time.time()), Metrics()).sum_up()
            for asked in ({}, {"top": 1}, {"bucket": wire.USAGE_BUCKET_DAY}):
                told = await query(calls, by=[wire.USAGE_COLUMN_MODEL], **asked)
                assert (told.total.prompt_tokens, told.total.requests) == (most, 3)
                assert [line.sums.prompt_tokens for line in told.lines] == [most, 10]


async def test_rows_are_read_page_by_page_over_midnight(admin: Running) -> None:
    calls = await admin.operator()
    midnight = NOW.replace(hour=0)
    at = [midnight + timedelta(seconds=seconds) for seconds in (-20, -10, 0, 10, 20)]
    async with opened(admin.site) as database:
        await enter(database, [record(one, request_id=f"r{number}") for number, one in enumerate(at)])
        await enter(database, [record(midnight - timedelta(minutes=5)), record(midnight + timedelta(minutes=5))])
    found: list[str] = []
    page = ""
    while True:
        answer = await calls.ReadLedger(
            from_us=us(at[0]), to_us=us(midnight + timedelta(minutes=1)), limit=2, page=page
        )
        found += [row.request_id for row in answer.rows]
        if not (page := answer.next_page):
            break
    assert found == ["r0", "r1", "r2", "r3", "r4"]
    assert "This page is none" in await refused(calls.ReadLedger(page="x" * 32))


async def test_what_could_not_be_a_row_is_seen_and_becomes_one_when_it_can(admin: Running) -> None:
    calls = await admin.operator()
    good, bad = record(NOW, request_id="late"), record(NOW, outcome=77)
    async with opened(admin.site) as database:
        await enter(
            database,
            [],
            [
                Poison("forebay.usage.gateway-1", good.SerializeToString(), "it was made more than 2 days from now"),
                Poison("forebay.usage.gateway-1", bad.SerializeToString(), "outcome 77 is not known"),
                Poison("forebay.usage.gateway-2", b"\xff\xff", "not a UsageBatch: nonsense"),
            ],
        )
    first = await calls.ListDeadLetters(limit=2)
    second = await calls.ListDeadLetters(limit=2, page=first.next_page)
    letters = {getattr(one, "from") + one.why: one for one in (*first.letters, *second.letters)}
    assert (len(letters), first.total, second.next_page) == (3, 3, "")
    late = next(one for why, one in letters.items() if "2 days" in why)
    shown = await calls.ShowDeadLetter(id=late.id[:12])
    assert (shown.payload, [one.request_id for one in shown.records]) == (good.SerializeToString(), ["late"])

    retried = await calls.RetryDeadLetters()
    assert (retried.retried, retried.rows, retried.left) == (1, 1, 2)
    assert {one.why for one in retried.still} >= {"outcome 77 is not known"}
    rows = (await calls.ShowUsage(rows=True)).rows
    assert [row.request_id for row in rows] == ["late"]
    assert (await calls.ListDeadLetters()).total == 2
    again = await calls.RetryDeadLetters(ids=[late.id])
    assert (again.retried, again.left) == (0, 0)
    acts = await sql(admin, "SELECT actor, before FROM admin.audit_log WHERE action = 'dead_letter.retry'")
    assert [act["actor"] for act in acts] == ["admin"]
    assert late.id in acts[0]["before"]


WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("QueryUsage", {"from_us": 2_000_000, "to_us": 1_000_000}, "INVALID_ARGUMENT: The span ends before it begins."),
    ("QueryUsage", {"by": [99]}, "INVALID_ARGUMENT: Usage is not told by 99"),
    ("QueryUsage", {"bucket": 99}, "INVALID_ARGUMENT: There is no bucket 99"),
    ("QueryUsage", {"order": 99}, "INVALID_ARGUMENT: There is no order 99"),
    ("QueryUsage", {"outcome": 99}, "INVALID_ARGUMENT: There is no outcome 99"),
    ("QueryUsage", {"time_zone": "Mars"}, "INVALID_ARGUMENT: There is no time zone Mars"),
    ("QueryUsage", {"from_us": 1, "bucket": wire.USAGE_BUCKET_MINUTE}, "INVALID_ARGUMENT: Ask for 20 years at most."),
    (
        "QueryUsage",
        {"compare": True, "bucket": wire.USAGE_BUCKET_HOUR},
        "INVALID_ARGUMENT: Spans are compared as a whole",
    ),
    ("QueryUsage", {"page": "-1"}, "INVALID_ARGUMENT: This page is none"),
    ("QueryUsage", {"user": "nobody"}, "NOT_FOUND: There is no user nobody."),
    ("QueryUsage", {"group": "nothing"}, "NOT_FOUND: There is no group nothing."),
    ("QueryUsage", {"top": 101}, "INVALID_ARGUMENT: At most the 100"),
    ("QueryUsage", {"limit": 10_001}, "INVALID_ARGUMENT: At most 10000 lines"),
    ("ReadLedger", {"limit": 5001}, "INVALID_ARGUMENT: At most 5000 rows"),
    ("ReadLedger", {"from_us": -1}, "INVALID_ARGUMENT: That is before 1970."),
    ("ListDeadLetters", {"page": "x"}, "INVALID_ARGUMENT: 'x' is not the id"),
    ("ShowDeadLetter", {"id": "%"}, "INVALID_ARGUMENT: A dead letter is called by its id"),
    ("ShowDeadLetter", {"id": "00"}, "NOT_FOUND: There is no dead letter 00."),
    ("RetryDeadLetters", {"ids": ["00"]}, "INVALID_ARGUMENT: '00' is not the id"),
)


async def test_questions_that_make_no_sense_are_refused_in_words(admin: Running) -> None:
    calls = await admin.operator()
    for call, asked, words in WRONG:
        assert (await refused(getattr(calls, call)(**asked))).startswith(words), (call, asked)
