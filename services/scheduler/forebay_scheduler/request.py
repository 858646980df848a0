"""The words of the scheduler's core: a request that wants slots, and the lease that names the slots it was given.

Times are seconds on the scheduler's own clock, durations are seconds. Nothing here decides."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

LedgerId = NewType("LedgerId", bytes)
"""16 bytes, minted by the gateway; names the request from its arrival to its ledger row."""

BackendId = NewType("BackendId", str)
PoolName = NewType("PoolName", str)
UserId = NewType("UserId", str)
GatewayName = NewType("GatewayName", str)

SessionId = NewType("SessionId", int)
"""One stream of one gateway process. Only its newest session speaks for a gateway."""


class Band(StrEnum):
    SYSTEM = "system"
    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


@dataclass(frozen=True, slots=True, order=True)
class Epoch:
    """Orders leaders: when the leader bucket was made (microseconds), then the revision of the winning write."""

    term_us: int
    revision: int


@dataclass(frozen=True, slots=True, order=True)
class Lease:
    """Names one grant for ever: no leader gives the same one twice, and no two leaders share an epoch."""

    epoch: Epoch
    seq: int


@dataclass(frozen=True, slots=True)
class Request:
    """What a gateway asked for. A nack makes a new one with another attempt behind it."""

    ledger_id: LedgerId
    user: UserId
    model: str
    arrived_at: float
    """When it reached its gateway. It keeps this over nacks and over changes of leader, and its place with it."""
    pool: PoolName = PoolName("default")
    band: Band = Band.STANDARD
    width: int = 1
    """Slots needed at once, all on one backend."""
    deadline_s: float | None = None
    """From arrival to grant; None for what the band allows."""
    excluded: frozenset[BackendId] = frozenset()
    """Where it failed already."""
    attempts: int = 0
    """Grants that it has used up."""
    key: str = ""
    group: str = ""
    prompt_tokens: int = 0
    started_at_us: int = 0
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """A live grant: this many slots (the request's width) of this backend are in use by this gateway process."""

    request: Request
    backend: BackendId
    lease: Lease
    attempt: int
    gateway: GatewayName
    generation: int
    since: float
    first_token_at: float | None = None
    completion_tokens: int = 0

    @property
    def slots(self) -> int:
        return self.request.width


@dataclass(frozen=True, slots=True)
class Claim:
    """A grant that a gateway says, at the start of a session, that it still uses."""

    request: Request
    backend: BackendId
    lease: Lease
    attempt: int
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """What one gateway process held when the last snapshot was stored: slots by backend."""

    gateway: GatewayName
    generation: int
    slots: dict[BackendId, int]
    silent_s: float = 0.0
    """For how long it had not been heard of, as far as the reader of the snapshot can tell."""
    is_dead: bool = False
    """Its death was proven already; its slots had not returned yet."""
