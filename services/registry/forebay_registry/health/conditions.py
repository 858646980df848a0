"""What the looks at a backend say of it, and when to look again. Pure: outcomes and time come in, the next state goes out.
What else there is to say of it (orders, load, what gateways saw) is joined in `states`.

One success makes an unknown backend healthy, so that a new one serves at once. A healthy one falls after three failures in
a row, or two refused connections: nobody listens there, and waiting for a third changes nothing. It returns after two
successes, so that an engine which crashes at each start does not flap at every attempt; one that falls again and again has
to succeed for longer each time. One that says that it loads is starting, and has not failed.

A gateway's failed attempt is a hint (`doubt`): it brings a backend to one failure before its threshold, so that the look
which follows at once decides. No number of hints makes up for a look that fails."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from forebay_registry.backend import Condition
from forebay_registry.engines.outcome import Outcome

FAILURES_TO_FALL = 3
REFUSALS_TO_FALL = 2
SUCCESSES_TO_RETURN = 2
_FALLS_KEPT = 16


class Breaker(StrEnum):
    """The state of a backend as a circuit breaker's."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    """In doubt, or on its way back: one look at a time decides."""
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Thresholds:
    failures: int = FAILURES_TO_FALL
    refusals: int = REFUSALS_TO_FALL
    successes: int = SUCCESSES_TO_RETURN
    flap_falls: int = 3
    """Falls in `flap_window_s` from which on each return takes twice as many successes as the one before."""
    flap_window_s: float = 600.0
    most_successes: int = 32
    """In a row, however often it fell."""
    starting_s: float = 1800.0
    """An engine that has been loading for so long is unhealthy: the largest models take minutes from a slow disk."""


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
    """Unknown, starting, healthy or unhealthy."""
    since: float = 0.0
    """When this condition began, on the clock that `step` is given."""
    failures: int = 0
    """In a row, refusals among them."""
    refusals: int = 0
    """In a row."""
    successes: int = 0
    """In a row."""
    falls: tuple[float, ...] = ()
    """When it was lastly healthy and then no more."""
    has_fallen: bool = False
    """It was unhealthy since it was last healthy."""
    loading_since: float | None = None

    @property
    def breaker(self) -> Breaker:
        if self.condition is Condition.UNHEALTHY:
            return Breaker.HALF_OPEN if self.successes else Breaker.OPEN
        return Breaker.HALF_OPEN if self.failures else Breaker.CLOSED


def step(health: Health, outcome: Outcome, now: float, thresholds: Thresholds = Thresholds()) -> Health:
    """The state after one more probe, which ended at `now`."""
    if outcome is Outcome.SUCCESS:
        after = replace(health, failures=0, refusals=0, successes=health.successes + 1, loading_since=None)
        if after.successes >= successes_needed(health, now, thresholds):
            return _become(after, Condition.HEALTHY, now, thresholds)
        return after
    if outcome is Outcome.LOADING:
        began = now if health.loading_since is None else health.loading_since
        after = replace(health, failures=0, refusals=0, successes=0, loading_since=began)
        is_late = now - began >= thresholds.starting_s
        return _become(after, Condition.UNHEALTHY if is_late else Condition.STARTING, now, thresholds)
    refusals = health.refusals + 1 if outcome is Outcome.REFUSED else 0
    after = replace(health, failures=health.failures + 1, refusals=refusals, successes=0)
    if after.failures >= thresholds.failures or after.refusals >= thresholds.refusals:
        # What loads after that is another start. One failed look among those that say it loads is not.
        return _become(replace(after, loading_since=None), Condition.UNHEALTHY, now, thresholds)
    return after


def doubt(health: Health, *, is_refusal: bool, thresholds: Thresholds = Thresholds()) -> Health:
    """The state after a gateway failed there. Only a look can add the last failure."""
    if health.condition is Condition.UNHEALTHY:
        return health
    refusals = max(health.refusals, thresholds.refusals - 1) if is_refusal else health.refusals
    return replace(health, failures=max(health.failures, thresholds.failures - 1), refusals=refusals)


def recalled(condition: Condition, falls: tuple[float, ...], now: float) -> Health:
    """As it was when a registry before this one last looked."""
    match condition:
        case Condition.HEALTHY | Condition.DEGRADED | Condition.SATURATED:
            return Health(Condition.HEALTHY, now, falls=falls)
        case Condition.UNHEALTHY | Condition.OFFLINE:
            return Health(Condition.UNHEALTHY, now, falls=falls, has_fallen=True)
        case _:
            return Health(since=now, falls=falls)


def successes_needed(health: Health, now: float, thresholds: Thresholds = Thresholds()) -> int:
    """In a row, until it is healthy."""
    if health.condition is Condition.HEALTHY:
        return 1
    base = thresholds.successes if health.has_fallen else 1
    doublings = max(0, flaps(health, now, thresholds) - thresholds.flap_falls + 1)
    return max(base, min(base << doublings, thresholds.most_successes))


def flaps(health: Health, now: float, thresholds: Thresholds = Thresholds()) -> int:
    """How often it fell lately."""
    return sum(now - at < thresholds.flap_window_s for at in health.falls)


def damping(health: Health, now: float, thresholds: Thresholds = Thresholds()) -> str:
    """One sentence when it is kept back because it flaps; empty when it is not."""
    fallen = flaps(health, now, thresholds)
    if health.condition is Condition.HEALTHY or fallen < thresholds.flap_falls:
        return ""
    needed = successes_needed(health, now, thresholds)
    return (
        f"It fell {fallen} times in {thresholds.flap_window_s / 60:g} min, so it serves again after {needed} good looks "
        "in a row."
    )


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


def _become(health: Health, condition: Condition, now: float, thresholds: Thresholds) -> Health:
    if health.condition is condition:
        return health
    falls = health.falls
    if health.condition is Condition.HEALTHY:
        falls = (*(at for at in falls if now - at < thresholds.flap_window_s), now)[-_FALLS_KEPT:]
    has_fallen = condition is Condition.UNHEALTHY or (health.has_fallen and condition is not Condition.HEALTHY)
    return replace(health, condition=condition, since=now, falls=falls, has_fallen=has_fallen)
