"""A leader's whole state on the bus: stored whole or not at all, found by the next leader, and stopped by it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from forebay.clock import ManualClock
from forebay.errors import Unavailable
from forebay.memory_bus import MemoryBus
from forebay.nats_bus import open_nats_bus
from forebay.subjects import MAX_PAYLOAD_BYTES, SCHEDULER_BUCKET, STATE_KEY, state_part_key
from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler import state_store
from forebay_scheduler.fencing import Deposed, TooLargeToStore
from forebay_scheduler.request import Epoch
from forebay_scheduler.state_store import PART_BYTES, StateStore
from tests.conftest import NatsServer

FIRST, SECOND, THIRD = Epoch(7, 1), Epoch(7, 5), Epoch(8, 1)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_store, "_RETRY_S", 0.01)


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(lambda: 7.0)


def state(mark: str, size: int = 0) -> scheduler_pb2.SchedulerState:
    """At least of that size; no two marks make the same parts."""
    return scheduler_pb2.SchedulerState(settled=[mark.encode(), random.Random(mark).randbytes(size)])


def mark_of(found: scheduler_pb2.SchedulerState | None) -> str | None:
    return found.settled[0].decode() if found else None


async def store_of(bus: MemoryBus, epoch: Epoch) -> StateStore:
    store = StateStore(bus, ManualClock())
    await store.claim(epoch)
    return store


async def found_by(bus: MemoryBus, epoch: Epoch) -> tuple[int, str | None]:
    number, found = await StateStore(bus, ManualClock()).claim(epoch)
    return number, mark_of(found)


async def test_the_first_leader_finds_nothing(bus: MemoryBus) -> None:
    assert await StateStore(bus, ManualClock()).claim(FIRST) == (0, None)


@pytest.mark.parametrize("size", [0, PART_BYTES // 2, 3 * PART_BYTES])
async def test_the_next_leader_finds_the_last_state_whole(bus: MemoryBus, size: int) -> None:
    store = await store_of(bus, FIRST)
    for mark in ("a", "b", "c"):
        await store.write(state(mark, size).SerializeToString())
    number, found = await StateStore(bus, ManualClock()).claim(SECOND)
    assert (number, found) == (3, state("c", size))


async def test_no_message_is_longer_than_the_bus_takes(bus: MemoryBus) -> None:
    store = await store_of(bus, FIRST)
    await store.write(state("a", 2_000_000).SerializeToString())
    bucket = await bus.bucket(SCHEDULER_BUCKET)
    for part in range(5):
        entry = await bucket.get(state_part_key(1, part))
        assert entry is not None
        assert 0 < len(entry.value) < MAX_PAYLOAD_BYTES


async def test_a_smaller_state_after_a_larger_one_is_found_too(bus: MemoryBus) -> None:
    store = await store_of(bus, FIRST)
    for mark, size in (("a", 3 * PART_BYTES), ("b", 3 * PART_BYTES), ("c", 10), ("d", 10)):
        await store.write(state(mark, size).SerializeToString())
    assert await found_by(bus, SECOND) == (4, "d")


async def test_numbers_count_on_over_leaders(bus: MemoryBus) -> None:
    await (await store_of(bus, FIRST)).write(state("a").SerializeToString())
    assert await (await store_of(bus, SECOND)).write(state("b").SerializeToString()) == 2
    assert await found_by(bus, THIRD) == (2, "b")


async def test_a_leader_that_stored_nothing_yet_hands_on_what_it_found(bus: MemoryBus) -> None:
    await (await store_of(bus, FIRST)).write(state("a").SerializeToString())
    await store_of(bus, SECOND)
    assert await found_by(bus, THIRD) == (1, "a")


async def test_a_deposed_leader_stores_nothing_more(bus: MemoryBus) -> None:
    old = await store_of(bus, FIRST)
    await old.write(state("a").SerializeToString())
    await store_of(bus, SECOND)
    with pytest.raises(Deposed):
        await old.write(state("b").SerializeToString())
    with pytest.raises(Deposed):
        await old.write(state("c").SerializeToString())
    with pytest.raises(Deposed):
        await StateStore(bus, ManualClock()).claim(FIRST)
    assert await found_by(bus, THIRD) == (1, "a")


@pytest.mark.parametrize("calls", range(9))
async def test_a_deposed_leader_in_the_middle_of_a_write_leaves_its_successors_state_whole(calls: int) -> None:
    """It stops for a while after so many calls, in which its successor stores states of its own."""
    bus = PausedBus()
    old = await store_of(bus, FIRST)
    bus.pause_after = calls
    writing = asyncio.create_task(old.write(state("old", 2 * PART_BYTES).SerializeToString()))
    await asyncio.sleep(0.01)
    bus.lets_others = True
    new = await store_of(bus, SECOND)
    for mark in ("x", "y", "z")[: 1 + calls % 3]:
        await new.write(state(mark, 2 * PART_BYTES).SerializeToString())
        last = mark
    bus.resume.set()
    (outcome,) = await asyncio.gather(writing, return_exceptions=True)
    _, found = await found_by(bus, THIRD)
    assert found == last
    assert isinstance(outcome, Deposed) or outcome == 1


async def test_while_the_bus_is_away_the_last_state_stands_and_the_next_one_is_stored_after(bus: MemoryBus) -> None:
    store = await store_of(bus, FIRST)
    await store.write(state("a").SerializeToString())
    bus.is_connected = False
    with pytest.raises(Unavailable):
        await store.write(state("b").SerializeToString())
    bus.is_connected = True
    assert await store.write(state("c").SerializeToString()) == 2
    assert await found_by(bus, SECOND) == (2, "c")


async def test_whatever_answers_are_lost_a_state_that_was_confirmed_is_found_or_a_later_one() -> None:
    chance = random.Random(11)
    for _ in range(20):
        bus = LossyBus(chance)
        store, confirmed = await store_of(bus, FIRST), 0
        for attempt in range(1, 12):
            try:
                await store.write(state(str(attempt), PART_BYTES * (attempt % 3)).SerializeToString())
                confirmed = attempt
            except Unavailable:
                pass
        bus.loss = 0.0
        _, found = await found_by(bus, SECOND)
        assert int(found or 0) >= confirmed
        assert confirmed > 3


async def test_a_claim_waits_for_the_bus(bus: MemoryBus) -> None:
    bus.is_connected = False
    claiming = asyncio.create_task(StateStore(bus, ManualClock()).claim(FIRST))
    await asyncio.sleep(0.05)
    assert not claiming.done()
    bus.is_connected = True
    assert await asyncio.wait_for(claiming, 30) == (0, None)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        ("part changed", "its digest does not agree with its parts"),
        ("part deleted", "a part is missing"),
        ("manifest unreadable", "the manifest is not readable"),
    ],
)
async def test_what_cannot_be_trusted_is_not_used_and_the_log_says_why(
    bus: MemoryBus, caplog: pytest.LogCaptureFixture, harm: str, why: str
) -> None:
    store = await store_of(bus, FIRST)
    await store.write(state("a", 2 * PART_BYTES).SerializeToString())
    bucket = await bus.bucket(SCHEDULER_BUCKET)
    key = STATE_KEY if harm == "manifest unreadable" else state_part_key(1, 1)
    entry = await bucket.get(key)
    assert entry is not None
    if harm == "part deleted":
        await bucket.delete(key, entry.revision)
    else:
        await bucket.put(key, b"\xff" + entry.value[1:])
    successor = StateStore(bus, ManualClock())
    assert (await successor.claim(SECOND))[1] is None
    assert [vars(r)["why"] for r in caplog.records if vars(r).get("action") == "state_bad"] == [why]
    await successor.write(state("b").SerializeToString())
    assert (await found_by(bus, THIRD))[1] == "b"


async def test_what_is_too_large_is_refused_and_the_last_state_stands(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await store_of(bus, FIRST)
    await store.write(state("a").SerializeToString())
    monkeypatch.setattr(state_store, "MOST_BYTES", 1000)
    with pytest.raises(TooLargeToStore, match="1000"):
        await store.write(state("b", 2000).SerializeToString())
    assert await found_by(bus, SECOND) == (1, "a")


async def test_on_the_real_bus_with_the_schedulers_own_rights(nats_server: NatsServer) -> None:
    base, seed = 1 << 60, nats_server.seed_file("scheduler")
    async with open_nats_bus(nats_server.url, "scheduler", seed_file=seed) as bus:
        await asyncio.wait_for(bus.wait_connected(), 10)
        old, new = StateStore(bus, ManualClock()), StateStore(bus, ManualClock())
        await old.claim(Epoch(base, 1))
        for mark in ("a", "b"):
            number = await old.write(state(mark, 3_000_000).SerializeToString())
        assert await new.claim(Epoch(base, 2)) == (number, state("b", 3_000_000))
        with pytest.raises(Deposed):
            await old.write(state("c").SerializeToString())
        bucket = await bus.bucket(SCHEDULER_BUCKET)
        entry = await bucket.get(STATE_KEY)
        assert entry is not None
        await bucket.delete(STATE_KEY, entry.revision)  # as it was, for those who come after


class PausedBus(MemoryBus):
    """Stands still before the call after `pause_after` of them, until `resume`; `lets_others` lets new calls through."""

    def __init__(self) -> None:
        super().__init__(lambda: 7.0)
        self.pause_after = -1
        self.lets_others = False
        self.resume = asyncio.Event()

    async def bucket(self, name: str, *, entries_live_s: float | None = None) -> Any:
        return PausedBucket(await super().bucket(name, entries_live_s=entries_live_s), self)

    async def step(self) -> None:
        if self.pause_after < 0 or self.lets_others:
            return
        self.pause_after -= 1
        if self.pause_after < 0:
            await self.resume.wait()


class PausedBucket:
    def __init__(self, bucket: object, bus: PausedBus) -> None:
        self._bucket, self._bus = bucket, bus

    def __getattr__(self, name: str) -> object:
        async def call(*arguments: object) -> object:
            await self._bus.step()
            return await getattr(self._bucket, name)(*arguments)

        return call


class LossyBus(MemoryBus):
    """Some calls fail before they are made, some after."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(lambda: 7.0)
        self.loss = 0.1
        self.chance = chance

    async def bucket(self, name: str, *, entries_live_s: float | None = None) -> Any:
        return LossyBucket(await super().bucket(name, entries_live_s=entries_live_s), self)


class LossyBucket:
    def __init__(self, bucket: object, bus: LossyBus) -> None:
        self._bucket, self._bus = bucket, bus

    def __getattr__(self, name: str) -> object:
        async def call(*arguments: object) -> object:
            drawn = self._bus.chance.random()
            if drawn < self._bus.loss / 2:
                raise Unavailable("The call was lost.")
            result = await getattr(self._bucket, name)(*arguments)
            if drawn < self._bus.loss:
                raise Unavailable("The answer was lost.")
            return result

        return call
