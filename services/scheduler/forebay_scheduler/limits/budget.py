"""The account of one budget in its current period: spent + reserved + lent + free = amount, at every instant.

Only `spent` begins anew with the period; `amount` grows by what was left of the one before, once admin has said so. What
runs over its end is charged to the period in which it settles: only then is it known. `free` is below nothing only by what
running answers overran before they could be ended, by what another leader had let start, or when the amount was lowered."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo

from forebay_scheduler.limits.periods import Span, span_at, span_of_window, step_us
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
        self._measure()
        if not self.is_counted:
            self._reopen()

    def begin(self, span: Span, left: Mapping[int, int]) -> None:
        """A new period, with what a leader before has counted in it, or else what the ledger says. `left`: as `take` gives
        it."""
        if self.span is not None:
            self.spent = self.opening = 0
            self.is_counted = False
        self.span = span
        self._measure()
        if left:
            self.restore(left)
        else:
            self._open_at(self._by_ledger(span))

    def restore(self, left: Mapping[int, int]) -> None:
        """What a leader before has counted in this period stands in for the ledger's word."""
        self._open_at(sum(left.values()))
        self.is_counted = True

    def move(self, span: Span) -> None:
        """The clock was set right: what was spent stays spent."""
        self.span = span
        self._measure()

    def left(self) -> tuple[int, tuple[int, ...]] | None:
        """What the next leader goes on with: when the period began, and what was spent in it."""
        return (self.span.start_us, (self.spent,)) if self.span is not None else None

    def take(self, left: dict[int, tuple[int, ...]], span: Span) -> dict[int, int]:
        """What is of this period, taken out of what a leader before has left of this budget."""
        amounts = left.pop(span.start_us, None)
        return {span.start_us: sum(amounts)} if amounts is not None else {}

    def room_at_us(self, need: int) -> int | None:
        """When so much is free, if what is reserved stays. None: never, or nobody knows."""
        return self.span.end_us if self.span is not None and need <= self.terms.amount else None

    def spend(self, amount: int) -> None:
        self.spent += amount
        self.is_counted = True

    def _measure(self) -> None:
        terms = self.terms
        self.amount = terms.amount
        if terms.carried and self.span is not None and self.span.holds(terms.carried_since_us):
            self.amount += terms.carried

    def _reopen(self) -> None:
        if self.span is not None:
            self._open_at(self._by_ledger(self.span))

    def _open_at(self, counted: int) -> None:
        self.spent += counted - self.opening
        self.opening = counted

    def _by_ledger(self, span: Span) -> int:
        return self.terms.spent if span.holds(self.terms.spent_at_us) else 0


class Calendar:
    """All accounts of one kind of period in one place: they begin anew together."""

    __slots__ = ("accounts", "period", "span", "window_s", "zone", "zone_name")

    def __init__(self, period: Period, zone_name: str, zone: tzinfo | None, window_s: int = 0) -> None:
        self.period = period
        self.window_s = window_s
        """Not 0: it is no calendar's period, but the last so many seconds."""
        self.zone = zone or UTC
        self.zone_name = zone_name if zone is not None else "UTC"
        self.span: Span | None = None
        self.accounts: dict[Account, None] = {}

    def turn(self, wall_us: int) -> bool:
        """Whether the accounts begin anew. A clock that goes back un-rolls nothing."""
        if self.span is None:
            self.span = self._span_at(wall_us)
            return True
        if self.span.end_us is not None and wall_us >= self.span.end_us:
            self.span = self._span_at(wall_us)
            return True
        if wall_us < self._began_us(self.span) - _DAY_US:
            # The clock had been far ahead and was set right. Nobody is to wait for a year that was never there: the period
            # is the one the clock shows now, and what was spent stays spent.
            self.span = self._span_at(wall_us)
            for account in self.accounts:
                account.move(self.span)
        return False

    def _began_us(self, span: Span) -> int:
        """The period, or the running step of a window."""
        if self.window_s and span.end_us is not None:
            return span.end_us - step_us(self.window_s)
        return span.start_us

    def _span_at(self, wall_us: int) -> Span:
        if self.window_s:
            return span_of_window(self.window_s, wall_us)
        return span_at(self.period, self.zone, wall_us)
