"""How long the ledger and its sums are kept, and what may be dropped of them. Pure; `keeping` drops it.

A partition goes when all of it is older than what is kept, nothing in it waits to be summed up, and, of the ledger, no
budget counts it still."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from forebay_admin.ledger.usage_sums import Source, Span

LEAST_DAYS = 3
"""What comes in late by a day or two must find its day, and sums must have been made."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """In days; 0: for ever."""

    ledger: int = 400
    minutes: int = 32
    hours: int = 400
    days: int = 0

    def of(self, what: Source) -> int:
        return {None: self.ledger, Span.MINUTE: self.minutes, Span.HOUR: self.hours, Span.DAY: self.days}[what]

    def problem(self) -> str:
        """In one sentence; empty when there is none."""
        told = {"ledger_days": self.ledger, "usage_minute_days": self.minutes, "usage_hour_days": self.hours}
        told["usage_day_days"] = self.days
        for name, days in told.items():
            if days < 0 or 0 < days < LEAST_DAYS:
                return f"{name}: it must be {LEAST_DAYS} at least, or 0 for ever"
        longest = [days or float("inf") for days in (self.minutes, self.hours, self.days)]
        if longest != sorted(longest):
            return (
                "usage_minute_days, usage_hour_days, usage_day_days: sums of longer spans must be kept as long at least"
            )
        return ""


def keep_from(
    keeping: Keeping, today: date, waiting: Iterable[datetime], counted_since: Iterable[datetime]
) -> Mapping[Source, date]:
    """The first day that is kept of each; what is kept for ever is not there. `waiting`: what is to be summed up.
    `counted_since`: the beginnings of the periods of budgets."""
    oldest_waiting = min((at.date() for at in waiting), default=date.max)
    # A row's day comes from its ledger id, which may be made after the request began.
    oldest_counted = min((at.date() - timedelta(days=1) for at in counted_since), default=date.max)
    found: dict[Source, date] = {}
    for what in (None, *Span):
        if days := keeping.of(what):
            first = min(today - timedelta(days=days), oldest_waiting)
            found[what] = min(first, oldest_counted) if what is None else first
    return found
