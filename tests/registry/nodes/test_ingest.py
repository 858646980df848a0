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
from forebay_registry.nodes.agents import Said
from forebay_registry.nodes.ingest import Ingest
from forebay_registry.nodes.messages import said
from forebay_registry.nodes.samples import Dropped, Row, Sample
from tests.registry.conftest import Want

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
        self.recalled: dict[NodeId, Row] = {}
        self.is_away = False

    async def keep_samples(self, rows: Sequence[Row]) -> None:
        self._demand()
        self.rows += rows

    async def last_samples(self) -> dict[NodeId, Row]:
        self._demand()
        return self.recalled

    def _demand(self) -> None:
        if self.is_away:
            raise Unavailable


def ingest_into(shelf: Shelf, clock: ManualClock | None = None) -> Ingest:
    return Ingest(lambda: ENROLLED, shelf, clock or ManualClock(100.0), flush_s=0.01)


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
    assert {why: n.value for why, n in ingest.tally.dropped.items()} == {
        **dict.fromkeys(Dropped, 1),
        Dropped.SECOND_AGENT: 0,  # that takes more than one
    }
    assert ingest.heard_of(NODE.id).received == 1


def test_a_sample_that_somebody_does_not_understand_ends_no_hearing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise ArithmeticError("a mistake of ours")

    ingest, heard = ingest_into(Shelf()), []
    ingest.on_sample += [fail, lambda node_id, sample, at: heard.append(sample.sequence)]
    ingest.take(message(1))
    ingest.take(message(2))
    assert heard == [1, 2]
    assert "a mistake of ours" in caplog.text


def test_what_an_agent_says_of_itself_is_no_longer_than_it_can_be_and_commands_no_terminal() -> None:
    host = HostSample(hostname="box\x1b[2J\n" + "x" * 1000, machine_id="m")
    told = said(TelemetrySample(interval_ms=2**32 - 1, host=host))
    assert told == Said(3600.0, "box[2J" + "x" * 247, "m")


def test_gaps_are_counted_per_node_and_in_all() -> None:
    ingest = ingest_into(Shelf())
    for sequence in (1, 2, 5, 6):
        ingest.take(message(sequence))
    assert ingest.heard_of(NODE.id).lost == 2
    assert ingest.tally.lost.value == 2


async def test_the_newest_of_each_node_is_stored_and_waits_while_postgres_is_away(
    eventually: Callable[..., Any],
) -> None:
    shelf = Shelf()
    shelf.is_away = True
    ingest = ingest_into(shelf)
    async with keeping(ingest):
        for sequence in range(1, 9):
            ingest.take(message(sequence))
        await asyncio.sleep(0.03)
        assert ingest.heard_of(NODE.id).received == 8
        shelf.is_away = False
        await eventually(lambda: shelf.rows)
    assert [row.sample.sequence for row in shelf.rows] == [8]


async def test_what_is_left_at_the_end_is_stored_if_it_can_be() -> None:
    shelf = Shelf()
    ingest = Ingest(lambda: ENROLLED, shelf, ManualClock(100.0), flush_s=60.0)
    ingest.take(message(1))
    await ingest.drain()
    assert shelf.rows == [], "the tables may not be there yet"
    async with keeping(ingest):
        ingest.take(message(2))
        await ingest.drain()
        assert [row.sample.sequence for row in shelf.rows] == [2]
        shelf.is_away = True
        ingest.take(message(3))
        await ingest.drain()
    assert len(shelf.rows) == 1


async def test_a_node_silent_since_before_the_start_is_remembered_and_what_came_meanwhile_is_not_lost(
    store: Store, eventually: Callable[..., Any], want: Want
) -> None:
    await want(NODE)
    await store.keep_samples([Row(NODE.id, 100.0, Sample(NODE.name, 1, 3, 5, message(3).payload))])
    after = Ingest(lambda: ENROLLED, store, ManualClock(200.0), flush_s=0.01)
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
