"""Which samples of the agents count: the right node, in order, and what got lost between two. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from forebay_registry.backend import NodeId


class Dropped(StrEnum):
    """Why a sample is not taken; also the label of its metric."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    NOT_ENROLLED = "not_enrolled"
    FOREIGN_SUBJECT = "foreign_subject"
    """It speaks for another node than the one whose subject it came on."""
    OUT_OF_ORDER = "out_of_order"


@dataclass(frozen=True, slots=True)
class Sample:
    node: str
    agent_started_us: int
    sequence: int
    sampled_at_us: int
    """By the agent's clock."""
    payload: bytes
    """TelemetrySample as it came."""


@dataclass(frozen=True, slots=True)
class Row:
    """A sample as it is kept."""

    node_id: NodeId
    heard_at: float
    """By our clock: an agent whose clock is wrong must not keep its rows for ever."""
    sample: Sample


@dataclass(frozen=True, slots=True)
class Hearing:
    """What was heard of a node."""

    last: Sample | None = None
    heard_at: float | None = None
    received: int = 0
    """Since the registry started."""
    lost: int = 0
    """Gaps in the sequence since then."""
    is_recalled: bool = False
    """`last` is from before the registry started: what came in between was not lost, merely not listened to."""


def judge(sample: Sample, subject: str, enrolled: Mapping[str, NodeId]) -> Dropped | None:
    """Whether it may count at all; order is `hear`'s part. `enrolled`: node name → id."""
    if subject.rpartition(".")[2] != sample.node:
        return Dropped.FOREIGN_SUBJECT
    if sample.node not in enrolled:
        return Dropped.NOT_ENROLLED
    if not 0 < sample.sequence < 2**63 or sample.agent_started_us < 0:
        return Dropped.MALFORMED
    return None


def hear(hearing: Hearing, sample: Sample, now: float) -> Hearing | Dropped:
    """The node's record after one more sample. An agent that started anew counts from 1 again."""
    last = hearing.last
    if last is None or (hearing.is_recalled and sample.agent_started_us >= last.agent_started_us):
        missed = 0  # what came before we listened is not lost
    elif sample.agent_started_us == last.agent_started_us:
        missed = sample.sequence - last.sequence - 1
    elif sample.agent_started_us > last.agent_started_us:
        missed = sample.sequence - 1
    else:
        return Dropped.OUT_OF_ORDER
    if missed < 0:
        return Dropped.OUT_OF_ORDER
    return Hearing(sample, now, hearing.received + 1, hearing.lost + missed)
