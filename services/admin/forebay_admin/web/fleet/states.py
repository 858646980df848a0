"""The states of backends, parts, jobs and alerts: their tones, what they mean, and how a backend gets from one to the
other. Pure; which state something is in is decided by the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forebay.backend_states import Condition

DISABLED = "disabled"

TONES: Mapping[str, str] = {
    "healthy": "good",
    "starting": "info",
    "degraded": "warn",
    "saturated": "warn",
    "draining": "info",
    "drained": "info",
    "unhealthy": "bad",
    "offline": "bad",
    "unknown": "",
    DISABLED: "",
    # Of parts of Forebay, and of the whole.
    "ok": "good",
    "standby": "good",
    "down": "bad",
    # Of jobs.
    "waiting": "",
    "running": "info",
    "done": "good",
    "failed": "bad",
    "cancelled": "",
    # Of alerts.
    "info": "info",
    "warning": "warn",
    "critical": "bad",
}

MEANINGS: Mapping[str, str] = {
    "unknown": "It has not been looked at yet.",
    "starting": "It answers, and its models are still being loaded.",
    "healthy": "It answers, and gets requests.",
    "degraded": "It serves, slowly or with failures.",
    "saturated": "It serves, and is full: what is sent there waits inside the engine.",
    "draining": "Nothing new is sent there; what runs may finish.",
    "drained": "Nothing new is sent there, and nothing runs there any more.",
    "unhealthy": "It does not answer as it should, and gets nothing.",
    "offline": "It has been unhealthy for long, or its node is silent too.",
    DISABLED: "An operator has switched it off.",
}

CAUSES: Mapping[str, str] = {
    "not_looked_at": "nobody has looked yet",
    "answered": "it answered",
    "loading": "it says that it loads its models",
    "order": "an operator drains it",
    "maintenance": "it is in a maintenance window",
    "empty": "what ran there has ended",
    "stopped": "it is drained, and its engine does not answer",
    "node_silent": "its node is silent too",
    "long_dead": "it has been so for long",
    "failing": "attempts of gateways fail there",
    "slow": "its answers to looks take long",
    "low_memory": "its host's memory is nearly full",
    "cache_full": "its KV cache is nearly full",
    "queue": "requests wait inside the engine",
    "refused": "no connection could be made",
    "unreachable": "no way leads to it",
    "timeout": "it said nothing in time",
    "credential": "it does not accept its key",
    "status": "it answers with an error",
    "bad_answer": "its answer cannot be read",
    "flapping": "it comes and goes, so it has to answer for longer",
}


def tone(word: str) -> str:
    return TONES.get(word, "")


def cause_in_words(cause: str) -> str:
    return CAUSES.get(cause, cause.replace("_", " "))


@dataclass(frozen=True, slots=True)
class Box:
    """One state in the drawing; places are in the units of its view box."""

    state: str
    x: int
    y: int
    tone: str
    is_here: bool
    takes_new: bool


@dataclass(frozen=True, slots=True)
class Way:
    x1: int
    y1: int
    x2: int
    y2: int
    goes_back: bool
    """It is gone both ways."""


@dataclass(frozen=True, slots=True)
class Machine:
    boxes: tuple[Box, ...]
    ways: tuple[Way, ...]
    width: int
    height: int
    said: str
    """For who does not see it."""


BOX_WIDTH, BOX_HEIGHT = 104, 38
_STEP_X, _STEP_Y = 150, 76
_EDGE = 8
# (column, row) of each.
_PLACES: Mapping[Condition, tuple[int, int]] = {
    Condition.UNKNOWN: (0, 1),
    Condition.STARTING: (1, 1),
    Condition.HEALTHY: (2, 1),
    Condition.DEGRADED: (3, 0),
    Condition.SATURATED: (3, 1),
    Condition.UNHEALTHY: (2, 0),
    Condition.OFFLINE: (1, 0),
    Condition.DRAINING: (2, 2),
    Condition.DRAINED: (3, 2),
}
_WAYS = (
    (Condition.UNKNOWN, Condition.STARTING, False),
    (Condition.STARTING, Condition.HEALTHY, False),
    (Condition.HEALTHY, Condition.DEGRADED, True),
    (Condition.HEALTHY, Condition.SATURATED, True),
    (Condition.HEALTHY, Condition.UNHEALTHY, True),
    (Condition.UNHEALTHY, Condition.OFFLINE, False),
    (Condition.HEALTHY, Condition.DRAINING, True),
    (Condition.DRAINING, Condition.DRAINED, False),
)


def machine(state: str) -> Machine:
    """The drawing, with where a backend stands in it."""
    boxes = tuple(
        Box(
            condition,
            _EDGE + column * _STEP_X,
            _EDGE + row * _STEP_Y,
            tone(condition),
            condition == state,
            condition.takes_new,
        )
        for condition, (column, row) in _PLACES.items()
    )
    ways = tuple(_way(*way) for way in _WAYS)
    width = 2 * _EDGE + 3 * _STEP_X + BOX_WIDTH
    height = 2 * _EDGE + 2 * _STEP_Y + BOX_HEIGHT
    taking = ", ".join(condition for condition in _PLACES if condition.takes_new)
    here = f"It is {state}." if state in set(Condition) else f"It is {state}, which is none of these."
    said = f"The states of a backend. {here} Requests are sent to it when it is {taking}."
    return Machine(boxes, ways, width, height, said)


def _way(begin: Condition, end: Condition, goes_back: bool) -> Way:
    """From edge to edge of the two boxes."""
    (c1, r1), (c2, r2) = _PLACES[begin], _PLACES[end]
    x1, y1, x2, y2 = (_EDGE + c1 * _STEP_X, _EDGE + r1 * _STEP_Y, _EDGE + c2 * _STEP_X, _EDGE + r2 * _STEP_Y)
    if c1 == c2:
        x1, x2 = x1 + BOX_WIDTH // 2, x2 + BOX_WIDTH // 2
        y1, y2 = (y1 + BOX_HEIGHT, y2) if r2 > r1 else (y1, y2 + BOX_HEIGHT)
    else:
        y1, y2 = y1 + BOX_HEIGHT // 2, y2 + BOX_HEIGHT // 2
        x1, x2 = (x1 + BOX_WIDTH, x2) if c2 > c1 else (x1, x2 + BOX_WIDTH)
    return Way(x1, y1, x2, y2, goes_back)
