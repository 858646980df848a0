"""The account of one budget in its current period: spent + reserved + lent + free = amount, at every instant.

Only `spent` begins anew with the period. What runs over its end is charged to the period in which it settles: only then is
it known, and the ledger counts it there too. `free` is below nothing only by what running answers overran before they
could be ended, by what another leader had let start, or when the amount was lowered."""

from __future__ import annotations

from datetime import UTC, tzinfo

from forebay_scheduler.limits.periods import Span, span_at
from forebay_scheduler.terms import Budget, Period

_DAY_US = 86_400_000_000


class Account:
    __slots__ = ("amount", "calendar", "is_counted", "lent", "opening", "reserved", "span", "spent", "subject", "terms")

    def __init__(self, subject: str, terms: Budget, calendar: Calendar) -> None:
        self.subject = subject
        """As `user:alice`."""
        self.terms = terms
        self.calendar = calendar
        self.amount = terms.amount
        self.spent = 0
        self.opening = 0
        """The part of `spent` that others have counted."""
        self.reserved = 0
        self.lent = 0
        self.span: Span | None = None
        """None until the time of day is known."""
        self.is_counted = False
        """This scheduler, or a leader before it, has a count of its own for this period."""

    @property
    def free(self) -> int:
        return self.amount - self.spent - self.reserved - self.lent

    def change(self, terms: Budget) -> None:
        self.terms = terms
        self.amount = terms.amount
        if not self.is_counted and self.span is not None:
            self._open(self._by_ledger(self.span))

    def begin(self, span: Span, restored: int | None = None) -> None:
        """A new period, with what a leader before has counted in it, or else what the ledger says."""
        if self.span is not None:
            self.spent = self.opening = 0
            self.is_counted = False
        self.span = span
        if restored is None:
            self._open(self._by_ledger(span))
        else:
            self.restore(restored)

    def restore(self, counted: int) -> None:
        """What a leader before has counted in this period stands in for the ledger's word."""
        self._open(counted)
        self.is_counted = True

    def spend(self, amount: int) -> None:
        self.spent += amount
        self.is_counted = True

    def _open(self, counted: int) -> None:
        self.spent += counted - self.opening
        self.opening = counted

    def _by_ledger(self, span: Span) -> int:
        return self.terms.spent if span.holds(self.terms.spent_at_us) else 0


class Calendar:
    """All accounts of one kind of period in one place: they begin anew together."""

    __slots__ = ("accounts", "period", "span", "zone", "zone_name")

    def __init__(self, period: Period, zone_name: str, zone: tzinfo | None) -> None:
        self.period = period
        self.zone = zone or UTC
        self.zone_name = zone_name if zone is not None else "UTC"
        self.span: Span | None = None
        self.accounts: dict[Account, None] = {}

    def turn(self, wall_us: int) -> bool:
        """Whether the accounts begin anew. A clock that goes back un-rolls nothing."""
        if self.span is None:
            self.span = span_at(self.period, self.zone, wall_us)
            return True
        if self.span.end_us is not None and wall_us >= self.span.end_us:
            self.span = span_at(self.period, self.zone, wall_us)
            return True
        if wall_us < self.span.start_us - _DAY_US:
            # The clock had been far ahead and was set right. Nobody is to wait for a year that was never there: the period
            # is the one the clock shows now, and what was spent stays spent.
            self.span = span_at(self.period, self.zone, wall_us)
            for account in self.accounts:
                account.span = self.span
        return False
