"""When a span of the ledger is summed up, and of what. Pure; `rollup_store` does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from forebay_admin.ledger.usage_sums import Source, Span

AFTER = timedelta(seconds=2)
"""From the end of a minute to its sum: its last rows are under way."""
_LONGEST_WAIT = timedelta(minutes=10)
_PART_OF_AGE = 4

Kept = Mapping[Source, datetime]


@dataclass(frozen=True, slots=True)
class Touched:
    span: Span
    at: datetime
    since: datetime
    """When it first was, since it was summed up."""


def due(touched: Iterable[Touched], now: datetime) -> Mapping[Span, Sequence[datetime]]:
    """Which can be summed up: they are over, and nothing within them waits to be. What rows come in late for waits the
    longer the older it is, so that a minute of long requests is not made anew for each of them."""
    waiting = sorted(touched, key=lambda one: one.at)
    within = {(longer, longer.of(one.at)) for one in waiting for longer in Span if longer.length > one.span.length}
    found: dict[Span, list[datetime]] = {span: [] for span in Span}
    for one in waiting:
        over_since = now - (one.at + one.span.length)
        patience = min(_LONGEST_WAIT, (one.since - (one.at + one.span.length)) / _PART_OF_AGE)
        if over_since >= AFTER and now - one.since >= patience and (one.span, one.at) not in within:
            found[one.span].append(one.at)
    return found


def source_of(span: Span, at: datetime, kept: Kept) -> tuple[bool, Source]:
    """Whether it can be made, and of what: of the next shorter sums, or of the ledger where those are gone. A minute whose
    rows were dropped with their day must stay as it is."""
    shorter: Source = {Span.DAY: Span.HOUR, Span.HOUR: Span.MINUTE, Span.MINUTE: None}[span]
    for source in dict.fromkeys((shorter, None)):
        if source not in kept or at >= kept[source]:
            return True, source
    return False, None
