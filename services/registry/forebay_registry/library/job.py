"""An order about a model, on one or many backends, and how it goes on each. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NewType

from forebay_registry.backend import BackendId

JobId = NewType("JobId", str)

ATTEMPTS = 3
"""At what may end well the next time."""
_FIRST_REST_S = 2.0
_REST_GROWS = 4.0


class Action(StrEnum):
    PULL = "pull"
    DELETE = "delete"
    COPY = "copy"
    PRELOAD = "preload"
    UNLOAD = "unload"


class State(StrEnum):
    WAITING = "waiting"
    """For its turn, or for the next attempt."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        return self not in (State.WAITING, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Target:
    """The order on one backend."""

    backend_id: BackendId
    backend: str
    """Its name when the order was given."""
    state: State = State.WAITING
    status: str = ""
    """The engine's own word."""
    completed_bytes: int | None = None
    total_bytes: int | None = None
    """Of what the engine has announced so far."""
    attempts: int = 0
    error: str = ""
    """One sentence."""
    note: str = ""
    load_ms: int | None = None
    warmup_ms: int | None = None
    started_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    id: JobId
    action: Action
    model: str
    actor: str
    created_at: float
    targets: tuple[Target, ...]
    destination: str = ""
    source: str = ""
    keep_alive: str = ""
    force: bool = False
    ended_at: float | None = None

    @property
    def state(self) -> State:
        """What happened at all comes before what went well: one that failed somewhere has failed."""
        states = {target.state for target in self.targets}
        for state in (State.RUNNING, State.WAITING, State.FAILED, State.CANCELLED):
            if state in states:
                # Where some are done and others wait for their turn, it is under way.
                return State.RUNNING if state is State.WAITING and len(states) > 1 else state
        return State.DONE

    def target(self, backend_id: BackendId) -> Target:
        return next(target for target in self.targets if target.backend_id == backend_id)

    def with_target(self, changed: Target) -> Job:
        return replace(self, targets=tuple(changed if t.backend_id == changed.backend_id else t for t in self.targets))


def begun(target: Target, now: float) -> Target:
    """One more attempt, of which nothing is known yet."""
    return replace(
        target,
        state=State.RUNNING,
        attempts=target.attempts + 1,
        status="",
        error="",
        started_at=target.started_at if target.started_at is not None else now,
    )


def ended(target: Target, state: State, now: float, error: str = "") -> Target:
    return replace(target, state=state, error=error, ended_at=now)


def rest_s(attempts: int) -> float | None:
    """Seconds until the next attempt after so many; None when there is none."""
    return None if attempts >= ATTEMPTS else _FIRST_REST_S * _REST_GROWS ** (attempts - 1)


def resumed(target: Target) -> Target:
    """After a restart of the registry: the attempt that it cut off does not count, and goes on where it was."""
    if target.state is not State.RUNNING:
        return target
    return replace(target, state=State.WAITING, attempts=max(0, target.attempts - 1))


def is_under_way(jobs: Iterable[Job], action: Action, backend_id: BackendId, model: str) -> bool:
    return any(
        not target.state.is_over and target.backend_id == backend_id
        for job in jobs
        if job.action is action and job.model == model
        for target in job.targets
    )
