"""Whether a backend counts as healthy, and when to look again. Pure: outcomes and time come in, the next state goes out.

One success makes an unknown backend healthy, so that a new one serves at once. A healthy one falls after three failures in
a row, or two refused connections: nobody listens there, and waiting for a third changes nothing. It returns after two
successes, so that an engine which crashes at each start does not flap at every attempt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from forebay_registry.backend import Condition

FAILURES_TO_FALL = 3
REFUSALS_TO_FALL = 2
SUCCESSES_TO_RETURN = 2


class Outcome(StrEnum):
    """How a probe ended; also the label of its metric."""

    SUCCESS = "success"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    CREDENTIAL = "credential"
    STATUS = "status"
    BAD_ANSWER = "bad_answer"


@dataclass(frozen=True, slots=True)
class Thresholds:
    failures: int = FAILURES_TO_FALL
    refusals: int = REFUSALS_TO_FALL
    successes: int = SUCCESSES_TO_RETURN


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Seconds between two probes."""

    healthy_s: float = 2.0
    doubt_s: float = 1.0
    dead_s: float = 10.0
    """At most, for a backend that has been dead for long."""


@dataclass(frozen=True, slots=True)
class Health:
    condition: Condition = Condition.UNKNOWN
    since: float = 0.0
    """When this condition began, on the clock that `step` is given."""
    failures: int = 0
    """In a row, refusals among them."""
    refusals: int = 0
    """In a row."""
    successes: int = 0
    """In a row."""


def step(health: Health, outcome: Outcome, now: float, thresholds: Thresholds = Thresholds()) -> Health:
    """The state after one more probe, which ended at `now`."""
    if outcome is Outcome.SUCCESS:
        after = replace(health, failures=0, refusals=0, successes=health.successes + 1)
        needed = thresholds.successes if health.condition is Condition.UNHEALTHY else 1
        return _become(after, Condition.HEALTHY, now) if after.successes >= needed else after
    refusals = health.refusals + 1 if outcome is Outcome.REFUSED else 0
    after = replace(health, failures=health.failures + 1, refusals=refusals, successes=0)
    if after.failures >= thresholds.failures or after.refusals >= thresholds.refusals:
        return _become(after, Condition.UNHEALTHY, now)
    return after


def next_look_s(health: Health, now: float, jitter: float, rhythm: Rhythm = Rhythm()) -> float:
    """Seconds until the next probe. `jitter`, 0 to 1, is chosen at random by the caller and moves it by a tenth either way:
    without it, the backends of a restarted registry would be asked all at the same instant for ever."""
    if health.condition is Condition.HEALTHY and health.failures == 0:
        interval_s = rhythm.healthy_s
    elif health.condition is Condition.UNHEALTHY and health.successes == 0:
        # In proportion to how long it has been dead: a restart is noticed soon, a machine in a drawer costs little.
        interval_s = min(rhythm.dead_s, max(rhythm.doubt_s, (now - health.since) / 6))
    else:
        interval_s = rhythm.doubt_s
    return interval_s * (0.9 + 0.2 * jitter)


def _become(health: Health, condition: Condition, now: float) -> Health:
    return health if health.condition is condition else replace(health, condition=condition, since=now)
