"""The ledger: how fast rows are entered, and how fast it tells what was used."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.scheduler import Slowness, as_on_the_reference
from benchmarks.targets import Target
from forebay import collector
from forebay.clock import ManualClock, SystemClock
from forebay.database import Database
from forebay.errors import Unavailable
from forebay.ledger_id import new_ledger_id
from forebay.metrics import Metrics
from forebay.nats_bus import open_nats_bus
from forebay.subjects import USAGE_STREAM, usage
from forebay.wire.v1 import types_pb2, usage_pb2
from forebay.wire.v1 import usage_queries_pb2 as wire
from forebay_admin.ledger.ledger import Ledger
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.ledger.partitions import LEDGER
from forebay_admin.ledger.rollup_store import RollupStore
from forebay_admin.ledger.rollups import Rollups
from forebay_admin.ledger.usage_desk import UsageDesk
from forebay_admin.money.charges import Charges
from forebay_admin.money.price_book import PriceBook
from forebay_admin.money.prices import Prices, PriceVersion
from forebay_admin.people.access import Actor
from forebay_admin.people.people import Role
from tests.real_nats import RealNats

_BATCH = 500
_DAYS = 30
_NOBODY = Actor("benchmark", Role.ADMIN)
_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def measure_sink(database: Database, work: Path, *, rows: int) -> list[Target]:
    """A backlog in NATS, priced and entered; the CPU is that of this process, PostgreSQL's and NATS's not
    in it."""
    book = PriceBook(
        [PriceVersion(1, "*", _LONG_AGO, Prices(prompt_micros=200_000, completion_micros=600_000), "", _LONG_AGO)]
    )
    (work / "nats").mkdir()
    with RealNats(work / "nats") as nats:
        async with open_nats_bus(nats.url, "gateway-1") as gateway, open_nats_bus(nats.url, "admin") as bus:
            await gateway.wait_connected()
            await bus.wait_connected()
            await bus.ensure_stream(USAGE_STREAM)
            for _ in range(rows // _BATCH):
                await gateway.append(usage("gateway-1"), _payload())
            store = LedgerStore(database, Charges(lambda: book).enter)
            ledger = Ledger(bus, store, SystemClock(), Metrics(), lambda: book)
            await store.prepare_days(datetime.now(UTC).date())
            collector.calm()  # as a service does
            slowness = Slowness()
            cpu, began = time.process_time(), time.monotonic()
            keeping = asyncio.create_task(ledger.keep())
            while ledger.written < rows:
                await asyncio.sleep(0.05)
            cpu, took = time.process_time() - cpu, time.monotonic() - began
            times = slowness.times()
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
    how = f"a backlog of {rows:,} rows in batches of {_BATCH} from NATS, priced, into PostgreSQL"
    each = cpu / rows * 1e6
    return [
        Target("ledger_rows_per_s", rows / took, 30_000, "at least", "rows/s", f"{how}, by the clock, one process"),
        Target(
            "ledger_rows_reference_per_s", rows / took * times, 30_000, "at least", "rows/s", as_on_the_reference(times)
        ),
        Target("ledger_cpu_us", each, 25, "at most", "µs", f"{how}: CPU of admin for each row"),
        Target("ledger_cpu_reference_us", each / times, 25, "at most", "µs", as_on_the_reference(times)),
    ]


def _payload() -> bytes:
    now = time.time()
    return usage_pb2.UsageBatch(records=[_record(now) for _ in range(_BATCH)]).SerializeToString()


def _record(now: float) -> usage_pb2.UsageRecord:
    began = now - random.random() * 30
    user = random.randrange(1000)
    return usage_pb2.UsageRecord(
        ledger_id=new_ledger_id(began),
        request_id=f"req-{random.getrandbits(64):016x}",
        gateway="gateway-1",
        generation=7,
        key_id=f"key{user:09d}",
        user_id=f"user{user:08d}",
        group_id=f"group{user % 50:07d}",
        pool="default",
        model_requested="llama-70b",
        model="meta/llama-3.3-70b-instruct",
        backend_id=f"backend{random.randrange(40):05d}",
        dialect="openai",
        route="/v1/chat/completions",
        stream=True,
        width=1,
        outcome=types_pb2.OUTCOME_FINISHED,
        http_status=200,
        started_at_us=round(began * 1e6),
        queue_ms=random.randrange(200),
        ttft_ms=random.randrange(50, 900),
        duration_ms=random.randrange(900, 20_000),
        usage=types_pb2.TokenUsage(
            prompt_tokens=random.randrange(4000),
            cached_prompt_tokens=random.randrange(50),
            completion_tokens=random.randrange(1, 900),
            source=types_pb2.USAGE_SOURCE_ENGINE,
        ),
        attempts=1,
    )


async def measure_queries(database: Database, url: str, *, rows: int) -> list[Target]:
    """What dashboards and people ask, of a month of 1,000 users in 50 groups, few of whom ask for most, 12 models on 40
    backends."""
    now = await _filled(database, url, rows)
    desk = UsageDesk(database, ManualClock(now.timestamp()))
    took: dict[str, list[float]] = {}
    slowness = Slowness()
    for turn in range(12):
        for name, asked in _questions(now).items():
            began = time.perf_counter()
            answer = await desk.query(wire.QueryUsageRequest(**asked), _NOBODY)
            if turn:  # the first warms up what a dashboard that is looked at finds warm
                took.setdefault(name, []).append(time.perf_counter() - began)
            assert answer.total.requests, name
    times = slowness.times()
    every = sorted(second for some in took.values() for second in some)
    slowest = max(took, key=lambda name: statistics.median(took[name]))
    p95 = 1000 * every[int(len(every) * 0.95)]
    how = (
        f"{len(took)} questions over {rows:,} rows of {_DAYS} days, {len(every)} times; slowest: {slowest}, "
        f"median {1000 * statistics.median(took[slowest]):.0f} ms"
    )
    return [
        Target("usage_query_p95_ms", p95, 200, "at most", "ms", how),
        Target("usage_query_p95_reference_ms", p95 / times, 200, "at most", "ms", as_on_the_reference(times)),
    ]


def _questions(now: datetime) -> Mapping[str, Mapping[str, Any]]:
    def since(**back: float) -> dict[str, int]:
        return {"from_us": round((now - timedelta(**back)).timestamp() * 1e6)}

    return {
        "a day by user and model": {**since(days=1), "by": [wire.USAGE_COLUMN_USER, wire.USAGE_COLUMN_MODEL]},
        "a month by model": {**since(days=30), "by": [wire.USAGE_COLUMN_MODEL]},
        "a month's 20 users with the most": {**since(days=30), "by": [wire.USAGE_COLUMN_USER], "top": 20},
        "a month by group and day": {
            **since(days=30),
            "by": [wire.USAGE_COLUMN_GROUP],
            "bucket": wire.USAGE_BUCKET_DAY,
            "limit": 10_000,
        },
        "a week by model and hour": {
            **since(days=7),
            "by": [wire.USAGE_COLUMN_MODEL],
            "bucket": wire.USAGE_BUCKET_HOUR,
            "limit": 10_000,
        },
        "a month of one user by key": {
            **since(days=30),
            "by": [wire.USAGE_COLUMN_KEY],
            "key_id": "key000000001",
        },
        "a month by day of Berlin": {**since(days=30), "bucket": wire.USAGE_BUCKET_DAY, "time_zone": "Europe/Berlin"},
        "a month by outcome": {**since(days=30), "by": [wire.USAGE_COLUMN_OUTCOME], "bucket": wire.USAGE_BUCKET_DAY},
        "an hour by backend and minute": {
            **since(hours=1),
            "by": [wire.USAGE_COLUMN_BACKEND],
            "bucket": wire.USAGE_BUCKET_MINUTE,
            "limit": 10_000,
        },
        "a week by group, and the week before": {**since(days=7), "by": [wire.USAGE_COLUMN_GROUP], "compare": True},
    }


_ROWS = """
    INSERT INTO admin.{table} (day, ledger_id, request_id, gateway, generation, key_id, user_id, group_id, pool,
        model_requested, model, backend_id, dialect, route, stream, width, outcome, reason, http_status, started_at,
        queue_ms, ttft_ms, duration_ms, prompt_tokens, cached_prompt_tokens, completion_tokens, usage_source, attempts,
        cost_micros)
    SELECT (at AT TIME ZONE 'UTC')::date,
        (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(id, 1, 3) || '8'
            || substr(id, 4, 15))::uuid,
        'req-' || n, 'gateway-1', 7, 'key' || lpad(who::text, 9, '0'), 'user' || lpad(who::text, 8, '0'),
        'group' || lpad((who % 50)::text, 7, '0'), 'default', 'm' || m, 'vendor/model-' || m,
        'backend' || lpad((m * 3 + floor(random() * 4)::int)::text, 5, '0'), 'openai', '/v1/chat/completions', true, 1,
        CASE WHEN random() < 0.97 THEN 'finished' WHEN random() < 0.5 THEN 'failed' ELSE 'refused' END, '', 200, at,
        floor(random() * 200), 50 + floor(random() * 800), 900 + floor(random() * 20000),
        floor(random() * 4000), floor(random() * 50), floor(random() * 900), 'engine', 1, floor(random() * 2000)
    FROM (
        SELECT n, $1::timestamptz + $2::interval * (n::float8 / $3) AS at, floor(1000 * power(random(), 3))::int AS who,
            floor(12 * power(random(), 2))::int AS m, md5(n::text || random()) AS id
        FROM generate_series(0, $3::int - 1) AS n
    ) AS made
