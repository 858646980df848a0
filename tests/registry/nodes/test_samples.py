"""Which samples of the agents count, and what was lost between them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forebay_registry.backend import NodeId
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
        after = hear(hearing, one, float(at))
        if isinstance(after, Hearing):
            hearing = after
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
    assert hear(first, sample(4), 9.0) is Dropped.OUT_OF_ORDER
    assert hear(first, sample(3), 9.0) is Dropped.OUT_OF_ORDER
    assert hear(first, sample(9, started=0), 9.0) is Dropped.OUT_OF_ORDER


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_of_one_boot_whatever_is_sent_after_the_first_heard_is_received_or_lost(arrives: list[bool]) -> None:
    sent = [sample(i + 1) for i in range(len(arrives))]
    got = [s for s, arrived in zip(sent, arrives, strict=True) if arrived]
    hearing = heard(*got)
    if got:
        assert hearing.received + hearing.lost == got[-1].sequence - got[0].sequence + 1
    assert hearing.received == len(got)
