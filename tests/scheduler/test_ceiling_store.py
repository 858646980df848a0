"""Ceilings on the bus: what one leader stored the next one finds, and nobody writes after a later leader."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from forebay.clock import ManualClock
from forebay.errors import Unavailable
from forebay.memory_bus import MemoryBus
from forebay.nats_bus import open_nats_bus
from forebay.subjects import SCHEDULER_BUCKET, ceilings_key
from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler import ceiling_store
from forebay_scheduler.ceiling_store import CeilingStore
from forebay_scheduler.decisions import StoreCeilings, StoredCeilings
from forebay_scheduler.fencing import Deposed, TooLargeToStore
from forebay_scheduler.lending.ceiling_writes import SHARDS
from forebay_scheduler.request import BackendId, Epoch, GatewayName
from tests.conftest import NatsServer

FIRST, SECOND, THIRD = Epoch(7, 1), Epoch(7, 5), Epoch(8, 1)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling_store, "_RETRY_S", 0.01)


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(lambda: 7.0)


def holding(
    gateway: str, slots: dict[str, int], generation: int = 1, *, silent_s: float = 0.0, is_dead: bool = False
) -> StoredCeilings:
    by_backend = {BackendId(backend): count for backend, count in slots.items()}
    return StoredCeilings(GatewayName(gateway), generation, by_backend, silent_s, is_dead)


def order(shards: dict[int, list[StoredCeilings]]) -> StoreCeilings:
    return StoreCeilings(1, shards)


async def store_of(bus: MemoryBus, epoch: Epoch, clock: ManualClock | None = None) -> CeilingStore:
    store = CeilingStore(bus, clock or ManualClock())
    await store.claim(epoch)
    return store


async def stored_epochs(bus: MemoryBus) -> set[int]:
    bucket = await bus.bucket(SCHEDULER_BUCKET)
    epochs = set()
    for number in range(SHARDS):
        entry = await bucket.get(ceilings_key(number))
        assert entry is not None
        epochs.add(scheduler_pb2.CeilingShard.FromString(entry.value).epoch.revision)
    return epochs


async def test_the_first_leader_finds_nothing_and_makes_every_shard_its_own(bus: MemoryBus) -> None:
    assert await CeilingStore(bus, ManualClock()).claim(FIRST) == []
    assert await stored_epochs(bus) == {FIRST.revision}


async def test_what_one_leader_stored_the_next_one_finds(bus: MemoryBus) -> None:
    clock = ManualClock()
    store = await store_of(bus, FIRST, clock)
    await store.store(
        order({0: [holding("g1", {"a": 3, "b": 1}), holding("g2", {"a": 1}, 7, silent_s=2.0, is_dead=True)]})
    )
    await store.store(order({3: [holding("g1", {"c": 2})]}))
    clock.advance(10.0)
    found = await CeilingStore(bus, clock).claim(SECOND)
    assert sorted(found, key=lambda ceilings: ceilings.gateway) == [
        holding("g1", {"a": 3, "b": 1, "c": 2}, silent_s=10.0),
        holding("g2", {"a": 1}, 7, silent_s=12.0, is_dead=True),
    ]


async def test_a_shard_is_stored_whole(bus: MemoryBus) -> None:
    store = await store_of(bus, FIRST)
    await store.store(order({0: [holding("g1", {"a": 3}), holding("g2", {"a": 1})]}))
    await store.store(order({0: [holding("g2", {"a": 4})]}))
    assert await CeilingStore(bus, ManualClock()).claim(SECOND) == [holding("g2", {"a": 4})]


async def test_two_processes_of_one_gateway_are_two(bus: MemoryBus) -> None:
    store = await store_of(bus, FIRST)
    await store.store(order({0: [holding("g1", {"a": 2}, 1, is_dead=True), holding("g1", {"a": 1}, 2)]}))
    assert len(await CeilingStore(bus, ManualClock()).claim(SECOND)) == 2


async def test_a_writer_whose_clock_is_ahead_has_heard_of_nobody_in_the_future(bus: MemoryBus) -> None:
    store = await store_of(bus, FIRST, ManualClock(now=2_000_000_000.0))
    await store.store(order({0: [holding("g1", {"a": 1})]}))
    found = await CeilingStore(bus, ManualClock(now=1_900_000_000.0)).claim(SECOND)
    assert found == [holding("g1", {"a": 1}, silent_s=0.0)]


async def test_a_deposed_leader_stores_nothing_more_not_even_where_its_successor_wrote_nothing_new(
    bus: MemoryBus,
) -> None:
    old = await store_of(bus, FIRST)
    await old.store(order({5: [holding("g1", {"a": 1})]}))
    await store_of(bus, SECOND)
    for shard in (5, 11):
        with pytest.raises(Deposed):
            await old.store(order({shard: [holding("g1", {"a": 2})]}))
    assert await CeilingStore(bus, ManualClock()).claim(THIRD) == [holding("g1", {"a": 1})]


async def test_a_deposed_leader_cannot_claim_either(bus: MemoryBus) -> None:
    await store_of(bus, SECOND)
    with pytest.raises(Deposed, match="7/5"):
        await CeilingStore(bus, ManualClock()).claim(FIRST)


async def test_what_the_old_leader_stores_while_the_new_one_claims_is_found_or_refused() -> None:
    """Whatever the order in which the two reach the bus."""
    chance = random.Random(3)
    found_it, refused_it = 0, 0
    for _ in range(30):
        bus = HurdledBus(chance)
        old, new = await store_of(bus, FIRST), CeilingStore(bus, ManualClock())
        writes = asyncio.gather(
            *(old.store(order({number: [holding("g1", {f"b{number}": 1})]})) for number in range(SHARDS)),
            return_exceptions=True,
        )
        claimed = await new.claim(SECOND)
        outcomes = await writes
        known = set(claimed[0].slots) if claimed else set()
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, Deposed):
                refused_it += 1
            else:
                assert outcome is None
                assert BackendId(f"b{number}") in known  # confirmed to the old leader, so it may have been told
                found_it += 1
    assert found_it > 20
    assert refused_it > 20


async def test_while_the_bus_is_away_a_write_waits_and_says_so(bus: MemoryBus) -> None:
    told: list[bool] = []
    store = CeilingStore(bus, ManualClock(), told.append)
    await store.claim(FIRST)
    bus.is_connected = False
    writing = asyncio.create_task(store.store(order({0: [holding("g1", {"a": 3})]})))
    await asyncio.sleep(0.05)
    assert not writing.done()
    assert told == [True]
    bus.is_connected = True
    await asyncio.wait_for(writing, 30)
    assert told == [True, False]


async def test_a_claim_waits_for_the_bus(bus: MemoryBus) -> None:
    bus.is_connected = False
    claiming = asyncio.create_task(CeilingStore(bus, ManualClock()).claim(FIRST))
    await asyncio.sleep(0.05)
    assert not claiming.done()
    bus.is_connected = True
    assert await asyncio.wait_for(claiming, 30) == []


async def test_a_write_whose_answer_was_lost_is_made_sure_of(bus: MemoryBus) -> None:
    store = await store_of(bus, FIRST)
    bucket = await bus.bucket(SCHEDULER_BUCKET)
    entry = await bucket.get(ceilings_key(0))
    assert entry is not None
    await bucket.put(ceilings_key(0), entry.value)  # ours, by its epoch
    await store.store(order({0: [holding("g1", {"a": 3})]}))
    assert await CeilingStore(bus, ManualClock()).claim(SECOND) == [holding("g1", {"a": 3})]


async def test_orders_are_stored_in_the_order_in_which_they_came(bus: MemoryBus) -> None:
    store = await store_of(bus, FIRST)
    bus.is_connected = False
    writing = [asyncio.create_task(store.store(order({0: [holding("g1", {"a": n})]}))) for n in (1, 2, 3)]
    await asyncio.sleep(0.05)
    bus.is_connected = True
    await asyncio.wait_for(asyncio.gather(*writing), 30)
    assert await CeilingStore(bus, ManualClock()).claim(SECOND) == [holding("g1", {"a": 3})]


async def test_what_does_not_fit_is_refused_before_anything_is_written(bus: MemoryBus) -> None:
    store = await store_of(bus, FIRST)
    large = [holding(f"g{n}", {f"backend-{b:04}": 8 for b in range(1000)}) for n in range(30)]
    with pytest.raises(TooLargeToStore, match=r"Shard 1 .* 30 gateways"):
        await store.store(order({0: [holding("g1", {"a": 1})], 1: large}))
    assert await CeilingStore(bus, ManualClock()).claim(SECOND) == []


async def test_a_thousand_backends_and_a_hundred_gateways_fit(bus: MemoryBus) -> None:
    store = await store_of(bus, FIRST)
    backends = {f"0193c0de-0000-7000-8000-{b:012}": 8 for b in range(1000 // SHARDS)}
    await store.store(order({0: [holding(f"gateway-{n}", backends) for n in range(100)]}))


async def test_what_is_not_readable_costs_only_its_shard(bus: MemoryBus, caplog: pytest.LogCaptureFixture) -> None:
    store = await store_of(bus, FIRST)
    await store.store(order({0: [holding("g1", {"a": 1})], 1: [holding("g1", {"b": 2})]}))
    await (await bus.bucket(SCHEDULER_BUCKET)).put(ceilings_key(0), b"\xff\xff\xff")
    assert await CeilingStore(bus, ManualClock()).claim(SECOND) == [holding("g1", {"b": 2})]
    assert [vars(r)["shard"] for r in caplog.records if vars(r).get("action") == "ceilings_bad"] == [0]
    with pytest.raises(Deposed):
        await store.store(order({0: [holding("g1", {"a": 2})]}))


async def test_on_the_real_bus_with_the_schedulers_own_rights(nats_server: NatsServer) -> None:
    seed = nats_server.seed_file("scheduler")
    async with (
        open_nats_bus(nats_server.url, "scheduler", seed_file=seed) as one_bus,
        open_nats_bus(nats_server.url, "scheduler", seed_file=seed) as other_bus,
    ):
        await asyncio.gather(one_bus.wait_connected(), other_bus.wait_connected())
        base = 1 << 60  # later than whatever other tests have stored here
        old, new = CeilingStore(one_bus, ManualClock()), CeilingStore(other_bus, ManualClock())
        await old.claim(Epoch(base, 1))
        await old.store(order({n: [holding("g1", {f"b{n}": 1})] for n in range(SHARDS)}))
        (found,) = await new.claim(Epoch(base, 2))
        assert len(found.slots) == SHARDS
        with pytest.raises(Deposed):
            await old.store(order({7: [holding("g1", {"a": 2})]}))
        await new.store(order({n: [] for n in range(SHARDS)}))
        bucket = await one_bus.bucket(SCHEDULER_BUCKET)
        for number in range(SHARDS):  # as it was, for those who come after
            entry = await bucket.get(ceilings_key(number))
            assert entry is not None
            await bucket.delete(ceilings_key(number), entry.revision)


class HurdledBus(MemoryBus):
    """Every call takes a moment, some longer than others, and some answers are lost."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(lambda: 7.0)
        self._chance = chance

    async def bucket(self, name: str, *, entries_live_s: float | None = None) -> Any:
        return HurdledBucket(await super().bucket(name, entries_live_s=entries_live_s), self._chance)


class HurdledBucket:
    def __init__(self, bucket: object, chance: random.Random) -> None:
        self._bucket, self._chance = bucket, chance

    def __getattr__(self, name: str) -> object:
        async def call(*arguments: object) -> object:
            for _ in range(self._chance.randrange(6)):
                await asyncio.sleep(0)
            result = await getattr(self._bucket, name)(*arguments)
            if self._chance.random() < 0.05:
                raise Unavailable("The answer was lost.")
            return result

        return call
