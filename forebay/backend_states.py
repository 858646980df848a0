"""The states that a backend can be in, and what each of them means to whoever sends requests. Pure; the one place for both.

Which state a backend is in, the registry decides; what is made of it, scheduler and gateways do, each by this table."""

from __future__ import annotations

from enum import StrEnum

STOPPED = "stopped"
"""The cause of a drained backend whose engine does not answer."""


class Condition(StrEnum):
    UNKNOWN = "unknown"
    """Not looked at yet."""
    STARTING = "starting"
    """It answers, and its models are still being loaded."""
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """It serves, slowly or with failures."""
    SATURATED = "saturated"
    """It serves, and is full: what is sent there waits inside the engine."""
    DRAINING = "draining"
    """Nothing new is sent there; what runs may finish."""
    DRAINED = "drained"
    """The same, and nothing runs there any more."""
    UNHEALTHY = "unhealthy"
    """It does not answer as it should."""
    OFFLINE = "offline"
    """Unhealthy for long, or its node is silent too."""

    @property
    def takes_new(self) -> bool:
        """New requests are sent there. Of two that do, the load decides and not the state: the scheduler sees the failures
        and the waits themselves, and sooner."""
        return self in _TAKES_NEW

    @property
    def is_barred(self) -> bool:
        """Nobody begins anything there, a gateway without a scheduler no more than a scheduler. An unknown one is neither
        open nor barred: a gateway that has nobody to ask may try it."""
        return self not in _TAKES_NEW and self is not Condition.UNKNOWN

    @property
    def is_down(self) -> bool:
        """Looks at it fail, so that an answer which is silent there will probably stay so."""
        return self in (Condition.UNHEALTHY, Condition.OFFLINE)

    @property
    def is_emptied(self) -> bool:
        """It is kept empty on purpose, and how its engine answers is nobody's concern."""
        return self in (Condition.DRAINING, Condition.DRAINED)


_TAKES_NEW = frozenset({Condition.HEALTHY, Condition.DEGRADED, Condition.SATURATED})


def condition_named(word: str) -> Condition:
    """From its name on the wire, such as BACKEND_HEALTH_HEALTHY; one that this version does not know is UNKNOWN."""
    plain = word.removeprefix("BACKEND_HEALTH_").lower()
    return Condition(plain) if plain in set(Condition) else Condition.UNKNOWN
