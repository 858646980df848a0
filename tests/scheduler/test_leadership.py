"""Two schedulers on one bus: one leads, and the other finds out."""

from __future__ import annotations

import asyncio

from forebay.clock import ManualClock, SystemClock
from forebay.memory_bus import MemoryBus
from forebay.nats_bus import open_nats_bus
from forebay.ops import Ops
from forebay.subjects import LEADER_BUCKET
from forebay_scheduler.leadership import Leadership
from tests.conftest import NatsServer


def one_of(bus: MemoryBus) -> Leadership:
    return Leadership(bus, ManualClock(), Ops("scheduler"), renew_every_s=0.01)


async def test_a_later_leader_has_a_later_epoch() -> None:
    bus = MemoryBus(lambda: 7.0)
    assert await one_of(bus).take() < await one_of(bus).take()


async def test_a_leader_that_was_followed_by_another_finds_out_at_its_next_renewal() -> None:
    bus = MemoryBus(lambda: 7.0)
    first, second = one_of(bus), one_of(bus)
    await first.take()
    await second.take()
    await asyncio.wait_for(first.renew(), 2)


async def test_the_one_that_took_the_lead_keeps_it() -> None:
    bus = MemoryBus(lambda: 7.0)
    first, second = one_of(bus), one_of(bus)
    await first.take()
    await second.take()
    losing, keeping = asyncio.create_task(first.renew()), asyncio.create_task(second.renew())
    try:
        await asyncio.wait([losing], timeout=2)
        await asyncio.sleep(0.1)
        assert losing.done()
        assert not keeping.done()
    finally:
        losing.cancel()
        keeping.cancel()
        await asyncio.wait([losing, keeping])


async def test_a_renewal_whose_answer_was_lost_does_not_cost_the_lead() -> None:
    bus = MemoryBus(lambda: 7.0)
    leader = one_of(bus)
    await leader.take()
    bucket = await bus.bucket(LEADER_BUCKET)
    written = await bucket.get("leader")
    assert written is not None
    await bucket.update("leader", written.value, written.revision)  # stored, and nobody heard of it
    renewing = asyncio.create_task(leader.renew())
    await asyncio.sleep(0.1)
    assert not renewing.done()
    renewing.cancel()
    await asyncio.wait([renewing])


async def test_while_the_bus_is_away_the_lead_is_kept_and_grows_old() -> None:
    bus, clock = MemoryBus(lambda: 7.0), ManualClock()
    leader = Leadership(bus, clock, Ops("scheduler"), renew_every_s=0.01)
    await leader.take()
    bus.is_connected = False
    renewing = asyncio.create_task(leader.renew())
    clock.advance(30.0)
    await asyncio.sleep(0.05)
    assert not renewing.done()
    assert leader.renewed_ago_s == 30.0
    bus.is_connected = True
    await asyncio.sleep(0.05)
    assert leader.renewed_ago_s == 0.0
    renewing.cancel()
    await asyncio.wait([renewing])


async def test_on_a_real_bus_and_with_its_own_rights_the_lead_passes_to_the_later_one(nats_server: NatsServer) -> None:
    seed = nats_server.seed_file("scheduler")
    async with (
        open_nats_bus(nats_server.url, "scheduler", seed_file=seed) as one_bus,
        open_nats_bus(nats_server.url, "scheduler", seed_file=seed) as other_bus,
    ):
        first = Leadership(one_bus, SystemClock(), Ops("scheduler"), renew_every_s=0.05)
        second = Leadership(other_bus, SystemClock(), Ops("scheduler"), renew_every_s=0.05)
        before, after = await first.take(), await second.take()
        assert before < after
        keeping = asyncio.create_task(second.renew())
        await asyncio.wait_for(first.renew(), 5)
        await asyncio.sleep(0.3)
        assert not keeping.done()
        assert second.renewed_ago_s < 0.3
        keeping.cancel()
        await asyncio.wait([keeping])
