"""Which samples of the agents count, and what was lost between them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.wire.v1.telemetry_pb2 import GpuSample, HostSample, TelemetrySample
from forebay_registry.backend import NodeId
from forebay_registry.nodes.agents import RIVAL_AFTER_SAMPLES, RIVAL_FOR_S, Said
from forebay_registry.nodes.messages import is_sound
from forebay_registry.nodes.samples import Dropped, Hearing, Sample, hear, judge

ENROLLED = {"gpu-1": NodeId("no-1")}


def sample(sequence: int, started: int = 1, node: str = "gpu-1") -> Sample:
    return Sample(node, started, sequence, 1000 * sequence, b"")


def test_a_sample_counts_only_on_the_subject_of_its_own_enrolled_node() -> None:
    assert judge(sample(1), "forebay.telemetry.gpu-1", ENROLLED) is None
    assert judge(sample(1), "forebay.telemetry.gpu-2", ENROLLED) is Dropped.FOREIGN_SUBJECT
    stranger = sample(1, node="gpu-2")
    assert judge(stranger, "forebay.telemetry.gpu-2", ENROLLED) is Dropped.NOT_ENROLLED
    assert judge(sample(0), "forebay.telemetry.gpu-1", ENROLLED) is Dropped.MALFORMED
    assert judge(sample(2**63), "forebay.telemetry.gpu-1", ENROLLED) is Dropped.MALFORMED


def heard(*samples: Sample, recalled: Sample | None = None) -> Hearing:
    hearing = Hearing(recalled, 0.0, is_recalled=True) if recalled else Hearing()
    for at, one in enumerate(samples):
        hearing, _ = hear(hearing, one, float(at))
    return hearing


def test_a_gap_in_the_sequence_is_that_many_lost_samples() -> None:
    hearing = heard(sample(1), sample(2), sample(5))
    assert (hearing.received, hearing.lost) == (3, 2)


def test_an_agent_that_started_anew_counts_from_one_again() -> None:
    assert heard(sample(9), sample(1, started=2)).lost == 0
    assert heard(sample(9), sample(3, started=2)).lost == 2


def test_what_came_before_the_registry_listened_is_not_lost() -> None:
    assert heard(sample(700)).lost == 0
    assert heard(sample(700), recalled=sample(5)).lost == 0
    assert heard(sample(700), sample(702), recalled=sample(5)).lost == 1


def test_a_sample_that_is_late_or_doubled_is_dropped() -> None:
    first = heard(sample(4))
    assert hear(first, sample(4), 9.0) == (first, Dropped.OUT_OF_ORDER)
    assert hear(first, sample(3), 9.0) == (first, Dropped.OUT_OF_ORDER)
    after, dropped = hear(first, sample(9, started=0), 9.0)
    assert (after.last, after.received, dropped) == (first.last, 1, Dropped.OUT_OF_ORDER)


def test_of_two_agents_the_one_that_started_last_counts_and_the_other_is_noticed() -> None:
    hearing, dropped = heard(sample(1, started=20)), []
    for n in range(1, RIVAL_AFTER_SAMPLES + 1):
        hearing, _ = hear(hearing, sample(1 + n, started=20), 2.0 * n, Said(2.0, "new"))
        hearing, why = hear(hearing, sample(700 + n, started=10), 2.0 * n + 1, Said(2.0, "old"))
        dropped.append(why)
    assert dropped == [Dropped.OUT_OF_ORDER] * (RIVAL_AFTER_SAMPLES - 1) + [Dropped.SECOND_AGENT]
    assert (hearing.said.hostname, hearing.received, hearing.lost) == ("new", RIVAL_AFTER_SAMPLES + 1, 0)
    assert hearing.rival is not None
    assert hearing.rival.said.hostname == "old"
    at = hearing.rival.heard_at
    assert (hearing.rival.is_one(at + RIVAL_FOR_S - 1), hearing.rival.is_one(at + RIVAL_FOR_S)) == (True, False)


def test_the_last_words_of_an_agent_that_ended_are_no_second_agent() -> None:
    hearing = heard(sample(700, started=10), sample(1, started=20))
    hearing, dropped = hear(hearing, sample(701, started=10), 3.0)
    assert dropped is Dropped.OUT_OF_ORDER
    assert hearing.rival is not None
    assert not hearing.rival.is_one(3.0)


def test_what_is_sent_again_makes_no_second_agent_and_never_counts_again() -> None:
    hearing = heard(*(sample(n, started=10) for n in range(1, 20)), sample(1, started=20))
    for n in range(1, 20):
        after, dropped = hear(hearing, sample(n, started=10), 1e6 + n)  # long after the node fell silent
        assert (after, dropped) == (hearing, Dropped.OUT_OF_ORDER)


def test_an_agent_whose_clock_was_set_back_is_heard_again_when_it_is_the_only_one() -> None:
    hearing, _ = hear(Hearing(), sample(50, started=7200), 0.0, Said(2.0))
    hearing, first = hear(hearing, sample(1, started=10), 2.0, Said(2.0))
    assert first is Dropped.OUT_OF_ORDER
    assert not hearing.is_silent(2.0)
    hearing, second = hear(hearing, sample(9, started=10), 18.0, Said(2.0))
    assert (second, hearing.received, hearing.lost, hearing.rival) == (None, 2, 0, None)
    hearing, third = hear(hearing, sample(10, started=10), 20.0, Said(2.0))
    assert (third, hearing.lost) == (None, 0)
    # The other one comes back after all: it started later, and counts again.
    hearing, back = hear(hearing, sample(51, started=7200), 21.0, Said(2.0))
    assert (back, hearing.lost) == (None, 0)
    assert hear(hearing, sample(10, started=10), 22.0)[1] is Dropped.OUT_OF_ORDER


@pytest.mark.parametrize(
    ("interval_s", "passed_s", "silent"),
    [(2.0, 14.0, False), (2.0, 16.0, True), (10.0, 24.0, False), (10.0, 26.0, True), (0.0, 16.0, True)],
)
def test_a_node_is_silent_when_it_is_late_by_its_own_measure(interval_s: float, passed_s: float, silent: bool) -> None:
    hearing, _ = hear(Hearing(), sample(1), 100.0, Said(interval_s))
    assert hearing.is_silent(100.0 + passed_s) is silent
    assert Hearing().is_silent(0.0)


def test_a_node_that_becomes_another_machine_is_noticed_and_one_that_says_nothing_of_itself_is_not() -> None:
    hearing, _ = hear(Hearing(), sample(1), 1.0, Said(2.0, "alpha", "m1"))
    hearing, _ = hear(hearing, sample(2), 3.0, Said(2.0))  # the host did not answer in time
    assert (hearing.move, hearing.said.hostname) == (None, "alpha")
    renamed, _ = hear(hearing, sample(3), 5.0, Said(2.0, "beta", "m1"))
    assert renamed.move is not None
    assert (renamed.move.is_another_machine, renamed.move.at) == (False, 5.0)
    moved, _ = hear(hearing, sample(1, started=9), 5.0, Said(2.0, "beta", "m2"))
    assert moved.move is not None
    assert moved.move.is_another_machine


def test_the_skew_of_a_clock_is_what_a_sample_says_against_when_it_was_heard() -> None:
    assert Hearing().clock_skew_s is None
    told = Sample("gpu-1", 1, 1, 7_200_000_000, b"")
    assert hear(Hearing(), told, 100.0)[0].clock_skew_s == 7100.0


@pytest.mark.parametrize(
    "told",
    [
        TelemetrySample(host=HostSample(cpu_percent=float("nan"))),
        TelemetrySample(host=HostSample(load_1m=float("inf"))),
        TelemetrySample(gpus=[GpuSample(utilization_percent=4_000_000_000)]),
        TelemetrySample(gpus=[GpuSample()] * 1000),
    ],
)
def test_numbers_that_cannot_be_are_no_sample(told: TelemetrySample) -> None:
    assert not is_sound(told)
    assert is_sound(TelemetrySample(host=HostSample(cpu_percent=50.0), gpus=[GpuSample(fan_percent=110)] * 16))


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.integers(1, 9)), max_size=40))
@settings(max_examples=30, deadline=None)
def test_no_sample_ever_counts_twice_whatever_comes_in_whatever_order(stream: list[tuple[int, int]]) -> None:
    hearing, counted = Hearing(), []
    for at, (started, sequence) in enumerate(stream):
        hearing, dropped = hear(hearing, sample(sequence, started), 10.0 * at)
        if dropped is None:
            counted.append((started, sequence))
    assert len(counted) == len(set(counted))
    assert hearing.received == len(counted)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_of_one_boot_whatever_is_sent_after_the_first_heard_is_received_or_lost(arrives: list[bool]) -> None:
    sent = [sample(i + 1) for i in range(len(arrives))]
    got = [s for s, arrived in zip(sent, arrives, strict=True) if arrived]
    hearing = heard(*got)
    if got:
        assert hearing.received + hearing.lost == got[-1].sequence - got[0].sequence + 1
    assert hearing.received == len(got)
