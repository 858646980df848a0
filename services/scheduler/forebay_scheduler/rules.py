"""The numbers that the core decides by. The service fills them from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from forebay_scheduler.fairness.fair_queue import FairRules
from forebay_scheduler.placing.placement import PlacingRules
from forebay_scheduler.request import Band


def _queue_timeouts() -> Mapping[Band, float]:
    return {Band.SYSTEM: 30.0, Band.INTERACTIVE: 30.0, Band.STANDARD: 120.0, Band.BATCH: 3600.0}


@dataclass(frozen=True, slots=True)
class Rules:
    """Durations in seconds, counts in requests."""

    queue_per_user: int = 200
    queue_per_pool: int = 10_000
    queue_timeout_s: Mapping[Band, float] = field(default_factory=_queue_timeouts)
    attempts: int = 3
    """Grants that one request may use up."""
    retry_share: float = 0.1
    """Repeated attempts may be this share of a pool's grants."""
    retry_reserve: int = 10
    """And this many more, so that a quiet pool can fail over too."""
    session_ttl_s: float = 5.0
    """A gateway not heard of for this long gets no grants until it speaks again."""
    heard_within_s: float = 1.5
    """A gateway not heard of for this long, a heartbeat and a half, is given no more slots than it has: it may hang."""
    fence_s: float = 90.0
    """How long a gateway may start work after the last leader renewal it heard of."""
    fence_margin_s: float = 5.0
    """Added for what was started just before the fence, and for clocks that differ in speed."""
    quarantine_blind_s: float = 10.0
    """How long a dead gateway's slots wait where no engine's count can be asked."""
    quarantine_limit_s: float = 600.0
    """How long they wait at most where an engine's count never comes down: others may be using that engine directly."""
    orphan_after_s: float = 60.0
    """How long a lost gateway has to return before its requests are written down as lost."""
    breaker_failures: int = 3
    """Failures in a row after which a backend rests."""
    breaker_rest_s: float = 5.0
    """Its first rest; each that follows without a success between is twice as long, up to twelve times this."""
    no_backend_retry_s: float = 5.0
    """What a request is told when no backend is up: about one round of probes."""
    fair: FairRules = field(default_factory=FairRules)
    placing: PlacingRules = field(default_factory=PlacingRules)
    locality_window: int = 2000
    """Tokens of weight one by which a cached prefix may jump the queue, where its pool says nothing else."""
    pass_window: int = 1000
    """Tokens of weight one by which others may go before a request for which no backend has room enough in its cache."""
    explained: int = 20_000
    """Requests of which it is remembered why they went where they went."""
    are_credits_lent: bool = True