"""


async def _filled(database: Database, url: str, rows: int) -> datetime:
    """Makes the ledger, or finds one that is whole. When it ends, which its table's comment says."""
    connection = await asyncpg.connect(url)
    try:
        told = await connection.fetchval("SELECT obj_description('admin.usage_ledger'::regclass, 'pg_class')")
        if told is not None:
            return datetime.fromisoformat(told)
        if await connection.fetchval(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'admin.usage_ledger'::regclass"
        ):
            raise SystemExit("The ledger that was kept is not whole, since its making was ended: remove the directory.")
        now = datetime.now(UTC)
        await _fill(database, url, now, rows)
        await connection.execute(f"COMMENT ON TABLE admin.usage_ledger IS '{now.isoformat()}'")
        return now
    finally:
        await connection.close()


async def _fill(database: Database, url: str, now: datetime, rows: int) -> None:
    """A day at a time, each before it is a part of the ledger, so that its indexes are made at once; then its sums. In
    reality both grow as rows come."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    connection = await asyncpg.connect(url)
    try:
        for back in reversed(range(_DAYS)):
            since = today - timedelta(days=back)
            until = min(since + timedelta(days=1), now)
            table = f"{LEDGER.table}_{since:%Y%m%d}"
            await connection.execute(
                f"CREATE TABLE admin.{table} (LIKE admin.usage_ledger INCLUDING ALL EXCLUDING INDEXES)"
            )
            share = (until - since) / timedelta(days=1)
            await connection.execute(
                _ROWS.format(table=table), since, until - since, max(1, round(rows * share / _DAYS))
            )
            await connection.execute(
                f"ALTER TABLE admin.usage_ledger ATTACH PARTITION admin.{table} "
                f"FOR VALUES FROM ('{since.date()}') TO ('{since.date() + timedelta(days=1)}')"
            )
            await _note_minutes(connection, since, until)
            keeper = Rollups(RollupStore(database), ManualClock(until.timestamp()), Metrics())
            for _ in range(3):  # minutes, hours, days: as if each had been noted in its time
                await connection.execute("UPDATE admin.usage_touched SET made_at = at")
                await _sum_up(keeper)
        for table in ("usage_minutes", "usage_hours", "usage_days", "usage_ledger"):
            await connection.execute(f"VACUUM ANALYZE admin.{table}")
    finally:
        await connection.close()


async def _sum_up(keeper: Rollups) -> None:
    """As it keeps them: what took too long for one transaction is done in smaller ones."""
    for _ in range(10):
        try:
            return await keeper.sum_up()
        except Unavailable:
            continue
    raise Unavailable("The sums of a day cannot be made on this machine now.")


async def _note_minutes(connection: Any, since: datetime, until: datetime) -> None:
    minutes = [since + timedelta(minutes=n) for n in range(-(-(until - since) // timedelta(minutes=1)))]
    await connection.execute(
        "INSERT INTO admin.usage_touched (span, at) SELECT 'minute', at FROM unnest($1::timestamptz[]) AS touched (at)",
        minutes,
    )
