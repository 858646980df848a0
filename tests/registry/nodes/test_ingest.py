"""The agents' samples, from the bus to memory and Postgres."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from forebay import subjects
from forebay.bus import Message
from forebay.clock import ManualClock
from forebay.errors import Unavailable
from forebay.memory_bus import MemoryBus
from forebay.wire.v1.telemetry_pb2 import HostSample, TelemetrySample
from forebay_registry.backend import Node, NodeId
from forebay_registry.keeping.store import Store
from forebay_registry.nodes import ingest as ingest_module
from forebay_registry.nodes.ingest import Ingest
from forebay_registry.nodes.samples import Dropped, Row, Sample

NODE = Node(NodeId("no-1"), "gpu-1", 1.0, "ada")
ENROLLED = {NODE.name: NODE.id}


def message(sequence: int, node: str = "gpu-1", subject: str | None = None, started: int = 1) -> Message:
    sample = TelemetrySample(
        node=node, sequence=sequence, agent_started_us=started, sampled_at_us=5, host=HostSample(cpu_count=2)
    )
    return Message(subject or subjects.telemetry(node), sample.SerializeToString())


class Shelf:
    """A store of samples that can be away."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.batches: list[int] = []
        self.recalled: dict[NodeId, Row] = {}
        self.forgotten: list[float] = []
        self.is_away = False

    async def add_samples(self, rows: Sequence[Row]) -> None:
        self._demand()
        self.rows += rows
        self.batches.append(len(rows))

    async def last_samples(self) -> dict[NodeId, Row]:
        self._demand()
        return self.recalled

    async def forget_samples(self, before: float) -> int:
        self._demand()
        self.forgotten.append(before)
        return 0

    def _demand(self) -> None:
        if self.is_away:
            raise Unavailable


def ingest_into(shelf: Shelf, clock: ManualClock | None = None) -> Ingest:
    return Ingest(lambda: ENROLLED, shelf, clock or ManualClock(100.0), keep_s=60.0, flush_s=0.01)


@asynccontextmanager
async def keeping(ingest: Ingest) -> AsyncIterator[None]:
    """For as long as it takes to have looked once, at least."""
    task = asyncio.create_task(ingest.keep())
    await asyncio.sleep(0.005)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_only_what_an_enrolled_node_says_of_itself_is_taken_and_the_rest_is_counted_with_its_reason() -> None:
    ingest = ingest_into(Shelf())
    ingest.take(message(1))
    ingest.take(message(1, node="gpu-2"))
    ingest.take(message(2, subject="forebay.telemetry.gpu-2"))
    ingest.take(message(1))
    ingest.take(Message("forebay.telemetry.gpu-1", b"\xff\xff"))
    ingest.take(Message("forebay.telemetry.gpu-1", os.urandom(subjects.MAX_PAYLOAD_BYTES + 1)))
    assert ingest.tally.taken.value == 1
    assert {why: n.value for why, n in ingest.tally.dropped.items()} == dict.fromkeys(Dropped, 1)
    assert ingest.heard_of(NODE.id).received == 1


def test_gaps_are_counted_per_node_and_in_all() -> None:
    ingest = ingest_into(Shelf())
    for sequence in (1, 2, 5, 6):
        ingest.take(message(sequence))
    assert ingest.heard_of(NODE.id).lost == 2
    assert ingest.tally.lost.value == 2


async def test_samples_are_stored_in_batches_and_old_ones_forgotten(
    monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    monkeypatch.setattr(ingest_module, "BATCH", 10)
    shelf = Shelf()
    ingest = ingest_into(shelf)
    for sequence in range(1, 26):
        ingest.take(message(sequence))
    async with keeping(ingest):
        await eventually(lambda: len(shelf.rows) == 25)
        await eventually(lambda: shelf.forgotten)
    assert shelf.batches == [10, 10, 5]
    assert [row.sample.sequence for row in shelf.rows] == list(range(1, 26))
    assert shelf.forgotten[0] == 40.0


async def test_while_postgres_is_away_samples_wait_and_past_the_bound_the_oldest_are_counted_as_not_kept(
    monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    monkeypatch.setattr(ingest_module, "MAX_WAITING", 5)
    shelf = Shelf()
    shelf.is_away = True
    ingest = ingest_into(shelf)
    async with keeping(ingest):
        for sequence in range(1, 9):
            ingest.take(message(sequence))
        await asyncio.sleep(0.03)
        assert ingest.heard_of(NODE.id).received == 8
        shelf.is_away = False
        await eventually(lambda: len(shelf.rows) == 5)
    assert [row.sample.sequence for row in shelf.rows] == [4, 5, 6, 7, 8]
    assert ingest.tally.not_kept.value == 3


async def test_what_is_left_at_the_end_is_stored_or_counted() -> None:
    shelf = Shelf()
    ingest = Ingest(lambda: ENROLLED, shelf, ManualClock(100.0), keep_s=60.0, flush_s=60.0)
    ingest.take(message(1))
    await ingest.drain()
    assert ingest.tally.not_kept.value == 1, "the tables may not be there yet"
    async with keeping(ingest):
        ingest.take(message(2))
        await ingest.drain()
        assert [row.sample.sequence for row in shelf.rows] == [2]
        shelf.is_away = True
        ingest.take(message(3))
        await ingest.drain()
        assert ingest.tally.not_kept.value == 2


async def test_a_node_silent_since_before_the_start_is_remembered_and_what_came_meanwhile_is_not_lost(
    store: Store, eventually: Callable[..., Any]
) -> None:
    await store.add_node(NODE)
    await store.add_samples([Row(NODE.id, 100.0, Sample(NODE.name, 1, 3, 5, message(3).payload))])
    after = Ingest(lambda: ENROLLED, store, ManualClock(200.0), keep_s=1e9, flush_s=0.01)
    async with keeping(after):
        await eventually(lambda: after.heard_of(NODE.id).heard_at == 100.0)
        assert after.heard_of(NODE.id).received == 0
        after.take(message(90))
    assert (after.heard_of(NODE.id).received, after.heard_of(NODE.id).lost) == (1, 0)


async def test_samples_come_by_the_bus(eventually: Callable[..., Any]) -> None:
    bus = MemoryBus(lambda: 0.0)
    ingest = ingest_into(Shelf())
    listening = asyncio.create_task(ingest.listen(bus))
    await asyncio.sleep(0.01)
    await bus.publish("forebay.telemetry.gpu-1", message(1).payload)
    await eventually(lambda: ingest.tally.taken.value == 1)
    listening.cancel()
    await asyncio.wait([listening])
    last = ingest.heard_of(NODE.id).last
    assert last is not None
    assert TelemetrySample.FromString(last.payload).host.cpu_count == 2
