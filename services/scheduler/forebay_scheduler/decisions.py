"""What the scheduler decided. Each names the session it is for; telling it is the session's job."""

from __future__ import annotations

from dataclasses import dataclass

from forebay.errors import Refusal
from forebay_scheduler.request import BackendId, GatewayName, Lease, LedgerId, Request, SessionId


@dataclass(frozen=True, slots=True)
class Grant:
    session: SessionId
    ledger_id: LedgerId
    backend: BackendId
    attempt: int
    """From 1."""
    lease: Lease
    width: int
    queued_s: float
    """From arrival at the gateway."""


@dataclass(frozen=True, slots=True)
class Reject:
    session: SessionId
    ledger_id: LedgerId
    reason: Refusal
    retry_after_s: float | None
    """None when trying again does not help."""
    message: str


@dataclass(frozen=True, slots=True)
class Revoke:
    """A grant or a waiting request is taken back."""

    session: SessionId
    ledger_id: LedgerId
    reason: Refusal


@dataclass(frozen=True, slots=True)
class Settled:
    """The settle is taken in, for the first time or again."""

    session: SessionId
    ledger_id: LedgerId


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """This session does not speak for its gateway (any more): its stream is to be closed."""

    session: SessionId
    message: str


@dataclass(frozen=True, slots=True)
class Orphan:
    """A request whose gateway was lost before it settled: all that is known of it, for its ledger row."""

    request: Request
    gateway: GatewayName
    generation: int
    backend: BackendId | None
    """None when it was still waiting."""
    queued_s: float
    ttft_s: float | None
    """From arrival to the first byte of the answer; None when none was told of."""
    lived_s: float
    """From arrival to the last sign of life of its gateway."""
    completion_tokens: int


Decision = Grant | Reject | Revoke | Settled | SessionEnded | Orphan
