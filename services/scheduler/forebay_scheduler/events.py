"""What happens to the scheduler. Parsed at the edge; the core takes these and the time, and nothing else.

What is made for every request, here and elsewhere in the core, writes out its `__init__`: that is compiled, and the one that
a dataclass makes is not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from forebay_scheduler.backend import Backend
from forebay_scheduler.request import (
    NOTHING_USED,
    BackendId,
    Claim,
    GatewayName,
    GroupId,
    KeyId,
    Lease,
    LedgerId,
    PoolName,
    Request,
    SessionId,
    Used,
    UserId,
)
from forebay_scheduler.terms import GroupTerms, KeyTerms, ModelTerms, PoolTerms, PriceTerms, UserTerms


@dataclass(frozen=True, slots=True)
class FleetChanged:
    """All backends there are now."""

    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class BackendsReported:
    """How some of the fleet's backends are now: what they are for, and how much they take, is as it was."""

    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """What admin says has changed. The waiting requests of removed users are taken back."""

    users: tuple[UserTerms, ...] = ()
    removed: tuple[UserId, ...] = ()
    groups: tuple[GroupTerms, ...] = ()
    removed_groups: tuple[GroupId, ...] = ()
    keys: tuple[KeyTerms, ...] = ()
    removed_keys: tuple[KeyId, ...] = ()
    models: tuple[ModelTerms, ...] = ()
    removed_models: tuple[str, ...] = ()
    pools: tuple[PoolTerms, ...] = ()
    removed_pools: tuple[PoolName, ...] = ()
    prices: tuple[PriceTerms, ...] | None = None
    """All there are, in place of those of models. None: as they were."""


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A gateway said Hello: this is its whole truth, and what it does not name is over."""

    session: SessionId
    gateway: GatewayName
    generation: int
    claims: tuple[Claim, ...] = ()
    queued: tuple[Request, ...] = ()
    ceilings: tuple[tuple[BackendId, int], ...] = ()
    """As it last acknowledged them."""
    settles: tuple[Settle, ...] = ()
    """Ends of which it does not know that they are stored. They are taken in before anything is held to be over."""


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


@dataclass(slots=True, init=False)
class Submit:
    session: SessionId
    request: Request

    def __init__(self, session: SessionId, request: Request) -> None:
        self.session = session
        self.request = request


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client went before the request was settled."""

    session: SessionId
    ledger_id: LedgerId


@dataclass(slots=True, init=False)
class FirstToken:
    session: SessionId
    ledger_id: LedgerId
    ttft_s: float = 0.0
    """From the grant's arrival at the gateway to the first byte of the answer."""

    def __init__(self, session: SessionId, ledger_id: LedgerId, ttft_s: float = 0.0) -> None:
        self.session = session
        self.ledger_id = ledger_id
        self.ttft_s = ttft_s


@dataclass(slots=True, init=False)
class Progress:
    session: SessionId
    ledger_id: LedgerId
    completion_tokens: int
    """So far."""

    def __init__(self, session: SessionId, ledger_id: LedgerId, completion_tokens: int) -> None:
        self.session = session
        self.ledger_id = ledger_id
        self.completion_tokens = completion_tokens


@dataclass(slots=True, init=False)
class Settle:
    """The end of a request, perhaps told before."""

    session: SessionId
    ledger_id: LedgerId
    lease: Lease | None
    """None when the gateway never saw a grant."""
    is_success: bool = True
    """The backend did its part."""
    used: Used = NOTHING_USED
    end: str = "finished"
    """The outcome, in one word of the ledger."""
    request: Request | None = None
    """With a Hello, for a leader that never saw it."""

    def __init__(
        self,
        session: SessionId,
        ledger_id: LedgerId,
        lease: Lease | None,
        is_success: bool = True,
        used: Used = NOTHING_USED,
        end: str = "finished",
        request: Request | None = None,
    ) -> None:
        self.session = session
        self.ledger_id = ledger_id
        self.lease = lease
        self.is_success = is_success
        self.used = used
        self.end = end
        self.request = request


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
class SettledAcked:
    """The gateway has read that these are stored: it will never tell them again."""

    ledger_ids: tuple[LedgerId, ...]


@dataclass(frozen=True, slots=True)
class CeilingAcked:
    """From now on it holds no more than this version says, and holds `held` there now."""

    session: SessionId
    backend: BackendId
    version: int
    held: int


@dataclass(frozen=True, slots=True)
class CreditStarted:
    """It began this request on a credit, without asking."""

    session: SessionId
    credit: int
    lease_seq: int
    request: Request
    backend: BackendId


@dataclass(frozen=True, slots=True)
class CreditReturned:
    """Nothing more is begun on it."""

    session: SessionId
    credit: int


@dataclass(frozen=True, slots=True)
class AllotmentReturned:
    session: SessionId
    allotment: int


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat: credits told in answer to it are valid from the moment in which it was sent."""

    session: SessionId
    seq: int


@dataclass(frozen=True, slots=True)
class CeilingsStored:
    """The bus holds the ceilings up to this ticket: those that were raised are in force."""

    ticket: int


@dataclass(frozen=True, slots=True)
class StateStored:
    """The bus holds the whole state with this number: what was settled before it was made may be forgotten."""

    number: int


@dataclass(frozen=True, slots=True)
class BusChanged:
    is_away: bool


@dataclass(frozen=True, slots=True)
class DrainAsked:
    backend: BackendId
    deadline_s: float | None = None
    """After which what has no first token yet is placed elsewhere; None: all of it may finish."""
    is_undone: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""

    wall_us: int | None = None
    """Microseconds since the epoch: budgets begin anew by the calendar. None: as it was, plus what has passed."""


Said = (
    GatewayLeft
    | Heard
    | Submit
    | Cancel
    | FirstToken
    | Progress
    | Settle
    | Nack
    | CeilingAcked
    | CreditStarted
    | CreditReturned
    | AllotmentReturned
    | Beat
)
"""What a gateway says over its session."""

Event = (
    FleetChanged
    | BackendsReported
    | PolicyChanged
    | SessionOpened
    | SessionLost
    | GatewayDied
    | SettledAcked
    | CeilingsStored
    | StateStored
    | BusChanged
    | DrainAsked
    | Tick
    | Said
)
