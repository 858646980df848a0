"""The scheduler's life: what it waits for, what it survives, what it leaves behind."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from forebay.config import read_file, read_settings
from forebay.errors import BadSettings
from forebay.subjects import LEDGER_CONSUMER, SCHEDULER_BUCKET, USAGE_STREAM, ceilings_key
from forebay.wire.v1 import scheduler_pb2, types_pb2, usage_pb2
from forebay_scheduler.config import SchedulerSettings
from forebay_scheduler.lending.ceiling_writes import shard_of
from forebay_scheduler.request import BackendId

House = Any
Until = Callable[..., Awaitable[None]]
Make = Callable[..., Any]


async def test_without_the_bus_it_waits_and_says_so(house: House, until: Until) -> None:
    house.bus.is_connected = False
    opening = asyncio.create_task(_open_for_a_moment(house))
    await until(lambda: "bus" in house.ops.missing)
    assert "NATS" in house.ops.missing["bus"]
    house.bus.is_connected = True
    await asyncio.wait_for(opening, 30)
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


async def test_a_ceiling_is_stored_before_its_gateway_is_told_of_it(house: House, make_backend: Make) -> None:
    """A successor keeps free what is stored, and would grant the rest a second time."""
    house.registry.tell(make_backend("gpu1", slots=2), snapshot=True)
    async with house.scheduler() as address, house.gateway(address, "g1") as g1:
        await g1.granted(*await g1.submit())
        async with house.gateway(address, "g2", generation=7) as g2:
            await g2.granted(*await g2.submit("bob"))
            stored = await _stored_ceilings(house)
            assert stored["g1", 1] >= g1.ceilings["gpu1"]
            assert stored["g2", 7] >= g2.ceilings["gpu1"]
            assert sum(stored.values()) == 2


async def test_a_gateway_without_a_ceiling_is_served_once_the_bus_is_back(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address:
        house.bus.is_connected = False
        async with house.gateway(address) as gateway:
            (asked,) = await gateway.submit()
            await asyncio.sleep(0.3)
            assert asked not in gateway.grants
            assert not gateway.rejects
            house.bus.is_connected = True
            await gateway.granted(asked)


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
    waiting = make_submit()
    async with (
        house.scheduler() as address,
        house.gateway(address, held=[before.held(running)], queued=[waiting], ceilings=before.acknowledged()) as after,
    ):
        old, new = before.frames[0].epoch, after.frames[0].epoch
        assert (new.term_us, new.revision) > (old.term_us, old.revision)
        await asyncio.sleep(0.2)
        assert waiting.ledger_id not in after.grants
        # The lease is of the leader before, and as good as its own.
        await after.say(settles=[before.settle_of(running)])
        await after.granted(waiting.ledger_id)


async def test_a_new_leader_gives_nobody_what_a_gateway_that_has_not_spoken_may_hold(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1", slots=2), make_backend("gpu2"), snapshot=True)
    async with house.scheduler() as address, house.gateway(address, "g1") as lost:
        first, second, third = await lost.submit(count=3)
        await lost.granted(first, second, third)
    async with house.scheduler() as address, house.gateway(address, "g2") as other:
        (asked,) = await other.submit()
        await asyncio.sleep(0.3)
        assert asked not in other.grants
        running = [lost.held(one) for one in (first, second, third)]
        async with house.gateway(address, "g1", held=running, ceilings=lost.acknowledged()) as back:
            await back.say(settles=[lost.settle_of(first)])
            await other.granted(asked)


async def test_an_end_is_confirmed_once_it_is_stored_and_a_new_leader_knows_it(
    house: House, make_backend: Make, make_submit: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as before:
        (ended,) = await before.submit()
        await before.granted(ended)
        await before.say(settles=[before.settle_of(ended)])
        assert ended not in before.settled
        await until(lambda: ended in before.settled)
    told_again = before.settle_of(ended)
    told_again.request.CopyFrom(make_submit(ledger_id=ended))
    async with house.scheduler() as address, house.gateway(address, unconfirmed=[told_again]) as after:
        await until(lambda: ended in after.settled)
        assert "forebay_scheduler_stale_settles_total 1.0" in house.ops.metrics.exposition().decode()


async def test_told_to_stop_it_sends_its_gateways_away(house: House, make_backend: Make, until: Until) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.gateway_outliving_its_scheduler() as gateway:
        assert gateway.frames[-1].draining
        assert gateway.error is None


async def test_a_second_scheduler_stands_by_and_leads_as_soon_as_the_first_is_told_to_stop(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    first = house.scheduler()
    address = await first.__aenter__()
    first_ops = house.ops
    async with house.gateway(address) as gateway, house.scheduler() as second:
        assert "lead" not in first_ops.missing
        assert "another" in house.ops.missing["lead"], "entered means that it answers, not that it leads"
        async with house.gateway(second, "g2") as refused:
            assert refused.error is not None
            assert refused.error.code() == grpc.StatusCode.UNAVAILABLE
            assert address in refused.error.details()
        (running,) = await gateway.submit()
        await gateway.granted(running)
        await first.__aexit__(None, None, None)
        await until(lambda: gateway.is_over)
        assert gateway.frames[-1].draining
        await until(lambda: "lead" not in house.ops.missing)
        async with house.gateway(second, held=[gateway.held(running)], ceilings=gateway.acknowledged()) as moved:
            await moved.say(settles=[gateway.settle_of(running)])
            await moved.granted(*await moved.submit())


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


async def _stored_ceilings(house: House) -> Counter[tuple[str, int]]:
    bucket = await house.bus.bucket(SCHEDULER_BUCKET)
    entry = await bucket.get(ceilings_key(shard_of(BackendId("gpu1"))))
    shard = scheduler_pb2.CeilingShard.FromString(entry.value)
    return Counter({(one.gateway, one.generation): one.slots["gpu1"] for one in shard.gateways})


def test_the_sample_of_settings_is_one_that_can_be_read_and_shows_the_defaults() -> None:
    folder = Path(__file__).parents[2] / "services" / "scheduler"
    settings = read_settings(SchedulerSettings, "scheduler", file=read_file(folder / "scheduler.toml"), environ={})
    required = {"token_file", "callers_file", "snapshot_dir", "snapshot_key_file"}
    for field in dataclasses.fields(settings):
        assert field.name in required or getattr(settings, field.name) == field.default


@pytest.mark.parametrize(("heartbeat_s", "heard_within_s"), [(0.1, 1.5), (1.0, 1.5), (3.0, 4.5)])
def test_a_gateway_is_silent_when_it_missed_more_than_a_heartbeat_however_long_that_is(
    heartbeat_s: float, heard_within_s: float
) -> None:
    file = Path("/somewhere")
    settings = SchedulerSettings(
        token_file=file, callers_file=file, snapshot_dir=file, snapshot_key_file=file, heartbeat_s=heartbeat_s
    )
    assert settings.rules().heard_within_s == heard_within_s


@pytest.mark.parametrize("copies", [0, 6])
def test_more_copies_than_a_cluster_of_nats_keeps_are_refused_at_the_start(copies: int) -> None:
    named = {name: "/somewhere" for name in ("token_file", "callers_file", "snapshot_dir", "snapshot_key_file")}
    with pytest.raises(BadSettings, match="nats_replicas: it must be from 1 to 5"):
        read_settings(SchedulerSettings, "scheduler", file={"scheduler": named | {"nats_replicas": copies}}, environ={})
