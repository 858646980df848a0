"""The ledger keeps each request once: under duplicates, redelivery, a transaction that dies in the middle, and midnight."""

from __future__ import annotations

import asyncio
import sysconfig
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from forebay.clock import SystemClock
from forebay.database import Database, open_database
from forebay.errors import Unavailable
from forebay.ledger_id import new_ledger_id
from forebay.memory_bus import MemoryBus
from forebay.metrics import Metrics
from forebay.nats_bus import NatsBus, open_nats_bus
from forebay.subjects import LEDGER_CONSUMER, USAGE_STREAM, usage
from forebay.wire.v1 import types_pb2, usage_pb2
from forebay_admin.ledger.ledger import Ledger
from forebay_admin.ledger.ledger_store import LedgerStore, Written
from forebay_admin.ledger.usage_rows import LedgerRow, Poison, parse_batch
from forebay_admin.service import MIGRATIONS
from tests.admin.replica import until
from tests.conftest import NatsServer

SUBJECT = usage("gateway-1")


def record(
    at: float, *, request_id: str = "", ledger_id: bytes | None = None, tokens: int = 5
) -> usage_pb2.UsageRecord:
    return usage_pb2.UsageRecord(
        ledger_id=ledger_id or new_ledger_id(at),
        request_id=request_id,
        gateway="gateway-1",
        model="tiny",
        outcome=types_pb2.OUTCOME_FINISHED,
        started_at_us=round(at * 1_000_000),
        duration_ms=10,
        usage=types_pb2.TokenUsage(completion_tokens=tokens, source=types_pb2.USAGE_SOURCE_ENGINE),
    )


def batch(*records: usage_pb2.UsageRecord) -> bytes:
    return usage_pb2.UsageBatch(records=records).SerializeToString()


def rows_of(*records: usage_pb2.UsageRecord) -> Sequence[LedgerRow]:
    return parse_batch(SUBJECT, batch(*records), datetime.now(UTC)).rows


@dataclass
class Books:
    """The ledger's tables, read by somebody else."""

    database: Database
    url: str

    async def fetch(self, sql: str) -> list[Any]:
        connection = await asyncpg.connect(self.url)
        try:
            rows: list[Any] = await connection.fetch(sql)
            return rows
        finally:
            await connection.close()

    async def ids(self) -> list[bytes]:
        return [row["ledger_id"].bytes for row in await self.fetch("SELECT ledger_id FROM admin.usage_ledger")]

    async def holds(self, count: int, within_s: float = 60.0) -> None:
        async with asyncio.timeout(within_s):
            while len(await self.ids()) < count:
                await asyncio.sleep(0.05)


@pytest.fixture
async def books(admin_database_url: str) -> AsyncIterator[Books]:
    async with open_database(admin_database_url, "admin") as database:
        await database.migrate(MIGRATIONS)
        yield Books(database, admin_database_url)


@asynccontextmanager
async def keeping(ledger: Ledger) -> AsyncIterator[None]:
    task = asyncio.create_task(ledger.keep())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_row_that_comes_again_changes_nothing_and_the_first_one_stays(books: Books) -> None:
    store, now = LedgerStore(books.database), time.time()
    first = record(now, tokens=5)
    lost = record(now, ledger_id=first.ledger_id, tokens=0)
    fresh = record(now)
    assert await store.write(rows_of(first), ()) == Written(rows=1, duplicates=0, dead_letters=0)
    assert await store.write(rows_of(lost, fresh), ()) == Written(rows=1, duplicates=1, dead_letters=0)
    assert await store.write(rows_of(first, fresh), ()) == Written(rows=0, duplicates=2, dead_letters=0)
    rows = await books.fetch("SELECT ledger_id, completion_tokens FROM admin.usage_ledger")
    assert {row["ledger_id"].bytes: row["completion_tokens"] for row in rows} == {
        first.ledger_id: 5,
        fresh.ledger_id: 5,
    }


async def test_of_two_rows_with_one_id_in_a_batch_the_first_wins(books: Books) -> None:
    one = record(time.time(), tokens=7)
    two = record(time.time(), ledger_id=one.ledger_id, tokens=8)
    assert await LedgerStore(books.database).write(rows_of(one, two), ()) == Written(1, 1, 0)
    rows = await books.fetch("SELECT completion_tokens FROM admin.usage_ledger")
    assert [row["completion_tokens"] for row in rows] == [7]


async def test_rows_on_both_sides_of_midnight_lie_in_their_days_and_stay_unique(books: Books) -> None:
    store = LedgerStore(books.database)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    both = [record(midnight - 0.001), record(midnight)]
    await store.write(rows_of(*both), ())
    assert await store.write(rows_of(*both), ()) == Written(0, 2, 0)
    rows = await books.fetch("SELECT tableoid::regclass::text AS place, day FROM admin.usage_ledger ORDER BY day")
    assert [row["place"] for row in rows] == [f"admin.usage_ledger_{row['day']:%Y%m%d}" for row in rows]
    assert rows[1]["day"] - rows[0]["day"] == timedelta(days=1)


