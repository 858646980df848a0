"""What happens to the scheduler. Parsed at the edge; the core takes these and the time, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from forebay_scheduler.backend import Backend
from forebay_scheduler.request import Claim, GatewayName, Lease, LedgerId, Request, SessionId, UserId


@dataclass(frozen=True, slots=True)
class FleetChanged:
    """All backends there are now."""

    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class UserLimits:
    user: UserId
    weight: float = 1.0
    max_queued: int | None = None
    """None for the scheduler's default."""


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """What admin says of users. The waiting requests of removed users are taken back."""

    users: tuple[UserLimits, ...] = ()
    removed: tuple[UserId, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A gateway said Hello: this is its whole truth, and what it does not name is over."""

    session: SessionId
    gateway: GatewayName
    generation: int
    claims: tuple[Claim, ...] = ()
    queued: tuple[Request, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionLost:
    """The stream ended without a goodbye. The gateway may be alive and on its way back."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class GatewayLeft:
    """It drained and said Bye: whatever it still had is over."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class GatewayDied:
    """Someone who knows (a supervisor) says that this process is dead."""

    gateway: GatewayName
    generation: int


@dataclass(frozen=True, slots=True)
class Heard:
    """A sign of life with nothing else in it."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class Submit:
    session: SessionId
    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client went before the request was settled."""

    session: SessionId
    ledger_id: LedgerId


@dataclass(frozen=True, slots=True)
class FirstToken:
    session: SessionId
    ledger_id: LedgerId


@dataclass(frozen=True, slots=True)
class Progress:
    session: SessionId
    ledger_id: LedgerId
    completion_tokens: int
    """So far."""


@dataclass(frozen=True, slots=True)
class Settle:
    """The end of a request, perhaps told before."""

    session: SessionId
    ledger_id: LedgerId
    lease: Lease | None
    """None when the gateway never saw a grant."""
    is_success: bool = True
    """The backend did its part."""


class NackCause(StrEnum):
    UNREACHABLE = "unreachable"
    FAILED = "failed"
    BUSY = "busy"
    UNKNOWN_BACKEND = "unknown_backend"

    @property
    def blames_backend(self) -> bool:
        return self in (NackCause.UNREACHABLE, NackCause.FAILED)


@dataclass(frozen=True, slots=True)
class Nack:
    """The granted backend did not serve it and its client has seen nothing: place it again."""

    session: SessionId
    ledger_id: LedgerId
    lease_seq: int
    cause: NackCause = NackCause.FAILED
    retry_after_s: float = 0.0
    """What the engine asked for; 0 when it did not."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Said = GatewayLeft | Heard | Submit | Cancel | FirstToken | Progress | Settle | Nack
"""What a gateway says over its session."""

Event = FleetChanged | PolicyChanged | SessionOpened | SessionLost | GatewayDied | Tick | Said
