"""The words in which the gateway asks the scheduler for slots, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from forebay_gateway.accounting import Outcome, Usage
from forebay_gateway.callers.principals import Band
from forebay_gateway.engines.errors import Blame
from forebay_gateway.rate_standing import RateStanding


@dataclass(frozen=True, slots=True, order=True)
class Epoch:
    """Names a leader; later ones are greater."""

    term_us: int = 0
    revision: int = 0


BY_ITSELF = Epoch()
"""In place of a leader's, of what the gateway began without one."""


class Ask(NamedTuple):
    ledger_id: bytes
    request_id: str
    pool: str
    model: str
    key_id: str
    user_id: str
    group_id: str
    band: Band
    width: int
    """Slots, all on one backend."""
    prompt_tokens: int
    """Estimated."""
    max_output_tokens: int
    deadline_ms: int
    """From arrival; 0: what the scheduler thinks right for the band."""
    session_key: str
    started_at: float
    """Seconds since the epoch."""
    arrived: float
    """The same on the monotonic clock."""
    prefix_hashes: tuple[int, ...] = ()
    """As `prefix_hashes` makes them."""
    is_plain: bool = False
    """Not streamed to the client: the first byte of its answer goes with the last."""
    excluded: tuple[str, ...] = ()
    """Backends that have the model and cannot read this request."""
    traced: bytes = b""
    """Of a traced request, the place of its first span, packed."""


class Grant(NamedTuple):
    ledger_id: bytes
    backend_id: str
    lease: int
    epoch: Epoch
    attempt: int
    queue_ms: int
    standing: RateStanding | None = None
    """Of a limited key, when it was told."""
    is_limited: bool = False
    """The key has limits, so that its answers have to be counted as they grow."""


class Slots(Protocol):
    """What relaying needs of the scheduler."""

    def begin(self, ask: Ask) -> Grant | None:
        """Without waiting for anyone, where that is allowed. None: it has to be asked for."""
        ...

    async def ask(self, ask: Ask) -> Grant:
        """The same, and else waits until slots are granted. Raises Refused. Whoever asked calls `end`, whatever happens."""
        ...

    async def ask_again(self, grant: Grant, blame: Blame, retry_after_s: float | None) -> Grant:
        """The granted backend did not serve it and the client has seen nothing yet: another one. Raises Refused."""
        ...

    def end(self, ledger_id: bytes, outcome: Outcome, usage: Usage) -> None:
        """Over, in whatever state it is."""
        ...

    async def withdraw(self, ledger_id: bytes) -> None:
        """Its client has seen nothing, and it is going to be asked for once more, as another model: what was asked or
        granted so far is given up, uncharged. Waits until nothing can come of it any more."""
        ...

    def first_token(self, ledger_id: bytes, ttft_ms: int) -> None: ...
    def progress(self, ledger_id: bytes, completion_tokens: int) -> None: ...

    @property
    def is_past_fence(self) -> bool:
        """The scheduler's leader may be another one by now: work started now may exceed a backend's slots."""
        ...
