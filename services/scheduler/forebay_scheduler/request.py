"""The words of the scheduler's core: a request that wants slots, and the lease that names the slots it was given.

Times are seconds on the scheduler's own clock, durations are seconds. Nothing here decides."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, NewType

LedgerId = NewType("LedgerId", bytes)
"""16 bytes, minted by the gateway; names the request from its arrival to its ledger row."""

BackendId = NewType("BackendId", str)
PoolName = NewType("PoolName", str)
UserId = NewType("UserId", str)
GroupId = NewType("GroupId", str)
KeyId = NewType("KeyId", str)
GatewayName = NewType("GatewayName", str)

SessionId = NewType("SessionId", int)
"""One stream of one gateway process. Only its newest session speaks for a gateway."""


Process = tuple[GatewayName, int]
"""One process of a gateway: its name and its generation, which counts its starts."""


BlockName = Hashable
"""A whole number that names the first blocks of a prompt. It is only ever looked up, and for each look compiled code would
make a new object of what it knows to be a number."""


class Band(StrEnum):
    SYSTEM = "system"
    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


class Epoch(NamedTuple):
    """Orders leaders: when the leader bucket was made (microseconds), then the revision of the winning write."""

    term_us: int
    revision: int


class Lease(NamedTuple):
    """Names one grant for ever: no leader gives the same one twice, and no two leaders share an epoch."""

    epoch: Epoch
    seq: int


@dataclass(slots=True, init=False)
class Request:
    """What a gateway asked for. Nobody changes one; a nack makes a new one with another attempt behind it.

    (Not frozen: making a frozen one takes three times as long, and this is made for every request.)"""

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
    key: KeyId = KeyId("")
    group: GroupId = GroupId("")
    """The innermost, as the gateway knows it; policy knows better where it knows the user."""
    prompt_tokens: int = 0
    """Estimated by the gateway."""
    max_output_tokens: int = 0
    """What the client allows; 0 when it set no limit."""
    prefix_hashes: Sequence[BlockName] = ()
    """Chained, one for each block of the prompt from its start, at most 64."""
    session_key: str = ""
    """For stickiness; empty for none."""
    started_at_us: int = 0
    request_id: str = ""
    is_streamed: bool = True
    """Its first byte comes with its first token; without streaming it comes with the last."""

    def __init__(
        self,
        ledger_id: LedgerId,
        user: UserId,
        model: str,
        arrived_at: float,
        pool: PoolName = PoolName("default"),
        band: Band = Band.STANDARD,
        width: int = 1,
        deadline_s: float | None = None,
        excluded: frozenset[BackendId] = frozenset(),
        attempts: int = 0,
        key: KeyId = KeyId(""),
        group: GroupId = GroupId(""),
        prompt_tokens: int = 0,
        max_output_tokens: int = 0,
        prefix_hashes: Sequence[BlockName] = (),
        session_key: str = "",
        started_at_us: int = 0,
        request_id: str = "",
        is_streamed: bool = True,
    ) -> None:
        self.ledger_id = ledger_id
        self.user = user
        self.model = model
        self.arrived_at = arrived_at
        self.pool = pool
        self.band = band
        self.width = width
        self.deadline_s = deadline_s
        self.excluded = excluded
        self.attempts = attempts
        self.key = key
        self.group = group
        self.prompt_tokens = prompt_tokens
        self.max_output_tokens = max_output_tokens
        self.prefix_hashes = prefix_hashes
        self.session_key = session_key
        self.started_at_us = started_at_us
        self.request_id = request_id
        self.is_streamed = is_streamed


@dataclass(frozen=True, slots=True)
class Claim:
    """A grant that a gateway says, at the start of a session, that it still uses."""

    request: Request
    backend: BackendId
    lease: Lease
    attempt: int
    completion_tokens: int = 0

    @property
    def is_local(self) -> bool:
        """The gateway began it itself, within its ceiling, while it could reach no leader."""
        return self.lease.epoch == Epoch(0, 0)


class Used(NamedTuple):
    """Tokens of one request, as told at its end. Cached ones are part of the prompt's."""

    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0


NOTHING_USED = Used()
