"""The states of a backend as one machine. Pure: what is so now and how it was go in, how it is comes out.

RULES is the whole of it, read from above: the first rule that holds says the state. The service's README shows it as a
table, which a test compares. What the looks alone say comes from `conditions`, orders and windows from `orders`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from forebay import backend_states
from forebay_registry.backend import Condition


class Cause(StrEnum):
    """Why a state began, in a word; beside these there are the outcomes of looks."""

    NOT_LOOKED_AT = "not_looked_at"
    ANSWERED = "answered"
    LOADING = "loading"
    ORDER = "order"
    MAINTENANCE = "maintenance"
    EMPTY = "empty"
    STOPPED = backend_states.STOPPED
    NODE_SILENT = "node_silent"
    LONG_DEAD = "long_dead"
    FAILING = "failing"
    SLOW = "slow"
    LOW_MEMORY = "low_memory"
    CACHE_FULL = "cache_full"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True)
class Levels:
    """Entered at one level and left at another, so that what lies between changes nothing."""

    enter: float
    leave: float

    def hold(self, value: float | None, *, was: bool) -> bool:
        """What is not known holds nothing."""
        return value is not None and (value >= self.enter or (was and value > self.leave))


@dataclass(frozen=True, slots=True)
class Limits:
    failing: Levels = Levels(0.2, 0.05)
    """Share of the gateways' attempts of the last minute that the backend failed."""
    slow_s: Levels = Levels(2.0, 1.5)
    """The fastest of its last three looks."""
    memory_used: Levels = Levels(0.97, 0.94)
    """Share of its host's memory."""
    kv_used: Levels = Levels(0.95, 0.85)
    queued: Levels = Levels(0.5, 0.0)
    """What waits inside the engine, per slot."""
    dwell_s: float = 20.0
    """The least time for which a backend is degraded or saturated, unless something worse comes."""
    offline_s: float = 300.0
    """An unhealthy backend is offline after so long."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is so at one moment. None is what nobody knows."""

    looks: Condition
    """What the looks alone say: unknown, starting, healthy or unhealthy."""
    looks_cause: str = ""
    """How the last look that counted ended."""
    looks_reason: str = ""
    down_s: float = 0.0
    """For how long the looks have been saying unhealthy."""
    is_node_silent: bool = False
    failing: float | None = None
    slow_s: float | None = None
    memory_used: float | None = None
    kv_used: float | None = None
    queued: float | None = None
    kept_empty: str = ""
    """One sentence when an order or a window keeps it empty."""
    is_maintenance: bool = False
    runs: bool | None = None
    """Whether something runs there."""


@dataclass(frozen=True, slots=True)
class State:
    condition: Condition = Condition.UNKNOWN
    since: float = 0.0
    """On the clock that `judge` is given."""
    cause: str = Cause.NOT_LOOKED_AT
    reason: str = ""
    """One sentence; empty when all is well."""
    strains: frozenset[Cause] = frozenset()
    """Levels that were entered and not left yet."""


@dataclass(frozen=True, slots=True)
class Rule:
    condition: Condition
    when: str
    """For people."""
    holds: Callable[[State, Facts, Limits], bool]
    """The state before, with the strains of now."""
    tell: Callable[[State, Facts, Limits], tuple[str, str]]
    """Its cause and its reason."""


def judge(before: State, facts: Facts, now: float, limits: Limits = Limits()) -> State:
    """The state at `now`."""
    strains = _strains(before, facts, limits)
    # The same object while nothing changes: this is asked at each look of each backend.
    strained = before if strains == before.strains else replace(before, strains=strains)
    rule = next(rule for rule in RULES if rule.holds(strained, facts, limits))
    if _must_stay(before, rule.condition, now, limits):
        return strained
    cause, reason = rule.tell(strained, facts, limits)
    if rule.condition is before.condition:
        # While it is degraded for one thing after the other, the first is told until it is over.
        keeps = rule.condition in _STRAINED and before.cause in strained.strains
        is_same = (cause, reason) == (strained.cause, strained.reason)
        return strained if keeps or is_same else replace(strained, cause=cause, reason=reason)
    return replace(strained, condition=rule.condition, since=now, cause=cause, reason=reason)


def _strains(before: State, facts: Facts, limits: Limits) -> frozenset[Cause]:
    was = before.strains
    measured = (
        (Cause.FAILING, limits.failing, facts.failing),
        (Cause.SLOW, limits.slow_s, facts.slow_s),
        (Cause.LOW_MEMORY, limits.memory_used, facts.memory_used),
        (Cause.CACHE_FULL, limits.kv_used, facts.kv_used),
        (Cause.QUEUE, limits.queued, facts.queued),
    )
    return frozenset([cause for cause, levels, value in measured if levels.hold(value, was=cause in was)])


def _must_stay(before: State, after: Condition, now: float, limits: Limits) -> bool:
    is_relief = before.condition in _STRAINED and after in (Condition.HEALTHY, *_STRAINED)
    return is_relief and after is not before.condition and now - before.since < limits.dwell_s


_STRAINED = frozenset({Condition.DEGRADED, Condition.SATURATED})
_DEGRADING = (Cause.FAILING, Cause.LOW_MEMORY, Cause.SLOW)
_FILLING = (Cause.CACHE_FULL, Cause.QUEUE)


