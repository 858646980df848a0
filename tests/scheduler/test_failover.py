"""Schedulers that follow one another on a real NATS: who dies, who is cut off, who comes back, and what is stored meanwhile.

Each is what a scheduler has of this: the lead, the two stores, and ceilings that it goes on raising."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from forebay.clock import SystemClock
from forebay.errors import Unavailable
from forebay.nats_bus import open_nats_bus
from forebay.ops import Ops
from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler.ceiling_store import CeilingStore
from forebay_scheduler.decisions import StoreCeilings, StoredCeilings
from forebay_scheduler.fencing import Deposed
from forebay_scheduler.leadership import Leadership
from forebay_scheduler.lending.ceiling_writes import shard_of
from forebay_scheduler.request import BackendId, Epoch, GatewayName
from forebay_scheduler.state_store import StateStore
from tests.fakes.cut_wire import Cut, CutWire
from tests.real_nats import RealNats

TAKEN_OVER_WITHIN_S = 12.0
HANDED_OVER_WITHIN_S = 10.0
"""Promised are three seconds and one; a busy machine is no fault."""
BACKEND, GATEWAY = BackendId("b"), GatewayName("g1")


class Scheduler:
    """Leads whenever it can. `raised` is the last ceiling that the bus confirmed to it: so much it may have told."""

    def __init__(self, name: str, port: int, epochs: list[Epoch]) -> None:
        self.name = name
        self._url = f"nats://127.0.0.1:{port}"
        self._epochs = epochs
        self.epoch: Epoch | None = None
        """While it believes that it leads."""
        self.found = 0
        """The ceiling that it found when it took the lead."""
        self.found_state: list[bytes] = []
        self.raised = 0
        self.deposed: list[str] = []
        """How it found out that it leads no more, each time."""
        self.told_away: list[bool] = []
        self._leadership: Leadership | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def leader_address(self) -> str:
        return self._leadership.leader_address if self._leadership else ""

    @property
    def leadership(self) -> Leadership:
        assert self._leadership is not None
        return self._leadership

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def die(self) -> None:
        """Without a word."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        self.epoch = None

    async def _run(self) -> None:
        async with open_nats_bus(self._url, self.name) as bus:
            clock = SystemClock()
            leadership = Leadership(bus, clock, Ops("scheduler"), address=self.name, tell_away=self.told_away.append)
            self._leadership = leadership
            while True:
                epoch = await leadership.win()
                self._epochs.append(epoch)
                ceilings, state = CeilingStore(bus, clock), StateStore(bus, clock)
                with suppress(asyncio.CancelledError):
                    tasks = [
                        asyncio.create_task(leadership.renew(), name="renew"),
                        asyncio.create_task(self._work(epoch, ceilings, state), name="work"),
                    ]
                    try:
                        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for task in tasks:
                            task.cancel()
                        await asyncio.wait(tasks)
                    self.epoch = None
                    for task in done:
                        self.deposed.append(task.get_name())
                        with suppress(Deposed):
                            task.result()
                    continue
                return

    async def _work(self, epoch: Epoch, ceilings: CeilingStore, state: StateStore) -> None:
        found = await ceilings.claim(epoch)
        self.found = sum(stored.slots.get(BACKEND, 0) for stored in found)
        _, whole = await state.claim(epoch)
        self.found_state = list(whole.settled) if whole else []
        self.epoch = epoch
        self.raised = self.found
        for ticket in itertools.count(1):
            wanted = self.raised + 1
            stored = StoredCeilings(GATEWAY, 1, {BACKEND: wanted})
            await ceilings.store(StoreCeilings(ticket, {shard_of(BACKEND): [stored]}))
            self.raised = wanted
            with suppress(Unavailable):
                told = scheduler_pb2.SchedulerState(settled=[f"{self.name} raised {wanted}".encode()])
                await state.write(told.SerializeToString())
            await asyncio.sleep(0.02)


class House:
    """Schedulers, each on a wire of its own to one NATS."""

    def __init__(self, nats: RealNats) -> None:
        self.nats = nats
        self.epochs: list[Epoch] = []
        """In the order in which they were won."""
        self.wires: dict[str, CutWire] = {}
        self.schedulers: list[Scheduler] = []

    @property
    def leaders(self) -> list[Scheduler]:
        return [scheduler for scheduler in self.schedulers if scheduler.epoch is not None]

    async def one_leads(self, *, other_than: Scheduler | None = None, within_s: float = 60.0) -> Scheduler:
        await becomes(lambda: any(s is not other_than for s in self.leaders), within_s)
        (leader,) = (s for s in self.leaders if s is not other_than)
        return leader

    def assert_epochs_only_grow(self) -> None:
        assert self.epochs == sorted(set(self.epochs))


async def becomes(is_so: Callable[[], bool], within_s: float = 60.0) -> float:
    """How many seconds that took."""
    began = time.monotonic()
    async with asyncio.timeout(within_s):
        while not is_so():
            await asyncio.sleep(0.01)
    return time.monotonic() - began


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[RealNats]:
    with RealNats(tmp_path) as server:
        yield server


