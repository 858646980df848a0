"""The words of a request's final accounting: how it ended, what it used, and where those numbers come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"
    """Admitted, then failed by the engine or ended by Forebay, such as when its key was revoked with `--now`."""
    REFUSED = "refused"
    """Never admitted."""
    GATEWAY_LOST = "gateway_lost"


class UsageSource(StrEnum):
    ENGINE = "engine"
    COUNTED = "counted"
    ESTIMATED = "estimated"


class Usage(NamedTuple):
    """Tokens of one request. Cached prompt tokens are part of `prompt`."""

    prompt: int = 0
    cached_prompt: int = 0
    completion: int = 0
    source: UsageSource = UsageSource.ESTIMATED


NOTHING_USED = Usage()


@dataclass(slots=True)
class Entry:
    """What becomes the ledger's row of one request, filled in as it goes."""

    ledger_id: bytes
    request_id: str
    route: str
    started_at: float
    """Seconds since the epoch."""
    arrived: float
    """The same moment on the monotonic clock."""
    key_id: str = ""
    user_id: str = ""
    group_id: str = ""
    pool: str = ""
    model_requested: str = ""
    model: str = ""
    backend_id: str = ""
    stream: bool = False
    width: int = 0
    outcome: Outcome | None = None
    """None while it runs."""
    reason: str = ""
    http_status: int = 0
    """What the client saw; 0 when it saw nothing."""
    queue_ms: int = 0
    ttft_ms: int | None = None
    duration_ms: int = 0
    attempts: int = 0
    audio_ms: int | None = None
    """Of sound that was heard or spoken; None where it is not known."""
    usage: Usage = field(default=NOTHING_USED)
