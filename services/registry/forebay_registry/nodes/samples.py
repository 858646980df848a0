"""Which samples of the agents count: the right node, the right agent, in order, and what got lost between two. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from forebay.silence import silent_after_s
from forebay_registry.backend import NodeId
from forebay_registry.nodes.agents import (
    NOTHING_SAID,
    SUCCEEDS_AFTER_SAMPLES,
    Agent,
    Rival,
    Said,
    hear_rival,
    is_new,
    remember,
)


class Dropped(StrEnum):
    """Why a sample is not taken; also the label of its metric."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    NOT_ENROLLED = "not_enrolled"
    FOREIGN_SUBJECT = "foreign_subject"
    """It speaks for another node than the one whose subject it came on."""
    OUT_OF_ORDER = "out_of_order"
    SECOND_AGENT = "second_agent"
    """Another agent speaks for the node, and started later."""


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
class Move:
    """A node that is another machine, or is called otherwise, than before."""

    at: float
    before: Said
    after: Said

    @property
    def is_another_machine(self) -> bool:
        return self.before.machine_id != self.after.machine_id


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
    said: Said = NOTHING_SAID
    """With `last`."""
    known: tuple[Agent, ...] = ()
    """Agents that spoke before."""
    rival: Rival | None = None
    move: Move | None = None
    """The last one."""

    @property
    def clock_skew_s(self) -> float | None:
        """By how much the node's clock was ahead of ours with the last sample, less what the sample took to come."""
        if self.last is None or self.heard_at is None:
            return None
        return self.last.sampled_at_us / 1_000_000 - self.heard_at

    def is_silent(self, now: float) -> bool:
        """The node said less than it promised. True for one of which nothing was ever heard."""
        return self.heard_at is None or now - self.heard_at > silent_after_s(self.said.interval_s)


def judge(sample: Sample, subject: str, enrolled: Mapping[str, NodeId]) -> Dropped | None:
    """Whether it may count at all; order is `hear`'s part. `enrolled`: node name → id."""
    if subject.rpartition(".")[2] != sample.node:
        return Dropped.FOREIGN_SUBJECT
    if sample.node not in enrolled:
        return Dropped.NOT_ENROLLED
    if not 0 < sample.sequence < 2**63 or sample.agent_started_us < 0:
        return Dropped.MALFORMED
    return None


def hear(hearing: Hearing, sample: Sample, now: float, said: Said = NOTHING_SAID) -> tuple[Hearing, Dropped | None]:
    """The node's record after one more sample, and why the sample does not count, if it does not. An agent that started anew
    counts from 1 again."""
    last, agent = hearing.last, Agent(sample.agent_started_us, sample.sequence)
    if last is None:
        return _taken(hearing, sample, now, said, missed=0), None  # what came before we listened is not lost
    if not is_new(agent, (*hearing.known, Agent(last.agent_started_us, last.sequence))):
        return hearing, Dropped.OUT_OF_ORDER
    if sample.agent_started_us < last.agent_started_us:
        return _hear_earlier(hearing, sample, now, said)
    if hearing.is_recalled or any(one.started_us == agent.started_us for one in hearing.known):
        missed = 0
    elif sample.agent_started_us == last.agent_started_us:
        missed = sample.sequence - last.sequence - 1
    else:
        missed = sample.sequence - 1
    return _taken(hearing, sample, now, said, missed), None


def _hear_earlier(hearing: Hearing, sample: Sample, now: float, said: Said) -> tuple[Hearing, Dropped | None]:
    """Of an agent that started before the one that counts, if its clock is right."""
    rival = hear_rival(hearing.rival, Agent(sample.agent_started_us, sample.sequence), said, now)
    if rival is None:
        return hearing, Dropped.OUT_OF_ORDER
    if hearing.is_silent(now) and rival.samples >= SUCCEEDS_AFTER_SAMPLES:
        return _taken(hearing, sample, now, said, missed=0), None
    return replace(hearing, rival=rival), Dropped.SECOND_AGENT if rival.is_one(now) else Dropped.OUT_OF_ORDER


def _taken(hearing: Hearing, sample: Sample, now: float, said: Said, missed: int) -> Hearing:
    last, known, rival = hearing.last, hearing.known, hearing.rival
    if last is not None and last.agent_started_us != sample.agent_started_us:
        known = remember(known, Agent(last.agent_started_us, last.sequence))
    known = tuple(one for one in known if one.started_us != sample.agent_started_us)
    if rival is not None and rival.agent.started_us == sample.agent_started_us:
        rival = None
    # A host that did not answer in time says nothing of itself in that sample.
    before = hearing.said
    said = replace(said, hostname=said.hostname or before.hostname, machine_id=said.machine_id or before.machine_id)
    return Hearing(
        last=sample,
        heard_at=now,
        received=hearing.received + 1,
        lost=hearing.lost + missed,
        said=said,
        known=known,
        rival=rival,
        move=_move(before, said, now) or hearing.move,
    )


def _move(before: Said, after: Said, now: float) -> Move | None:
    is_other = before.machine_id and before.machine_id != after.machine_id
    is_renamed = before.hostname and before.hostname != after.hostname
    return Move(now, before, after) if is_other or is_renamed else None
