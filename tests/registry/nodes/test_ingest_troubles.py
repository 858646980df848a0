"""Samples of nodes that are not well: one clear event each, and nobody else disturbed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from forebay import subjects
from forebay.bus import Message
from forebay.clock import ManualClock, micros
from forebay.wire.v1.telemetry_pb2 import HostSample, TelemetrySample
from forebay_registry.backend import NodeId
from forebay_registry.nodes.ingest import Ingest
from forebay_registry.nodes.samples import Dropped, Row
from forebay_registry.nodes.troubles import Trouble

ENROLLED = {"gpu-1": NodeId("no-1"), "gpu-2": NodeId("no-2")}
ONE, TWO = ENROLLED.values()


class NoStore:
    async def keep_samples(self, rows: Sequence[Row]) -> None:
        raise AssertionError

    async def last_samples(self) -> dict[NodeId, Row]:
        return {}


class House:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.ingest = Ingest(lambda: ENROLLED, NoStore(), self.clock, flush_s=1.0)
        self.heard: list[tuple[NodeId, int, float]] = []
        self.ingest.on_sample.append(lambda node_id, told, at: self.heard.append((node_id, told.sequence, at)))

    def say(
        self, node: str, sequence: int, *, started: int = 1, ahead_s: float = 0.0, host: HostSample | None = None
    ) -> None:
        sample = TelemetrySample(
            node=node,
            sequence=sequence,
            agent_started_us=started,
            sampled_at_us=micros(self.clock.now() + ahead_s),
            interval_ms=2000,
            host=host or HostSample(hostname="alpha", machine_id="m1"),
        )
        self.ingest.take(Message(subjects.telemetry(node), sample.SerializeToString()))

    def troubled(self) -> dict[str, float]:
        return {labels[0]: count for labels, count in self.ingest.troubled() if count}


@pytest.fixture
def house(caplog: pytest.LogCaptureFixture) -> House:
    caplog.set_level("INFO")
    return House()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["action"] for record in caplog.records]


def test_each_sample_that_counts_is_told_on_with_when_it_was_heard(house: House) -> None:
    house.say("gpu-1", 1)
    house.say("gpu-1", 1)
    house.say("gpu-3", 1)
    house.clock.advance(2)
    house.say("gpu-1", 2, ahead_s=9000)
    assert house.heard == [(ONE, 1, 1_800_000_000.0), (ONE, 2, 1_800_000_002.0)]


def test_a_wrong_clock_is_one_event_until_it_is_right_again(house: House, caplog: pytest.LogCaptureFixture) -> None:
    for sequence in range(1, 5):
        house.say("gpu-1", sequence, ahead_s=7200)
        house.say("gpu-2", sequence)
    assert events(caplog) == ["node_clock_wrong"]
    assert house.troubled() == {"node_clock_wrong": 1}
    assert house.ingest.troubles_of(ONE)[Trouble.CLOCK].startswith("Its clock is 2 h ahead")
    house.say("gpu-1", 5)
    assert events(caplog) == ["node_clock_wrong", "node_clock_wrong_over"]
    assert (house.troubled(), len(house.heard)) == ({}, 9)


def test_two_agents_with_one_name_are_one_event_and_one_series(house: House, caplog: pytest.LogCaptureFixture) -> None:
    for sequence in range(1, 21):
        house.say("gpu-1", sequence, started=2)
        house.say("gpu-1", sequence, started=1, host=HostSample(hostname="beta", machine_id="m2"))
        house.say("gpu-2", sequence)
        house.clock.advance(2)
    assert [action for action in events(caplog) if action != "sample_dropped"] == ["node_two_agents"]
    assert "beta" in house.ingest.troubles_of(ONE)[Trouble.TWO_AGENTS]
    assert [sequence for node_id, sequence, _ in house.heard if node_id == ONE] == list(range(1, 21))
    assert house.ingest.tally.dropped[Dropped.SECOND_AGENT].value == 16
    assert house.ingest.tally.lost.value == 0


def test_a_sample_that_is_no_good_is_one_event_of_its_node_and_again_after_an_hour(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        house.ingest.take(Message("forebay.telemetry.gpu-1", b"\xff"))
        house.ingest.take(Message("forebay.telemetry.gpu-2", b"\xff"))
        house.clock.advance(2)
    house.clock.advance(3600)
    house.ingest.take(Message("forebay.telemetry.gpu-2", b"\xff"))
    told = [vars(record)["subject"] for record in caplog.records if vars(record)["action"] == "sample_dropped"]
    assert told == ["forebay.telemetry.gpu-1", "forebay.telemetry.gpu-2", "forebay.telemetry.gpu-2"]
    assert house.ingest.tally.dropped[Dropped.MALFORMED].value == 41


def test_samples_that_are_not_taken_are_a_problem_of_their_node_once_that_goes_on(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    for sequence in range(1, 21):
        house.say("gpu-1", sequence)
        house.say("gpu-1", 1)  # sent again
        if sequence % 4 == 0:
            house.ingest.take(Message("forebay.telemetry.gpu-1", b"\xff"))
        house.say("gpu-2", sequence)
        if sequence == 9:
            house.say("gpu-2", 3)  # once, which is no problem
        house.clock.advance(2)
    assert house.ingest.troubles_of(ONE) == {
        Trouble.DROPPED: "25 of its samples in 38 s were not taken (out_of_order 20, malformed 5): something sends its"
        " samples again, or its clock was set back, so restart its agent."
    }
    assert house.ingest.troubles_of(TWO) == {}
    assert house.ingest.drops_of(TWO).samples == {Dropped.OUT_OF_ORDER: 1}
    house.clock.advance(60)
    house.say("gpu-1", 21)
    assert house.ingest.troubles_of(ONE) == {}, "it has stopped"
    assert house.ingest.drops_of(ONE).samples == {Dropped.OUT_OF_ORDER: 20, Dropped.MALFORMED: 5}
    assert [one for one in events(caplog) if one != "sample_dropped"] == [
        "node_samples_dropped",
        "node_samples_dropped_over",
    ]


def test_a_node_that_nobody_understands_is_not_merely_new(house: House) -> None:
    for _ in range(20):
        house.ingest.take(Message("forebay.telemetry.gpu-1", b"\xff"))
        house.ingest.take(Message("forebay.telemetry.gpu-3", b"\xff"))  # which nobody enrolled
        house.clock.advance(2)
    assert house.troubled() == {"node_samples_dropped": 1}


def test_a_node_that_became_another_machine_is_told_once(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.say("gpu-1", 1)
    for sequence in (1, 2, 3):
        house.say("gpu-1", sequence, started=2, host=HostSample(hostname="beta", machine_id="m2"))
    assert events(caplog) == ["node_other_machine"]
    assert "beta instead of alpha" in house.ingest.troubles_of(ONE)[Trouble.OTHER_MACHINE]


def test_a_node_that_says_no_more_is_silent(house: House) -> None:
    house.say("gpu-1", 1)
    house.clock.advance(30)
    house.say("gpu-2", 1)
    assert house.troubled() == {"node_silent": 1}
