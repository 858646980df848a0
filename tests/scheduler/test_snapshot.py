"""What a leader stores for its successor: read back as it was, and never written over by a leader of the past."""

from __future__ import annotations

import asyncio

from forebay.clock import SystemClock
from forebay.memory_bus import MemoryBus
from forebay.subjects import SCHEDULER_BUCKET
from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler.events import SessionOpened
from forebay_scheduler.introductions import Introductions
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import Epoch, GatewayName, SessionId
from forebay_scheduler.rules import Rules
from forebay_scheduler.snapshot import read_holdings, store_holdings


def _leader(revision: int, gateway: str) -> Policy:
    policy = Policy(Rules(), Epoch(1, revision), now=0.0)
    policy.apply((SessionOpened(SessionId(1), GatewayName(gateway), generation=1),), 0.0)
    return policy


async def _stored(bus: MemoryBus) -> scheduler_pb2.SchedulerSnapshot | None:
    entry = await (await bus.bucket(SCHEDULER_BUCKET)).get("holdings")
    return scheduler_pb2.SchedulerSnapshot.FromString(entry.value) if entry is not None else None


async def test_a_successor_reads_which_gateways_there_were() -> None:
    clock = SystemClock()
    bus = MemoryBus(clock.now)
    storing = asyncio.create_task(store_holdings(bus, _leader(1, "gateway-1"), clock, lambda: True, Introductions()))
    async with asyncio.timeout(10):
        while await _stored(bus) is None:
            await asyncio.sleep(0.02)
    storing.cancel()
    assert [holding.gateway for holding in await read_holdings(bus, clock)] == ["gateway-1"]


async def test_a_leader_of_the_past_does_not_write_over_its_successor() -> None:
    clock = SystemClock()
    bus = MemoryBus(clock.now)
    old = asyncio.create_task(store_holdings(bus, _leader(1, "known-to-the-old"), clock, lambda: True, Introductions()))
    new = asyncio.create_task(store_holdings(bus, _leader(2, "known-to-the-new"), clock, lambda: True, Introductions()))
    try:
        async with asyncio.timeout(15):
            await old  # it gives up by itself
        stored = await _stored(bus)
        assert stored is not None
        assert stored.epoch.revision == 2
        assert [one.gateway for one in stored.gateways] == ["known-to-the-new"]
        assert not new.done()
    finally:
        new.cancel()
