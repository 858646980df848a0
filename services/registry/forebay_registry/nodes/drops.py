"""Samples of one node that were not taken: how many and why, and whether that goes on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from forebay_registry.nodes.samples import Dropped

PAUSE_S = 60.0
"""Without one for so long it is over: an agent that is idle tells every ten seconds."""
LASTING_S = 30.0
"""What stops before that is the end of an agent that was replaced, or a message that came twice."""


@dataclass(frozen=True, slots=True)
class Drops:
    samples: Mapping[Dropped, int] = field(default_factory=dict)
    """Since the registry started."""
    last_at: Mapping[Dropped, float] = field(default_factory=dict)
    began_at: float = 0.0
    """Of the time in which it has gone on without a pause; those of a second agent, which are told as that, apart."""
    ended_at: float = 0.0
    since: Mapping[Dropped, int] = field(default_factory=dict)
    """Since it began."""

    def goes_on(self, now: float) -> bool:
        return self.ended_at - self.began_at >= LASTING_S and now - self.ended_at < PAUSE_S


def drop(drops: Drops, why: Dropped, now: float) -> Drops:
    """After one more."""
    drops = replace(drops, samples=_one_more(drops.samples, why), last_at={**drops.last_at, why: now})
    if why is Dropped.SECOND_AGENT:
        return drops
    if now - drops.ended_at >= PAUSE_S:
        return replace(drops, began_at=now, ended_at=now, since={why: 1})
    return replace(drops, ended_at=now, since=_one_more(drops.since, why))


def _one_more(counts: Mapping[Dropped, int], why: Dropped) -> dict[Dropped, int]:
    return {**counts, why: counts.get(why, 0) + 1}
