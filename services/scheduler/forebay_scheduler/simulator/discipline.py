"""The seam between the loop and whoever decides. `Discipline` says whose turn it is and where it goes, and learns what came
of it.

Whatever a discipline answers is a list of (job, engine's index): these are sent there now, in this order, and queue up
inside the engine when it has no room. A discipline that holds its queue itself sends nothing that does not fit, and is
asked again by `room` at each step of an engine with nothing in its own queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from forebay_scheduler.simulator.engines import Engine
from forebay_scheduler.simulator.jobs import Job, Workload

Sent = Iterable[tuple[Job, int]]


class Discipline(Protocol):
    name: str

    def begin(self, workload: Workload, engines: Sequence[Engine]) -> None: ...

    def arrive(self, job: Job, now: float) -> Sent: ...

    def room(self, engine: Engine, now: float) -> Job | None:
        """A step is about to begin and the engine's own queue is empty: what joins it? Asked until the answer is None."""

    def offer(self, engine: Engine, now: float) -> Sent:
        """The same for a discipline that thinks of all engines at once: what it sends may go elsewhere too."""

    def first_token(self, job: Job, now: float) -> Sent: ...

    def progress(self, tokens: Mapping[int, int], engine: Engine, now: float) -> Sent:
        """One step gave so many tokens to each user's answers; first tokens are not among them."""

    def end(self, job: Job, now: float) -> Sent: ...

    def fail(self, job: Job, engine: int, now: float) -> Sent:
        """Its engine died under it, before its first token: it is to wait again, or to go elsewhere."""

    def up(self, engine: int, now: float) -> Sent:
        """The engine is back."""

    def wakes_at(self) -> float:
        """When it wants to be told the time, without anything else happening."""

    def wake(self, now: float) -> Sent: ...

    def waiting(self) -> int:
        """Jobs that it keeps back."""


class Quiet:
    """A discipline's answers to what it does not care for."""

    def begin(self, workload: Workload, engines: Sequence[Engine]) -> None:
        pass

    def room(self, engine: Engine, now: float) -> Job | None:
        return None

    def offer(self, engine: Engine, now: float) -> Sent:
        return ()

    def first_token(self, job: Job, now: float) -> Sent:
        return ()

    def progress(self, tokens: Mapping[int, int], engine: Engine, now: float) -> Sent:
        return ()

    def end(self, job: Job, now: float) -> Sent:
        return ()

    def up(self, engine: int, now: float) -> Sent:
        return ()

    def wakes_at(self) -> float:
        return float("inf")

    def wake(self, now: float) -> Sent:
        return ()

    def waiting(self) -> int:
        return 0
