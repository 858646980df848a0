"""Schedulers on one bus: one leads, the others stand by, and whoever lost the lead finds out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from forebay.bus import Bucket
from forebay.clock import ManualClock, SystemClock
from forebay.memory_bus import MemoryBus
from forebay.nats_bus import open_nats_bus
from forebay.ops import Ops
from forebay.subjects import LEADER_BUCKET
from forebay_scheduler import leadership as leadership_module
from forebay_scheduler.leadership import Leadership
from forebay_scheduler.request import Epoch
from tests.conftest import NatsServer
from tests.leaping_time import LoopClock, in_leaping_time

SOON_S = 60.0


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A tenth of a second for two, and the rest in proportion; the real server keeps real time."""
    if "nats_server" not in request.fixturenames:
        monkeypatch.setattr(leadership_module, "LEAD_LASTS_S", 0.1)
        monkeypatch.setattr(leadership_module, "_RETRY_S", 0.01)
        monkeypatch.setattr(leadership_module, "_CALL_S", 0.1)


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(lambda: 7.0)


def one_of(bus: MemoryBus, address: str = "") -> Leadership:
    return Leadership(bus, LoopClock(), Ops("scheduler"), renew_every_s=0.02, address=address)


async def won(leadership: Leadership) -> Epoch:
    return await asyncio.wait_for(leadership.win(), SOON_S)


@asynccontextmanager
async def renewing(leadership: Leadership) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(leadership.renew())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def the_bucket(bus: MemoryBus) -> Bucket:
    return await bus.bucket(LEADER_BUCKET, entries_live_s=leadership_module.LEAD_LASTS_S)


@in_leaping_time
async def test_an_epoch_is_when_the_bucket_was_made_and_the_revision_of_the_winning_write(bus: MemoryBus) -> None:
    assert await won(one_of(bus)) == Epoch(7_000_000, 1)


@in_leaping_time
async def test_who_comes_second_stands_by_and_can_say_where_the_leader_is(bus: MemoryBus) -> None:
    first, second = one_of(bus, "10.0.0.1:8093"), one_of(bus, "10.0.0.2:8093")
    await won(first)
    async with renewing(first):
        standing_by = asyncio.create_task(second.win())
        await asyncio.sleep(0.3)
        assert not standing_by.done()
        assert first.leader_address == second.leader_address == "10.0.0.1:8093"
        standing_by.cancel()


@in_leaping_time
async def test_when_a_leader_falls_silent_the_next_one_leads_with_a_later_epoch(bus: MemoryBus) -> None:
    first, second = one_of(bus), one_of(bus)
    before = await won(first)
    assert await won(second) > before
    assert second.is_certain


@in_leaping_time
async def test_of_many_that_stand_by_one_wins(bus: MemoryBus) -> None:
    trying = [asyncio.create_task(one_of(bus).win()) for _ in range(8)]
    winners, others = await asyncio.wait(trying, timeout=0.08)
    assert (len(winners), len(others)) == (1, 7)
    for task in others:
        task.cancel()


@in_leaping_time
async def test_a_leader_that_was_followed_by_another_finds_out_at_its_next_renewal(bus: MemoryBus) -> None:
    first, second = one_of(bus), one_of(bus, "10.0.0.2:8093")
    await won(first)
    await won(second)
    async with renewing(second) as keeping:
        await asyncio.wait_for(first.renew(), SOON_S)
        assert not first.is_certain
        assert first.leader_address == "10.0.0.2:8093"
        assert not keeping.done()


@in_leaping_time
async def test_a_leader_that_gives_up_is_followed_at_once(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership_module, "LEAD_LASTS_S", 60.0)
    async with one_of(bus) as first:
        before = await won(first)
        follower = asyncio.create_task(one_of(bus).win())
        await asyncio.sleep(0.05)
        assert not follower.done()
    assert await asyncio.wait_for(follower, 30) > before


@in_leaping_time
async def test_who_leads_no_more_gives_up_nothing(bus: MemoryBus) -> None:
    async with one_of(bus) as first:
        await won(first)
        second = one_of(bus)
        await won(second)
        await asyncio.wait_for(first.renew(), SOON_S)
    async with one_of(bus) as third:
        await won(third)
        await won(fourth := one_of(bus))
    entry = await (await the_bucket(bus)).get("leader")  # the third did not know yet when it left
    assert entry is not None
    assert fourth.is_certain


@in_leaping_time
async def test_a_renewal_whose_answer_was_lost_does_not_cost_the_lead(bus: MemoryBus) -> None:
    leader = one_of(bus)
    await won(leader)
    bucket = await the_bucket(bus)
    written = await bucket.get("leader")
    assert written is not None
    await bucket.update("leader", written.value, written.revision)  # stored, and nobody heard of it
    async with renewing(leader) as task:
        await asyncio.sleep(0.15)
        assert not task.done()
        assert leader.is_certain