def _is_empty(state: State, facts: Facts) -> bool:
    if facts.looks is Condition.UNHEALTHY:
        return True
    return not facts.runs if facts.runs is not None else state.condition is Condition.DRAINED


def _tell_drained(state: State, facts: Facts, limits: Limits) -> tuple[str, str]:
    return Cause.STOPPED if facts.looks is Condition.UNHEALTHY else Cause.EMPTY, facts.kept_empty


def _tell_draining(state: State, facts: Facts, limits: Limits) -> tuple[str, str]:
    return Cause.MAINTENANCE if facts.is_maintenance else Cause.ORDER, facts.kept_empty


def _tell_offline(state: State, facts: Facts, limits: Limits) -> tuple[str, str]:
    if facts.is_node_silent:
        return Cause.NODE_SILENT, f"{facts.looks_reason} Its node is silent too.".strip()
    return Cause.LONG_DEAD, facts.looks_reason


def _tell_looks(state: State, facts: Facts, limits: Limits) -> tuple[str, str]:
    return facts.looks_cause, facts.looks_reason


def _tell_degraded(state: State, facts: Facts, limits: Limits) -> tuple[str, str]:
    if Cause.FAILING in state.strains:
        return Cause.FAILING, f"{facts.failing or 0:.0%} of the gateways' attempts there failed in the last minute."
    if Cause.LOW_MEMORY in state.strains:
        return Cause.LOW_MEMORY, f"{facts.memory_used or 0:.0%} of its host's memory are used."
    return Cause.SLOW, f"It takes {facts.slow_s or 0:.1f} s to list its models."


def _tell_saturated(state: State, facts: Facts, limits: Limits) -> tuple[str, str]:
    if Cause.CACHE_FULL in state.strains:
        return Cause.CACHE_FULL, f"{facts.kv_used or 0:.0%} of its KV cache are used."
    return Cause.QUEUE, "Requests wait inside the engine."


_USUAL = Limits()

RULES: tuple[Rule, ...] = (
    Rule(
        Condition.DRAINED,
        "an order or a maintenance window keeps it empty, and nothing runs there, or it does not answer",
        lambda state, facts, limits: bool(facts.kept_empty) and _is_empty(state, facts),
        _tell_drained,
    ),
    Rule(
        Condition.DRAINING,
        "an order or a maintenance window keeps it empty",
        lambda state, facts, limits: bool(facts.kept_empty),
        _tell_draining,
    ),
    Rule(
        Condition.OFFLINE,
        f"it is unhealthy, and its node is silent or that has been so for {_USUAL.offline_s / 60:g} min",
        lambda state, facts, limits: (
            facts.looks is Condition.UNHEALTHY and (facts.is_node_silent or facts.down_s >= limits.offline_s)
        ),
        _tell_offline,
    ),
    Rule(
        Condition.UNHEALTHY,
        "three looks in a row failed, or two were refused a connection (one, after a gateway failed there); "
        "until two in a row succeed, or more for one that flaps",
        lambda state, facts, limits: facts.looks is Condition.UNHEALTHY,
        _tell_looks,
    ),
    Rule(
        Condition.STARTING,
        "it answers that it loads; after half an hour of that it is unhealthy",
        lambda state, facts, limits: facts.looks is Condition.STARTING,
        lambda state, facts, limits: (Cause.LOADING, facts.looks_reason),
    ),
    Rule(
        Condition.UNKNOWN,
        "it has not been looked at yet",
        lambda state, facts, limits: facts.looks is Condition.UNKNOWN,
        lambda state, facts, limits: (facts.looks_cause or Cause.NOT_LOOKED_AT, facts.looks_reason),
    ),
    Rule(
        Condition.DEGRADED,
        f"{_USUAL.failing.enter:.0%} of the gateways' attempts of a minute failed there (until {_USUAL.failing.leave:.0%}), "
        f"its looks take {_USUAL.slow_s.enter:g} s (until {_USUAL.slow_s.leave:g} s), or its host has "
        f"{_USUAL.memory_used.enter:.0%} of its memory in use (until {_USUAL.memory_used.leave:.0%}); "
        f"for at least {_USUAL.dwell_s:g} s",
        lambda state, facts, limits: not state.strains.isdisjoint(_DEGRADING),
        _tell_degraded,
    ),
    Rule(
        Condition.SATURATED,
        f"{_USUAL.kv_used.enter:.0%} of its cache are used (until {_USUAL.kv_used.leave:.0%}), or half as many requests as "
        f"it has slots wait inside it (until none does); for at least {_USUAL.dwell_s:g} s",
        lambda state, facts, limits: not state.strains.isdisjoint(_FILLING),
        _tell_saturated,
    ),
    Rule(Condition.HEALTHY, "none of these", lambda state, facts, limits: True, lambda *_: (Cause.ANSWERED, "")),
)


def as_table() -> str:
    """RULES as Markdown, with what each state means to others."""
    lines = ["| the first that holds | when | gets new requests |", "|---|---|---|"]
    for rule in RULES:
        takes = "yes" if rule.condition.takes_new else "no" if rule.condition.is_barred else "no¹"
        lines.append(f"| `{rule.condition}` | {rule.when} | {takes} |")
    return "\n".join(lines)