async def test_a_day_long_past_gets_its_partition_when_a_row_comes(books: Books) -> None:
    store = LedgerStore(books.database)
    await store.prepare_days(datetime.now(UTC).date())
    await store.write(rows_of(record(time.time() - 40 * 86_400)), ())
    assert len(await books.ids()) == 1


async def test_a_partition_that_was_dropped_is_made_again(books: Books) -> None:
    store, now = LedgerStore(books.database), time.time()
    await store.write(rows_of(record(now)), ())
    await books.fetch(f"DROP TABLE admin.usage_ledger_{datetime.fromtimestamp(now, UTC):%Y%m%d}")
    assert await store.write(rows_of(record(now)), ()) == Written(1, 0, 0)


async def test_two_replicas_that_write_the_same_rows_at_once_keep_each_once(
    books: Books, admin_database_url: str
) -> None:
    now = time.time()
    records = [record(now) for _ in range(300)]
    async with open_database(admin_database_url, "admin") as other:
        stores = [LedgerStore(books.database), LedgerStore(other)]

        async def write(store: LedgerStore, chosen: list[usage_pb2.UsageRecord]) -> None:
            for start in range(0, len(chosen), 20):
                while True:
                    try:
                        await store.write(rows_of(*chosen[start : start + 20]), ())
                        break
                    except Unavailable:  # a deadlock, which the bus would answer with a redelivery
                        await asyncio.sleep(0.01)

        await asyncio.gather(write(stores[0], records), write(stores[1], records[::-1]))
    ids = await books.ids()
    assert len(ids) == len(set(ids)) == 300


async def test_a_dead_letter_is_kept_once_with_its_reason(books: Books) -> None:
    store = LedgerStore(books.database)
    letter = Poison(SUBJECT, b"\xff\xff", "not a UsageBatch")
    for _ in range(2):
        await store.write(rows_of(record(time.time())), (letter,))
    rows = await books.fetch("SELECT subject, payload, why FROM admin.dead_letters")
    assert [tuple(row) for row in rows] == [(SUBJECT, b"\xff\xff", "not a UsageBatch")]
    assert len(await books.ids()) == 2


async def test_a_row_that_postgres_refuses_becomes_a_dead_letter_and_the_others_are_kept(books: Books) -> None:
    good = rows_of(record(time.time()), record(time.time()))
    bad = good[0]._replace(ledger_id=UUID(bytes=new_ledger_id(time.time())), request_id="lone surrogate \ud800")
    written = await LedgerStore(books.database).write([good[0], bad, good[1]], ())
    assert written == Written(rows=2, duplicates=0, dead_letters=1)
    assert len(await books.fetch("SELECT 1 FROM admin.dead_letters")) == 1


