"""A question about usage, and its answer. Pure: `usage_store` asks the sums, `usage_desk` the operators."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from forebay.errors import BadInput
from forebay_admin.ledger.usage_sums import Column
from forebay_admin.quotas.periods import Period, span_of, zone_named

MOST_BUCKETS = 5000
MOST_ROWS = 10_000
USUAL_ROWS = 1000
LONGEST = timedelta(days=366 * 20)


class Bucket(StrEnum):
    """Parts of time, by the calendar of a zone."""

    ALL = "all"
    """One: the whole span."""
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Measure(StrEnum):
    """What answers are ordered by, the most first."""

    TOKENS = "tokens"
    REQUESTS = "requests"
    COST = "cost"
    DURATION = "duration"


@dataclass(frozen=True, slots=True)
class Question:
    edges: Sequence[datetime]
    """Of the buckets: one more than there are."""
    by: tuple[Column, ...] = ()
    only: Mapping[Column, Collection[str]] = field(default_factory=dict)
    order: Measure = Measure.TOKENS
    top: int = 0
    """The groups with the most, over the whole span; the others are added up. 0: all are told."""
    limit: int = USUAL_ROWS
    skip: int = 0

    @property
    def in_buckets(self) -> bool:
        return len(self.edges) > 2

    @property
    def needs(self) -> tuple[Column, ...]:
        """What sums must tell apart."""
        return tuple(column for column in Column if column in self.by or column in self.only)


@dataclass(frozen=True, slots=True)
class Sums:
    requests: int = 0
    finished: int = 0
    refused: int = 0
    failed: int = 0
    """gateway_lost among them."""
    cancelled: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_micros: int = 0
    unbilled: int = 0
    """Requests that cost nothing because of something."""
    queue_ms: int = 0
    most_queue_ms: int = 0
    answered: int = 0
    """Requests of which a first byte came, which `ttft_ms` is about."""
    ttft_ms: int = 0
    most_ttft_ms: int = 0
    duration_ms: int = 0
    most_duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    bucket: int
    """Which, from 0."""
    whose: tuple[str, ...]
    """The values of the question's columns; empty where `is_rest`."""
    is_rest: bool
    sums: Sums


@dataclass(frozen=True, slots=True)
class Answer:
    lines: Sequence[Line]
    more: bool
    total: Sums


def edges_of(bucket: Bucket, zone: str, since: datetime, until: datetime) -> list[datetime]:
    """From `since` to `until`; buckets at the ends may be cut. Raises BadInput for an empty or a far too long span, or
    too many buckets."""
    if since >= until:
        raise BadInput("The span ends before it begins.")
    if until - since > LONGEST:
        raise BadInput("Ask for 20 years at most.")
    if bucket is Bucket.ALL:
        return [since, until]
    edges, at = [since], since
    while (at := _after(bucket, zone, at)) < until:
        edges.append(at)
        if len(edges) > MOST_BUCKETS:
            raise BadInput(
                f"That are more than {MOST_BUCKETS:,} {bucket}s: ask for a shorter time, or for longer buckets."
            )
    return [*edges, until]


def before(question: Question) -> Question:
    """The same of the span of the same length that went before it."""
    since, until = question.edges[0], question.edges[-1]
    return Question([since - (until - since), since], question.by, question.only, limit=MOST_ROWS)


_PERIODS = {Bucket.DAY: Period.DAY, Bucket.WEEK: Period.WEEK, Bucket.MONTH: Period.MONTH}


def _after(bucket: Bucket, zone: str, at: datetime) -> datetime:
    """The end of the one in which `at` is."""
    if bucket is Bucket.MINUTE:
        return at.replace(second=0, microsecond=0) + timedelta(minutes=1)
    if bucket is Bucket.HOUR:
        # By the clock on the wall; of an hour that comes twice, each is one.
        local = at.astimezone(zone_named(zone))
        into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        return (at - into).astimezone(UTC) + timedelta(hours=1)
    until = span_of(_PERIODS[bucket], zone, at).until
    if until is None or until <= at:
        raise BadInput(f"The calendar of {zone} does not go on at {at}.")
    return until
