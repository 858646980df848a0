"""How a registry stands to the others, and the errors of one that may not act. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from forebay.errors import Unavailable


class Standing(StrEnum):
    WAITING = "waiting"
    """Just started: Postgres, which says who leads, has not answered yet."""
    STANDBY = "standby"
    """Another leads."""
    LEADING = "leading"
    ADRIFT = "adrift"
    """Postgres does not answer, and nobody else is known to lead: engines are looked at and watchers told, nothing is
    written."""


ACTING = frozenset({Standing.LEADING, Standing.ADRIFT})
"""Looks at engines and tells watchers."""


@dataclass(frozen=True, slots=True)
class Stance:
    standing: Standing = Standing.WAITING
    epoch: int = 0
    """Of our lead, or the newest that is known here. It grows with each that takes the lead, as microseconds since the Unix
    epoch, so that a database restored from yesterday does not give one out twice."""
    leader: str = ""
    """The address of the one that leads, as far as is known here."""

    @property
    def acts(self) -> bool:
        return self.standing in ACTING

    @property
    def leads(self) -> bool:
        return self.standing is Standing.LEADING


class StandsBy(Unavailable):
    """This registry stands by; another one leads."""


class Adrift(Unavailable):
    """Postgres does not answer, so nobody can say whether this registry still leads; changes wait until it does."""


class Fenced(Unavailable):
    """Another registry has taken the lead, so nothing is written here any more."""


def after_loss(stance: Stance) -> Stance:
    """The connection that held the lock, or asked for it, is gone. Who led may lead still, and nobody else can tell; who
    stood by goes on doing so, since whoever led is probably there."""
    return Stance(Standing.ADRIFT, stance.epoch, stance.leader) if stance.leads else stance
