"""What the scheduler decided. Each names the session it is for; telling it is the session's job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.errors import Refusal
from forebay_scheduler.request import (
    BackendId,
    GatewayName,
    KeyId,
    Lease,
    LedgerId,
    PoolName,
    Request,
    SessionId,
)


@dataclass(frozen=True, slots=True)
class RateStanding:
    """The tightest limits that apply to a key, after this request. None: not limited."""

    limit_requests: int | None = None
    """A minute, like the tokens."""
    remaining_requests: int = 0
    reset_requests_s: float = 0.0
    """Until all of it is there again."""
    limit_tokens: int | None = None
    remaining_tokens: int = 0
    reset_tokens_s: float = 0.0


NO_RATES = RateStanding()
"""Of a key that is limited in other ways: its gateway has to know that it is."""


@dataclass(slots=True, init=False)
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
    standing: RateStanding | None = None

    def __init__(
        self,
        session: SessionId,
        ledger_id: LedgerId,
        backend: BackendId,
        attempt: int,
        lease: Lease,
        width: int,
        queued_s: float,
        standing: RateStanding | None = None,
    ) -> None:
        self.session = session
        self.ledger_id = ledger_id
        self.backend = backend
        self.attempt = attempt
        self.lease = lease
        self.width = width
        self.queued_s = queued_s
        self.standing = standing


@dataclass(frozen=True, slots=True)
class Reject:
    session: SessionId
    ledger_id: LedgerId
    reason: Refusal
    retry_after_s: float | None
    """None when trying again does not help."""
    message: str
    standing: RateStanding | None = None


@dataclass(frozen=True, slots=True)
class Cutoff:
    """Its budget is used up: the running answer ends here, with finish reason `length`."""

    session: SessionId
    ledger_id: LedgerId
    reason: Refusal


@dataclass(frozen=True, slots=True)
class CeilingTold:
    """From now on this gateway may hold so many slots of this backend."""

    session: SessionId
    backend: BackendId
    pool: PoolName
    slots: int
    version: int


@dataclass(frozen=True, slots=True)
class CreditLent:
    session: SessionId
    id: int
    backend: BackendId
    pool: PoolName
    model: str
    slots: int
    valid_s: float
    """From the send time of the heartbeat with `beat_seq`."""
    beat_seq: int
    first_lease: int
    leases: int
    is_recall: bool = False


@dataclass(frozen=True, slots=True)
class AllotmentLent:
    session: SessionId
    id: int
    key: KeyId
    requests: int
    tokens: int
    money_micros: int
    valid_s: float
    beat_seq: int
    is_recall: bool = False


@dataclass(frozen=True, slots=True)
class StoreCeilings:
    """To be written to the bus before anything is built on it; then CeilingsStored(ticket) is told."""

    ticket: int
    shards: Mapping[int, Sequence[StoredCeilings]]
    """Whole shards, by number: what is not in one is gone from it."""


@dataclass(frozen=True, slots=True)
class StoredCeilings:
    """The most that one gateway process may hold, by backend, for the backends of one shard."""

    gateway: GatewayName
    generation: int
    slots: Mapping[BackendId, int]
    silent_s: float = 0.0
    """Since it was last heard of."""
    is_dead: bool = False
    """Its death was proven; its slots had not returned yet."""


@dataclass(frozen=True, slots=True)
class Revoke:
    """A grant or a waiting request is taken back."""

    session: SessionId
    ledger_id: LedgerId
    reason: Refusal
    is_forced: bool = False
    """Of a backend that drains: also if a part of the answer has been sent."""


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


Decision = (
    Grant
    | Reject
    | Revoke
    | Cutoff
    | Settled
    | CeilingTold
    | CreditLent
    | AllotmentLent
    | StoreCeilings
    | SessionEnded
    | Orphan
)
