"""The scheduler's life: what it waits for, what it survives, what it leaves behind."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import forebay_scheduler
from forebay.config import read_file, read_settings
from forebay.subjects import LEDGER_CONSUMER, SCHEDULER_BUCKET, USAGE_STREAM
from forebay.wire.v1 import scheduler_pb2, types_pb2, usage_pb2
from forebay_scheduler.config import SchedulerSettings

House = Any
Until = Callable[..., Awaitable[None]]
Make = Callable[..., Any]


async def test_without_the_bus_it_waits_and_says_so(house: House, until: Until) -> None:
    house.bus.is_connected = False
    opening = asyncio.create_task(_open_for_a_moment(house))
    await until(lambda: "bus" in house.ops.missing)
    assert "NATS" in house.ops.missing["bus"]
    house.bus.is_connected = True
    await asyncio.wait_for(opening, 5)
    assert "bus" not in house.ops.missing


async def _open_for_a_moment(house: House) -> None:
    async with house.scheduler():
        pass


async def test_without_a_fleet_it_is_not_ready_and_requests_wait(
    house: House, make_backend: Make, until: Until
) -> None:
    async with house.scheduler() as address, house.gateway(address) as gateway:
        assert "fleet" in house.ops.missing
        (asked,) = await gateway.submit()
        await asyncio.sleep(0.1)
        assert not gateway.rejects
        house.registry.tell(make_backend("gpu1"), snapshot=True)
        await gateway.granted(asked)
        assert "fleet" not in house.ops.missing


async def test_a_gateway_is_named_in_the_stored_snapshot_before_it_is_given_anything(
    house: House, make_backend: Make, until: Until
) -> None:
    """A successor waits for those that are named, and grants what the others hold a second time."""
    house.registry.tell(make_backend("gpu1", slots=2), snapshot=True)
    async with house.scheduler() as address, house.gateway(address, "g1") as g1:
        await g1.granted(*await g1.submit())
        async with house.gateway(address, "g2", generation=7) as g2:
            await g2.granted(*await g2.submit("bob"))
            stored = await (await house.bus.bucket(SCHEDULER_BUCKET)).get("holdings")
            named = scheduler_pb2.SchedulerSnapshot.FromString(stored.value).gateways
            assert {(one.gateway, one.generation) for one in named} == {("g1", 1), ("g2", 7)}


async def test_a_new_gateway_is_served_while_the_bus_is_away_too(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address:
        house.bus.is_connected = False
        async with house.gateway(address) as gateway:
            await gateway.granted(*await gateway.submit())
        house.bus.is_connected = True


async def test_when_the_bus_goes_away_later_it_goes_on_and_its_renewal_grows_old(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        house.bus.is_connected = False
        (asked,) = await gateway.submit()
        await gateway.granted(asked)
        await until(lambda: gateway.frames[-1].renewed_ago_ms > 300)
        assert "bus" not in house.ops.missing
        house.bus.is_connected = True
        await until(lambda: gateway.frames[-1].renewed_ago_ms < 300)


async def test_it_starts_from_the_fleet_it_knew_when_the_registry_is_away(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    kept = house.settings().snapshot_dir / "fleet.snapshot"
    async with house.scheduler():
        await until(kept.exists)
    assert b"gpu1" not in kept.read_bytes()
    house.registry_address = "127.0.0.1:9"
    async with house.scheduler() as address, house.gateway(address) as gateway:
        (asked,) = await gateway.submit()
        await gateway.granted(asked)
        assert "fleet" not in house.ops.missing


async def test_a_new_leader_has_a_later_epoch_and_takes_over_what_gateways_hold(
    house: House, make_backend: Make, make_submit: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as before:
        (running,) = await before.submit()
        await before.granted(running)
        await _stored(house, "g1")
    waiting = make_submit()
    async with (
        house.scheduler() as address,
        house.gateway(address, held=[before.held(running)], queued=[waiting]) as after,
    ):
        old, new = before.frames[0].epoch, after.frames[0].epoch
        assert (new.term_us, new.revision) > (old.term_us, old.revision)
        await asyncio.sleep(0.2)
        assert waiting.ledger_id not in after.grants
        # The lease is of the leader before, and as good as its own.
        await after.say(settles=[before.settle_of(running)])
        await after.granted(waiting.ledger_id)


async def test_a_new_leader_grants_nothing_until_the_gateways_it_knows_of_have_spoken(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1", slots=2), snapshot=True)
    async with house.scheduler() as address, house.gateway(address, "g1") as lost:
        (running,) = await lost.submit()
        await lost.granted(running)
        await _stored(house, "g1")
    async with house.scheduler() as address, house.gateway(address, "g2") as other:
        (asked,) = await other.submit()
        await asyncio.sleep(0.3)
        assert asked not in other.grants
        async with house.gateway(address, "g1", held=[lost.held(running)]):
            await other.granted(asked)


async def test_a_new_leader_does_not_wait_for_a_lost_gateway_for_ever(house: House, make_backend: Make) -> None:
    house.registry.tell(make_backend("gpu1", slots=2), snapshot=True)
    async with house.scheduler() as address, house.gateway(address, "g1") as lost:
        first, second = await lost.submit(count=2)
        await lost.granted(first, second)
        await lost.say(settles=[lost.settle_of(second)])
        await _stored(house, "g1")
        await asyncio.sleep(1.1)
    async with house.scheduler(recovery_grace_s=0.3) as address, house.gateway(address, "g2") as other:
        asked, behind = await other.submit(count=2)
        await other.granted(asked)
        shown = await house.show(address)
        assert (shown.held[0].held, shown.held[0].quarantined) == (1, 1)
        assert behind not in other.grants


async def test_told_to_stop_it_sends_its_gateways_away(house: House, make_backend: Make, until: Until) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.gateway_outliving_its_scheduler() as gateway:
        assert gateway.frames[-1].draining
        assert gateway.error is None


async def test_a_second_scheduler_takes_the_lead_and_the_first_says_so_and_grants_nothing(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as first, house.gateway(first) as gateway:
        first_ops = house.ops
        async with house.scheduler() as second:
            await until(lambda: "lead" in first_ops.missing)
            await until(lambda: gateway.is_over)
            assert gateway.frames[-1].draining
            async with house.gateway(second) as moved:
                (asked,) = await moved.submit()
                await moved.granted(asked)
            assert "lead" not in house.ops.missing


async def test_requests_of_a_gateway_that_does_not_return_become_rows_of_the_ledger(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler(orphan_after_s=0.3) as address:
        async with house.gateway(address, "g1", generation=4) as lost:
            labels = {"request_id": "label", "key_id": "k1", "group_id": "team", "started_at_us": 123}
            running, waiting = await lost.submit("alice", count=2, prompt_tokens=7, **labels)
            await lost.granted(running)
        consumer = await house.bus.consumer(USAGE_STREAM, LEDGER_CONSUMER)
        (delivery,) = await consumer.fetch(1, wait_s=5)
    rows = {row.ledger_id: row for row in usage_pb2.UsageBatch.FromString(delivery.payload).records}
    assert set(rows) == {running, waiting}
    assert all(row.outcome == types_pb2.OUTCOME_GATEWAY_LOST for row in rows.values())
    assert (rows[running].backend_id, rows[waiting].backend_id) == ("gpu1", "")
    row = rows[running]
    assert (row.gateway, row.generation, row.user_id, row.key_id, row.group_id) == ("g1", 4, "alice", "k1", "team")
    assert (row.request_id, row.model, row.pool, row.started_at_us, row.attempts) == ("label", "m", "default", 123, 1)


async def test_a_scrape_shows_what_was_decided(house: House, make_backend: Make, until: Until) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        granted, _ = await gateway.submit(count=2)
        await gateway.granted(granted)
        (refused,) = await gateway.submit(width=9)
        await until(lambda: refused in gateway.rejects)
        text = house.ops.metrics.exposition().decode()
    assert "forebay_scheduler_grants_total 1.0" in text
    assert 'forebay_scheduler_rejects_total{reason="width_too_large"} 1.0' in text
    assert "forebay_scheduler_waiting 1.0" in text
    assert 'forebay_scheduler_slots{backend="gpu1",what="held"} 1.0' in text


async def _stored(house: House, gateway: str) -> None:
    """Until the bus holds who holds what."""
    bucket = await house.bus.bucket("forebay-scheduler")
    async with asyncio.timeout(5):
        while True:
            entry = await bucket.get("holdings")
            if entry is not None and gateway.encode() in entry.value and b"gpu1" in entry.value:
                return
            await asyncio.sleep(0.02)


def test_the_sample_of_settings_is_one_that_can_be_read_and_shows_the_defaults() -> None:
    folder = Path(forebay_scheduler.__file__).parent.parent
    settings = read_settings(SchedulerSettings, "scheduler", file=read_file(folder / "scheduler.toml"), environ={})
    required = {"token_file", "callers_file", "snapshot_dir", "snapshot_key_file"}
    for field in dataclasses.fields(settings):
        assert field.name in required or getattr(settings, field.name) == field.default