@in_leaping_time
async def test_a_win_whose_answer_was_lost_is_a_win(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership_module, "LEAD_LASTS_S", 60.0)
    leader = one_of(bus)
    bucket = await the_bucket(bus)
    await bucket.update("leader", leader._value, 0)
    assert (await won(leader)).revision == 2


@in_leaping_time
async def test_while_the_bus_is_away_the_lead_is_kept_and_grows_old(bus: MemoryBus) -> None:
    clock, told = ManualClock(), list[bool]()
    leader = Leadership(bus, clock, Ops("scheduler"), renew_every_s=0.01, tell_away=told.append)
    await won(leader)
    async with renewing(leader) as task:
        bus.is_connected = False
        clock.advance(30.0)
        await asyncio.sleep(0.05)
        assert not task.done()
        assert leader.renewed_ago_s == 30.0
        assert not leader.is_certain
        assert told == [True]
        bus.is_connected = True
        await asyncio.sleep(0.05)
        assert leader.renewed_ago_s == 0.0
        assert told == [True, False]


@in_leaping_time
async def test_a_leader_whose_entry_ran_out_unseen_by_others_leads_on(bus: MemoryBus) -> None:
    leader = one_of(bus)
    await won(leader)
    async with renewing(leader) as task:
        bus.is_connected = False
        await asyncio.sleep(0.2)
        bus.is_connected = True
        await asyncio.sleep(0.1)
        assert not task.done()
        assert leader.is_certain


@in_leaping_time
async def test_a_leader_in_whose_absence_another_led_has_lost_though_nobody_leads_now(bus: MemoryBus) -> None:
    away, meanwhile = one_of(bus), one_of(bus)
    before = await won(away)
    await won(meanwhile)
    await asyncio.sleep(0.15)  # it died too
    assert await (await the_bucket(bus)).get("leader") is None
    await asyncio.wait_for(away.renew(), SOON_S)
    assert await won(away) > before


@in_leaping_time
async def test_after_an_outage_those_who_stand_by_let_the_leader_come_back_first(bus: MemoryBus) -> None:
    leader, other = one_of(bus), one_of(bus)
    await won(leader)
    async with renewing(leader) as task:
        standing_by = asyncio.create_task(other.win())
        await asyncio.sleep(0.05)
        bus.is_connected = False
        await asyncio.sleep(0.2)
        bus.is_connected = True
        await asyncio.sleep(0.3)
        assert not standing_by.done()
        assert not task.done()
    await asyncio.wait_for(standing_by, SOON_S)


@in_leaping_time
async def test_a_bucket_made_anew_ends_every_lead_of_the_old_one(bus: MemoryBus) -> None:
    leader = one_of(bus)
    await won(leader)
    bucket = await the_bucket(bus)
    bucket.created_at += 1.0  # and by chance the same revision
    await asyncio.wait_for(leader.renew(), SOON_S)
    assert (await won(leader)).term_us == 8_000_000


@in_leaping_time
async def test_a_value_that_is_not_ours_to_read_is_a_leader_without_an_address(bus: MemoryBus) -> None:
    await (await the_bucket(bus)).update("leader", b"\xff\x00", 0)
    leader = one_of(bus)
    await won(leader)


async def test_on_a_real_bus_and_with_its_own_rights_the_lead_passes_on_within_three_seconds(
    nats_server: NatsServer,
) -> None:
    seed, clock = nats_server.seed_file("scheduler"), SystemClock()
    async with (
        open_nats_bus(nats_server.url, "scheduler", seed_file=seed) as one_bus,
        open_nats_bus(nats_server.url, "scheduler", seed_file=seed) as other_bus,
        Leadership(one_bus, clock, Ops("scheduler")) as first,
        Leadership(other_bus, clock, Ops("scheduler")) as second,
    ):
        before = await asyncio.wait_for(first.win(), SOON_S)
        async with renewing(first):
            standing_by = asyncio.create_task(second.win())
            await asyncio.sleep(2.5)
            assert not standing_by.done()
            assert first.is_certain
        died_at = clock.monotonic()
        after = await asyncio.wait_for(standing_by, SOON_S)
        assert clock.monotonic() - died_at <= 10  # three, were the machine never busy
        assert after > before
        async with renewing(second) as keeping:
            await asyncio.wait_for(first.renew(), SOON_S)
            assert not keeping.done()

        given_up_at = clock.monotonic()
        await second.release()
        assert await asyncio.wait_for(first.win(), SOON_S) > after
        assert clock.monotonic() - given_up_at <= 10
