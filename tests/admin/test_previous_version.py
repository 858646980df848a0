"""Admin's version before, really running: on the schema that it made, on the same one while today's version upgrades it, and
on the newest one from its start. Each time it makes keys, tells gateways who holds them, enters what comes over the bus and
answers what was used; today's version takes over what it wrote."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from forebay.clock import ManualClock
from forebay.database import open_database
from forebay.ledger_id import new_ledger_id
from forebay.metrics import Metrics
from forebay.nats_bus import open_nats_bus
from forebay.subjects import usage
from forebay.wire.v1 import admin_pb2, types_pb2, usage_pb2
from forebay.wire.v1 import usage_queries_pb2 as wire
from forebay_admin.ledger.rollup_store import RollupStore
from forebay_admin.ledger.rollups import Rollups
from tests.admin import previous
from tests.admin.previous import Previous, open_previous, unpacked
from tests.admin.replica import OperatorCalls, Site, Start, WatchCalls
from tests.real_nats import RealNats

ACTIVE, REVOKED = admin_pb2.KEY_STATE_ACTIVE, admin_pb2.KEY_STATE_REVOKED
HOUR_S = 3600


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[RealNats]:
    with RealNats(tmp_path) as running:
        yield running


@pytest.mark.slow
async def test_the_version_before_runs_on_the_newest_schema_and_beside_today_s(
    start: Start, site: Site, postgres_url: str, nats: RealNats, free_port: Callable[[], int]
) -> None:
    def version_before() -> AbstractAsyncContextManager[Previous]:
        return open_previous(
            site, postgres_url, nats.url, port=free_port(), http_port=free_port(), ops_port=free_port()
        )

    async with version_before() as old:
        assert await _revision(postgres_url) == previous.REVISION
        await old.calls.AddUser(name="alice")
        first = (await old.calls.CreateKey(user="alice", name="first")).key
        await _told(old.gateway, first.id, ACTIVE)
        await _used(nats.url, first, 3, hours_ago=26)
        await _answered(old.calls, 3)

        async with start(database_url=postgres_url) as admin:
            today, gateway = await admin.operator(), await admin.watcher("gateway")
            assert await _revision(postgres_url) > previous.REVISION
            await _answered(today, 3)
            await _told(gateway, first.id, ACTIVE)
            second = (await today.CreateKey(user="alice", name="second", terms={"max_output_tokens": 5})).key
            await _told(old.gateway, second.id, ACTIVE)
            third = (await old.calls.CreateKey(user="alice", name="third")).key
            await _told(gateway, third.id, ACTIVE)
            await old.calls.RevokeKey(key_id=first.id)
            await _told(gateway, first.id, REVOKED)
            await today.RevokeKey(key_id=second.id)
            await _told(old.gateway, second.id, REVOKED)
            await _used(nats.url, third, 2, hours_ago=26)
            await _answered(today, 5)
            await _answered(old.calls, 5)

    async with version_before() as old:
        assert "schema_newer" in old.log.read_text()
        fourth = (await old.calls.CreateKey(user="alice", name="fourth")).key
        await _told(old.gateway, fourth.id, ACTIVE)
        await _told(old.gateway, first.id, REVOKED)
        await _used(nats.url, fourth, 4, hours_ago=2)
        await _answered(old.calls, 9)

    async with open_database(postgres_url, "admin") as database:
        await Rollups(RollupStore(database), ManualClock(time.time()), Metrics()).sum_up()
    async with start(database_url=postgres_url) as admin:
        today = await admin.operator()
        await _answered(today, 9)
        await _told(await admin.watcher("gateway"), fourth.id, ACTIVE)
        verified = (await today.VerifyAudit())[-1]
        assert (verified.done, verified.HasField("fault")) == (True, False)


def test_a_clone_without_that_commit_is_told_what_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previous, "COMMIT", "0" * 40)
    with pytest.raises(AssertionError, match="git fetch --unshallow"):
        unpacked()


async def _revision(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("SELECT version_num FROM admin.schema_version"))
    finally:
        await connection.close()


async def _told(watch: WatchCalls, key_id: str, state: Any) -> None:
    """Until gateways that watch hear so."""
    stream = watch.WatchPrincipals()
    async with asyncio.timeout(60):
        while True:
            update = await stream.read()
            if any((key.key_id, key.state) == (key_id, state) for key in update.keys):
                break
    stream.cancel()


async def _used(nats_url: str, key: Any, times: int, *, hours_ago: int) -> None:
    began = time.time() - hours_ago * HOUR_S
    record = usage_pb2.UsageRecord(
        gateway="gateway-1",
        key_id=key.id,
        user_id=key.user_id,
        model="small",
        outcome=types_pb2.OUTCOME_FINISHED,
        started_at_us=round(began * 1e6),
        duration_ms=10,
        usage=types_pb2.TokenUsage(prompt_tokens=10, completion_tokens=5, source=types_pb2.USAGE_SOURCE_ENGINE),
    )
    records = []
    for _ in range(times):
        record.ledger_id = new_ledger_id(began)
        records.append(usage_pb2.UsageRecord.FromString(record.SerializeToString()))
    async with open_nats_bus(nats_url, "gateway-1") as bus:
        await bus.wait_connected()
        await bus.append(usage("gateway-1"), usage_pb2.UsageBatch(records=records).SerializeToString())


async def _answered(calls: OperatorCalls, requests: int) -> None:
    """Until so many requests are told of, in all their sums."""
    asked = {
        "from_us": round((time.time() - 72 * HOUR_S) * 1e6),
        "by": [wire.USAGE_COLUMN_USER, wire.USAGE_COLUMN_MODEL],
    }
    async with asyncio.timeout(60):
        while (answer := await calls.QueryUsage(**asked)).total.requests < requests:
            await asyncio.sleep(0.05)
    assert [(line.user_name, line.model, line.sums.requests) for line in answer.lines] == [("alice", "small", requests)]
    assert (answer.total.requests, answer.total.completion_tokens) == (requests, 5 * requests)