@asynccontextmanager
async def house_of(nats: RealNats, *names: str) -> AsyncIterator[House]:
    """The first one leads."""
    house = House(nats)
    async with AsyncExitStack() as stack:
        for name in names:
            wire = house.wires[name] = await stack.enter_async_context(CutWire(nats.port))
            scheduler = Scheduler(name, wire.port, house.epochs)
            house.schedulers.append(scheduler)
            scheduler.start()
            stack.push_async_callback(scheduler.die)
            await becomes(lambda: bool(scheduler.leader_address))  # noqa: B023
        await house.one_leads()
        yield house


async def test_when_leaders_die_one_after_another_the_next_one_leads_in_time_and_knows_what_was_told(
    nats: RealNats,
) -> None:
    async with house_of(nats, "a", "b", "c") as house:
        for _ in range(2):
            leader = await house.one_leads()
            await becomes(lambda leader=leader: leader.raised > leader.found + 3)  # type: ignore[misc]
            await leader.die()
            house.schedulers.remove(leader)
            took_s = await becomes(lambda: bool(house.leaders))
            assert took_s <= TAKEN_OVER_WITHIN_S
            (successor,) = house.leaders
            # One more at most: stored, and the old leader died before it heard.
            assert leader.raised <= successor.found <= leader.raised + 1
            (last,) = successor.found_state
            assert last.startswith(f"{leader.name} raised ".encode())
            assert int(last.split()[-1]) in (leader.raised, leader.raised - 1)
        house.assert_epochs_only_grow()
        assert len(house.epochs) == 3


async def test_a_leader_that_is_cut_off_raises_nothing_after_its_successor_claimed(nats: RealNats) -> None:
    async with house_of(nats, "a", "b") as house:
        old = await house.one_leads()
        await becomes(lambda: old.raised > 3)
        house.wires[old.name].cut(Cut.BLACKHOLE)
        took_s = await becomes(lambda: len(house.leaders) == 2)
        assert took_s <= TAKEN_OVER_WITHIN_S
        new = await house.one_leads(other_than=old)
        assert old.raised <= new.found
        assert not old.leadership.is_certain
        told = old.raised
        await becomes(lambda: new.raised > new.found + 3)
        await house.wires[old.name].mend()  # and all arrives that it had sent
        await becomes(lambda: bool(old.deposed))
        assert old.raised == told
        assert old.epoch is None
        await becomes(lambda: old.leader_address == new.name)
        assert new.deposed == []
        house.assert_epochs_only_grow()
        await new.die()
        house.schedulers.remove(new)
        back = await house.one_leads()
        assert back is old
        assert new.raised <= old.found <= new.raised + 1  # nothing that the old one had on its way has come through


async def test_what_a_leader_wrote_and_heard_no_answer_to_is_known_to_its_successor(nats: RealNats) -> None:
    async with house_of(nats, "a", "b") as house:
        old = await house.one_leads()
        await becomes(lambda: old.raised > 3)
        house.wires[old.name].cut(to_server=False)
        took_s = await becomes(lambda: len(house.leaders) == 2)
        assert took_s <= TAKEN_OVER_WITHIN_S + 0.5  # one more renewal may have arrived
        new = await house.one_leads(other_than=old)
        assert old.raised <= new.found <= old.raised + 1
        told = old.raised
        await house.wires[old.name].mend()
        await becomes(lambda: bool(old.deposed))
        assert old.raised <= max(told, new.found)
        assert house.leaders == [new]
        house.assert_epochs_only_grow()


async def test_a_leader_whose_connection_is_reset_and_mended_at_once_leads_on(nats: RealNats) -> None:
    async with house_of(nats, "a", "b") as house:
        leader = await house.one_leads()
        house.wires[leader.name].cut(Cut.RESET)
        await house.wires[leader.name].mend()
        before = leader.raised
        await becomes(lambda: leader.raised > before + 10)
        assert len(house.epochs) == 1


async def test_a_bus_that_was_away_for_longer_than_a_lead_lasts_changes_no_leader(nats: RealNats) -> None:
    async with house_of(nats, "a", "b") as house:
        leader = await house.one_leads()
        nats.kill()
        await asyncio.sleep(4.0)
        assert leader.told_away == [True]
        before = leader.raised
        nats.start()
        await becomes(lambda: leader.raised > before + 3 and leader.leadership.is_certain)
        await asyncio.sleep(2.5)  # longer than the other one lets it go first
        assert leader.told_away == [True, False]
        assert house.leaders == [leader]
        assert len(house.epochs) == 1


async def test_after_all_have_died_and_the_bus_too_the_next_epoch_is_still_later(nats: RealNats) -> None:
    async with house_of(nats, "a") as house:
        await house.schedulers[0].die()
        told = house.schedulers[0].raised
        await asyncio.sleep(2.5)  # the bucket is empty now
        nats.kill()
        nats.start()
        later = Scheduler("b", nats.port, house.epochs)
        later.start()
        await becomes(lambda: later.epoch is not None)
        house.assert_epochs_only_grow()
        assert len(house.epochs) == 2
        assert told <= later.found <= told + 1
        await later.die()


async def test_a_lead_that_is_given_up_is_taken_within_a_second(nats: RealNats) -> None:
    async with house_of(nats, "a", "b") as house:
        leader = await house.one_leads()
        successor = next(s for s in house.schedulers if s is not leader)
        leaving = asyncio.create_task(leader.leadership.release())
        took_s = await becomes(lambda: successor.epoch is not None)
        assert took_s <= HANDED_OVER_WITHIN_S
        await leaving
        house.assert_epochs_only_grow()
