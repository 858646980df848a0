"""Whatever happens, in whichever order: nothing is begun beyond a ceiling, nothing told twice, nobody forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from forebay.clock import ManualClock
from forebay_gateway.accounting import NOTHING_USED, Outcome
from forebay_gateway.engines.errors import Blame
from forebay_gateway.slots.asking import BY_ITSELF, Ask, Epoch, Grant
from forebay_gateway.slots.ceilings import Ceiling
from forebay_gateway.slots.credits import Lent
from tests.gateway.line import MODEL, make_ask, make_line

BACKENDS = ("b1", "b2")
STEPS = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, 2)),
    st.tuples(st.just("ask"), st.just(1)),
    st.tuples(st.just("ask"), st.just(1)),
    st.tuples(st.just("end"), st.integers(0, 3)),
    st.tuples(st.just("end"), st.integers(0, 20)),
    st.tuples(st.just("nack"), st.integers(0, 20)),
    st.tuples(st.just("grant"), st.integers(0, 20)),
    st.tuples(st.just("ceiling"), st.integers(0, 7)),
    st.tuples(st.just("lend"), st.integers(0, 5)),
    st.tuples(st.just("lend"), st.integers(2, 5)),
    st.tuples(st.just("recall"), st.integers(0, 5)),
    st.tuples(st.just("frame"), st.just(0)),
    st.tuples(st.just("pass"), st.integers(1, 12)),
    st.tuples(st.just("lose"), st.just(0)),
    st.tuples(st.just("local"), st.just(0)),
    st.tuples(st.just("meet"), st.integers(0, 1)),
)


class Story:
    """One gateway, one scheduler that never grants beyond a ceiling, and the books that the test keeps of both."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.line = make_line({"a:1": None}, backends=BACKENDS, clock=self.clock)  # type: ignore[dict-item]
        self.places = self.line.places
        self.places._allotments.note("k", is_limited=False)
        self.epoch = Epoch(1, 1)
        self.places.hello("g", 1)
        self.places.welcomed(self.epoch)
        self.is_connected = True
        self.ceilings = dict.fromkeys(BACKENDS, 4)
        for backend, slots in self.ceilings.items():
            self.places.take_ceiling(Ceiling(backend, "default", slots, 1))
        self.tasks: dict[bytes, tuple[Ask, asyncio.Task[Grant]]] = {}
        self.seen: set[tuple[Epoch, int, bytes]] = set()
        self.leases: Counter[tuple[Epoch, int]] = Counter()
        self.returned: set[int] = set()
        self.credits = 0
        self.lent_slots: dict[int, int] = {}
        """Of each credit."""
        self.told_running: dict[bytes, tuple[int, int]] = {}
        """As a scheduler reads it that has heard all frames so far: ledger id → credit, width."""
        self.lent_now: set[int] = set()
        """In this session."""
        self.next_lease = 0

    def running(self) -> list[Grant]:
        return [task.result() for _, task in self.tasks.values() if task.done()]

    def held(self, backend: str) -> int:
        return sum(self.tasks[grant.ledger_id][0].width for grant in self.running() if grant.backend_id == backend)

    async def settle_down(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)
        for grant in self.running():
            name = (grant.epoch, grant.lease, grant.ledger_id)
            if name not in self.seen:
                self.seen.add(name)
                self.leases[grant.epoch, grant.lease] += 1
                if grant.epoch == BY_ITSELF or grant.lease >= 10_000:  # begun by itself
                    assert self.held(grant.backend_id) <= self.ceilings[grant.backend_id]

    async def step(self, what: str, number: int) -> None:
        await getattr(self, f"do_{what}")(number)
        await self.settle_down()
        assert max(self.leases.values(), default=1) == 1, "a lease names one request"
        waiting = sum(not task.done() for _, task in self.tasks.values())
        assert (self.places.waiting, self.places.held) == (waiting, len(self.tasks) - waiting)

    async def do_ask(self, width: int) -> None:
        ask = make_ask(width=width, arrived=self.clock.monotonic())
        self.tasks[ask.ledger_id] = (ask, asyncio.create_task(self.places.ask(ask)))

    async def do_end(self, number: int) -> None:
        if self.tasks:
            ledger_id = list(self.tasks)[number % len(self.tasks)]
            _, task = self.tasks.pop(ledger_id)
            task.cancel()
            self.places.end(ledger_id, Outcome.FINISHED if task.done() else Outcome.CANCELLED, NOTHING_USED)

    async def do_nack(self, number: int) -> None:
        running = self.running()
        if running:
            grant = running[number % len(running)]
            ask, _ = self.tasks[grant.ledger_id]
            self.tasks[grant.ledger_id] = (
                ask,
                asyncio.create_task(self.places.ask_again(grant, Blame.BUSY, None)),
            )

    async def do_grant(self, number: int) -> None:
        waiting = [ask for ask, task in self.tasks.values() if not task.done()]
        if waiting and self.is_connected:
            ask = waiting[number % len(waiting)]
            for backend in BACKENDS:
                if self.held(backend) + ask.width <= self.ceilings[backend]:
                    self.next_lease += 1
                    self.places.take_grant(Grant(ask.ledger_id, backend, self.next_lease, self.epoch, 1, 0))
                    return

    async def do_ceiling(self, number: int) -> None:
        if self.is_connected:
            backend, slots = BACKENDS[number % 2], number // 2
            self.ceilings[backend] = slots
            self.places.take_ceiling(Ceiling(backend, "default", slots, 1))

    async def do_lend(self, number: int) -> None:
        if self.is_connected:
            self.credits += 1
            self.lent_now.add(self.credits)
            self.lent_slots[self.credits] = 1 + number // 2
            expires_at = self.clock.monotonic() + 0.3 * number
            first = 10_000 + 100 * self.credits
            backend = BACKENDS[number % 2]
            self.places.take_credit(
                Lent(self.credits, backend, "default", MODEL, 1 + number // 2, expires_at, first, 9)
            )

    async def do_recall(self, number: int) -> None:
        if self.is_connected and self.credits:
            self.places.recall_credit(1 + number % self.credits)

    async def do_frame(self, _: int) -> None:
        if self.is_connected:
            frame = self.places.take_outbox().to_frame()
            for ended in {one.ledger_id for one in frame.settles} | {one.ledger_id for one in frame.cancels}:
                self.told_running.pop(ended, None)
            for start in frame.credit_starts:
                assert start.credit_id in self.lent_now - self.returned
                self.told_running[start.request.ledger_id] = start.credit_id, start.request.width
            used: Counter[int] = Counter()
            for credit, width in self.told_running.values():
                used[credit] += width
            assert all(slots <= self.lent_slots[credit] for credit, slots in used.items()), "no more than was lent"
            for nack in frame.nacks:
                self.told_running.pop(nack.ledger_id, None)
            self.returned.update(one.id for one in frame.credit_returns)
            both = {one.request.ledger_id for one in frame.credit_starts} & {one.ledger_id for one in frame.settles}
            assert not both

    async def do_pass(self, tenths: int) -> None:
        self.clock.advance(tenths / 10)
        self.places.look_again()

    async def do_lose(self, _: int) -> None:
        if self.is_connected:
            self.is_connected = False
            self.lent_now.clear()
            self.told_running.clear()
            self.places.session_over()

    async def do_local(self, _: int) -> None:
        if not self.is_connected:
            self.places.begin_local()

    async def do_meet(self, newer: int) -> None:
        if self.is_connected:
            return
        await self.settle_down()
        hello = self.places.hello("g", 1)
        assert {held.request.ledger_id: held.lease for held in hello.held} == {
            grant.ledger_id: grant.lease for grant in self.running()
        }
        assert {one.ledger_id for one in hello.queued} == {i for i, (_, task) in self.tasks.items() if not task.done()}
        assert {one.backend_id: one.slots for one in hello.ceilings} == {b: n for b, n in self.ceilings.items() if n}
        if newer:
            self.epoch = Epoch(1, self.epoch.revision + 1)
        self.is_connected = True
        self.places.welcomed(self.epoch)


@given(st.lists(STEPS, min_size=25, max_size=70))
def test_the_books_are_right_whatever_happens(steps: list[tuple[str, int]]) -> None:
    async def tell() -> None:
        story = Story()
        for what, number in steps:
            await story.step(what, number)
        for ledger_id, (_, task) in list(story.tasks.items()):
            task.cancel()
            story.places.end(ledger_id, Outcome.CANCELLED, NOTHING_USED)
            del story.tasks[ledger_id]
        assert (story.places.waiting, story.places.held) == (0, 0)
        assert all(story.places._ceilings.held(backend) == 0 for backend in BACKENDS)

    asyncio.run(tell())


def test_nothing_waits_without_a_leader_where_there_is_room() -> None:
    async def tell() -> None:
        story = Story()
        steps: list[tuple[str, Any]] = [
            ("ceiling", 6),
            ("ceiling", 1),
            ("lose", 0),
            ("local", 0),
            ("ask", 2),
            ("ask", 1),
            ("ask", 1),
        ]
        for what, number in steps:
            await story.step(what, number)
        assert (story.places.held, story.places.waiting) == (2, 1)
        for _, task in story.tasks.values():
            task.cancel()

    asyncio.run(tell())
