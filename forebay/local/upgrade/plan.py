"""What an upgrade does, step by step, and how it is taken back from wherever it fails. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

SERVICES = ("admin", "registry", "scheduler", "gateway", "gpu-agent")
"""In the order in which they are replaced: who answers to the others comes first."""
_PASSES_ON = frozenset({"admin", "scheduler", "gateway"})
"""Those whose work the new one beside can do while the old one is replaced, as far as others find it. The new registry
beside is only tried: nobody would find it if it led."""


class Act(StrEnum):
    BESIDE = "beside"
    REPLACE = "replace"
    END_BESIDE = "end_beside"
    PUT_BACK = "put_back"


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    service: str


@dataclass(frozen=True, slots=True)
class Step:
    act: Act
    part: str
    about: str


def plan(parts: Iterable[Part]) -> tuple[Step, ...]:
    """First everything new is tried beside the old, while nothing of the old is touched. Then each part is replaced in its
    place, from which moment on a failure has to be taken back."""
    ordered = [part for service in SERVICES for part in parts if part.service == service]
    beside = _have_beside(ordered)
    steps = [Step(Act.BESIDE, part.name, f"start the new {part.name} beside the old one") for part in beside]
    for service in SERVICES:
        of_it = [part for part in ordered if part.service == service]
        tried = [part for part in beside if part.service == service]
        ends = [Step(Act.END_BESIDE, part.name, f"end the new {part.name} beside") for part in tried]
        if service not in _PASSES_ON:
            steps += ends
        steps += [Step(Act.REPLACE, part.name, f"drain the old {part.name}, start the new one") for part in of_it]
        if service in _PASSES_ON:
            steps += ends
    return tuple(steps)


def undo(done: Sequence[Step]) -> tuple[Step, ...]:
    """What takes `done` back, the last first. The new ones beside go on serving until the old ones are back."""
    ended = {step.part for step in done if step.act is Act.END_BESIDE}
    back = [
        Step(Act.PUT_BACK, step.part, f"drain the new {step.part}, start the old one again")
        for step in reversed(done)
        if step.act is Act.REPLACE
    ]
    end = [
        Step(Act.END_BESIDE, step.part, f"end the new {step.part} beside")
        for step in reversed(done)
        if step.act is Act.BESIDE and step.part not in ended
    ]
    return (*back, *end)


def _have_beside(ordered: Sequence[Part]) -> list[Part]:
    """Each gateway has an address of its own that somebody has to answer; of the others one speaks for all. The agent only
    tells, and a second one would tell the same twice."""
    chosen: list[Part] = []
    for part in ordered:
        is_first = all(part.service != other.service for other in chosen)
        if part.service == "gateway" or (is_first and part.service != "gpu-agent"):
            chosen.append(part)
    return chosen
