"""Which of several agents speaks for a node. Each start of an agent is another one, told apart by when it started, by its
own clock. The one that started last counts. Another that goes on speaking is told of, and is taken when the first is silent:
the clock of its machine may have been set back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

RIVAL_AFTER_SAMPLES = 5
"""Fewer are those of an agent that ends while its successor starts."""
RIVAL_FOR_S = 60.0
"""After its last sample a second agent is taken to be gone."""
SUCCEEDS_AFTER_SAMPLES = 2
MOST_KNOWN = 4
"""Agents before the present one whose last sample is remembered, so that none of theirs counts again."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a sample says of its agent, besides the numbers."""

    interval_s: float = 0.0
    """The next comes within this; 0 from an agent that does not say."""
    hostname: str = ""
    machine_id: str = ""


NOTHING_SAID = Said()


@dataclass(frozen=True, slots=True)
class Agent:
    """One start of an agent."""

    started_us: int
    sequence: int
    """Of its last sample."""


@dataclass(frozen=True, slots=True)
class Rival:
    """An agent that started before the one that counts, and speaks."""

    agent: Agent
    heard_at: float
    said: Said
    samples: int = 1

    def is_one(self, now: float) -> bool:
        """Not merely the last words of an agent that ended."""
        return self.samples >= RIVAL_AFTER_SAMPLES and now - self.heard_at < RIVAL_FOR_S


def is_new(agent: Agent, known: Sequence[Agent]) -> bool:
    """Whether nothing like it was heard before: a sample that is sent again is not."""
    return all(agent.sequence > one.sequence for one in known if one.started_us == agent.started_us)


def remember(known: Sequence[Agent], agent: Agent) -> tuple[Agent, ...]:
    """The agents of before, the newest first."""
    others = [one for one in known if one.started_us != agent.started_us]
    return (agent, *others)[:MOST_KNOWN]


def hear_rival(rival: Rival | None, agent: Agent, said: Said, now: float) -> Rival | None:
    """After one more sample; None when it says nothing new."""
    if rival is None or rival.agent.started_us != agent.started_us or now - rival.heard_at >= RIVAL_FOR_S:
        return Rival(agent, now, said)
    if agent.sequence <= rival.agent.sequence:
        return None
    return replace(rival, agent=agent, heard_at=now, said=said, samples=rival.samples + 1)