class Interrupted(LedgerStore):
    """Dies before its first transaction, and again when its next one has committed but nobody was told."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.deaths = ["before", "after"]

    async def write(self, rows: Sequence[LedgerRow], poison: Sequence[Poison]) -> Written:
        death = self.deaths.pop(0) if self.deaths else None
        if death == "before":
            raise Unavailable("died before it wrote")
        written = await super().write(rows, poison)
        if death == "after":
            raise Unavailable("the answer to the commit was lost")
        return written


async def test_a_write_whose_answer_is_lost_loses_and_doubles_nothing(books: Books) -> None:
    clock = SystemClock()
    bus = MemoryBus(clock.now)
    store = Interrupted(books.database)
    await bus.ensure_stream(USAGE_STREAM)
    records = [record(time.time()) for _ in range(50)]
    async with keeping(Ledger(bus, store, clock, Metrics())):
        await bus.append(SUBJECT, batch(*records))
        await until(lambda: not store.deaths)
        await books.holds(50)
        await asyncio.sleep(0.5)
    assert sorted(await books.ids()) == sorted(r.ledger_id for r in records)


async def test_a_transaction_that_is_killed_in_the_middle_loses_and_doubles_nothing(books: Books) -> None:
    """Its COPY waits for a lock of ours; then Postgres ends its connection."""
    clock = SystemClock()
    bus = MemoryBus(clock.now)
    store = LedgerStore(books.database)
    await store.prepare_days(datetime.now(UTC).date())
    await bus.ensure_stream(USAGE_STREAM)
    records = [record(time.time()) for _ in range(50)]
    holder = await asyncpg.connect(books.url)
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    try:
        lock = holder.transaction()
        await lock.start()
        await holder.execute("LOCK TABLE admin.usage_ledger IN ACCESS EXCLUSIVE MODE")
        async with keeping(Ledger(bus, store, clock, Metrics())):
            await bus.append(SUBJECT, batch(*records))
            async with asyncio.timeout(10):
                while not (stuck := await books.fetch(waiting)):
                    await asyncio.sleep(0.02)
            await books.fetch(f"SELECT pg_terminate_backend({stuck[0]['pid']})")
            await lock.rollback()
            await books.holds(50)
    finally:
        await holder.close()
    assert sorted(await books.ids()) == sorted(r.ledger_id for r in records)


async def test_batches_that_come_again_over_nats_are_kept_once_and_poison_blocks_nothing(
    books: Books, nats_server: NatsServer
) -> None:
    clock = SystemClock()
    first = [record(time.time(), request_id=f"r{n}") for n in range(500)]
    second = [record(time.time()) for _ in range(20)]
    metrics = Metrics()
    async with (
        open_nats_bus(nats_server.url, "admin", seed_file=nats_server.seed_file("admin")) as bus,
        open_nats_bus(nats_server.url, "gateway-1", seed_file=nats_server.seed_file("gateway-1")) as gateway,
        keeping(Ledger(bus, LedgerStore(books.database), clock, metrics)),
    ):
        await gateway.wait_connected()
        await bus.wait_connected()
        await bus.ensure_stream(USAGE_STREAM)
        for payload in (
            batch(*first),
            b"\xff not a batch",
            batch(*first),
            batch(*first[:100], *second),
            batch(*second),
        ):
            await gateway.append(SUBJECT, payload)
        await books.holds(520)
        async with asyncio.timeout(10):
            while len(await books.fetch("SELECT 1 FROM admin.dead_letters")) < 1:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        told = metrics.exposition().decode()
    ids = await books.ids()
    assert len(ids) == len(set(ids)) == 520
    assert 'forebay_admin_ledger_rows_total{result="written"} 520.0' in told
    assert 'forebay_admin_ledger_rows_total{result="duplicate"} 620.0' in told
    assert "forebay_admin_dead_letters_total 1.0" in told


async def test_what_a_killed_clerk_did_not_acknowledge_another_one_writes_over_nats(
    books: Books, nats_server: NatsServer
) -> None:
    """Taken from the bus and never acknowledged, as by a process that was killed: given back, it comes again."""
    records = [record(time.time()) for _ in range(10)]
    async with open_nats_bus(nats_server.url, "admin", seed_file=nats_server.seed_file("admin")) as bus:
        await bus.wait_connected()
        await bus.ensure_stream(USAGE_STREAM)
        async with open_nats_bus(nats_server.url, "gateway-1", seed_file=nats_server.seed_file("gateway-1")) as gateway:
            await gateway.wait_connected()
            await gateway.append(SUBJECT, batch(*records))
        consumer = await bus.consumer(USAGE_STREAM, LEDGER_CONSUMER)
        taken = await consumer.fetch(10, 5)
        assert len(taken) == 1
        parsed = parse_batch(SUBJECT, taken[0].payload, datetime.now(UTC))
        await LedgerStore(books.database).write(parsed.rows, parsed.poison)  # committed, then killed before the ack
        await taken[0].give_back(0.0)
        async with keeping(Ledger(bus, LedgerStore(books.database), SystemClock(), Metrics())):
            async with asyncio.timeout(15):
                while await consumer.fetch(1, 0.2):
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)
    ids = await books.ids()
    assert sorted(ids) == sorted(r.ledger_id for r in records)


async def test_nothing_is_acknowledged_while_postgres_is_away(admin_database_url: str) -> None:
    """The address leads nowhere, then somewhere."""
    clock = SystemClock()
    bus = MemoryBus(clock.now)
    await bus.ensure_stream(USAGE_STREAM)
    records = [record(time.time()) for _ in range(5)]
    await bus.append(SUBJECT, batch(*records))
    nowhere = "postgresql://forebay:x@127.0.0.1:1/forebay"
    async with open_database(nowhere, "admin") as away, keeping(Ledger(bus, LedgerStore(away), clock, Metrics())):
        await asyncio.sleep(1.0)
    async with open_database(admin_database_url, "admin") as there:
        await there.migrate(MIGRATIONS)
        async with keeping(Ledger(bus, LedgerStore(there), clock, Metrics())):
            await Books(there, admin_database_url).holds(5)
        assert sorted(await Books(there, admin_database_url).ids()) == sorted(r.ledger_id for r in records)


async def test_a_bus_that_lost_everything_is_set_up_again_and_read_on(
    books: Books, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port, clock = free_port(), SystemClock()
    program = str(Path(sysconfig.get_path("scripts")) / "nats-server")

    async def start_nats(storage: Path) -> asyncio.subprocess.Process:
        words = ("-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(storage))
        return await asyncio.create_subprocess_exec(program, *words, stderr=asyncio.subprocess.DEVNULL)

    first, second = record(time.time()), record(time.time())
    server = await start_nats(tmp_path / "before")
    try:
        async with (
            open_nats_bus(f"nats://127.0.0.1:{port}", "admin") as bus,
            keeping(Ledger(bus, LedgerStore(books.database), clock, Metrics())),
        ):
            await _append(bus, batch(first))
            await books.holds(1)
            server.kill()
            await server.wait()
            server = await start_nats(tmp_path / "after")
            await _append(bus, batch(second))
            await books.holds(2)
    finally:
        server.kill()
        await server.wait()
    assert set(await books.ids()) == {first.ledger_id, second.ledger_id}


async def _append(bus: NatsBus, payload: bytes) -> None:
    """As a gateway does: again and again until the stream, which is the ledger's to make, has it."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await bus.append(SUBJECT, payload)
            except Unavailable:
                await asyncio.sleep(0.05)
