"""The account of a budget without a calendar: what is used counts for so long, and no longer.

The window moves in steps, and what is used is counted for each step apart. Once they are a window old they fall out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from forebay_scheduler.limits.budget import Account, Calendar
from forebay_scheduler.limits.periods import Span, step_us
from forebay_scheduler.terms import Budget

_MICROS = 1_000_000


class RollingAccount(Account):
    __slots__ = ("before", "earlier", "opened")

    def __init__(self, subject: str, terms: Budget, calendar: Calendar) -> None:
        super().__init__(subject, terms, calendar)
        self.before: dict[int, int] = {}
        """What was spent in the steps that are over and still count, by when they began, oldest first."""
        self.opened: dict[int, int] = {}
        """The part that others have counted, of the running step too."""
        self.earlier: tuple[int, ...] | None = None
        """`before`, from its first step on and with those in which nothing was spent; None: to be made. The leader asks for
        it each second, and it changes with the step."""

    def begin(self, span: Span, left: Mapping[int, int]) -> None:
        if self.span is not None:
            self._slide(self.span, span)
        is_new = self.span is None
        self.span = span
        if left:
            self.restore(left)
        elif not self.is_counted or is_new:
            self._open(self._told(span))

    def restore(self, left: Mapping[int, int]) -> None:
        self._open(dict(left))
        self.is_counted = True

    def move(self, span: Span) -> None:
        """The clock was set right: what counts in steps that are still to come is of the running one."""
        before, opened, self.span = dict(self.counts()), self.opened, span
        self.earlier = None
        current = self._current(span)
        self.before = {start: amount for start, amount in before.items() if start < current}
        self.opened = {start: amount for start, amount in opened.items() if start < current}
        to_come = sum(opened.values()) - sum(self.opened.values())
        if to_come:
            self.opened[current] = to_come

    def left(self) -> tuple[int, tuple[int, ...]] | None:
        """When the oldest step began in which something was spent, and what was spent in it and in each after it."""
        if self.span is None:
            return None
        current = self._current(self.span)
        first = next(iter(self.before), current)
        if self.earlier is None:
            self.earlier = tuple(self.before.get(start, 0) for start in range(first, current, self._step))
        return first, (*self.earlier, self.spent - sum(self.earlier))

    def take(self, left: dict[int, tuple[int, ...]], span: Span) -> dict[int, int]:
        """Of steps that are still to come here, since the clock there was ahead: as of the running one."""
        current, taken = self._current(span), dict[int, int]()
        for first, amounts in left.items():
            for index, amount in enumerate(amounts):
                start = min(first + index * self._step, current)
                if start >= span.start_us and (amount or start == current):
                    taken[start] = taken.get(start, 0) + amount
        left.clear()
        return taken

    def counts(self) -> Iterator[tuple[int, int]]:
        """When each step began that counts, oldest first, and what was spent in it."""
        yield from self.before.items()
        if self.span is not None:
            yield self._current(self.span), self.spent - sum(self.before.values())

    def room_at_us(self, need: int) -> int | None:
        missing = need - self.free
        if self.span is None or need > self.amount:
            return None
        for start, amount in self.counts():
            missing -= amount
            if missing <= 0:
                return start + self.terms.window_s * _MICROS + self._step
        return None

    @property
    def _step(self) -> int:
        return step_us(self.terms.window_s)

    def _current(self, span: Span) -> int:
        assert span.end_us is not None
        return span.end_us - self._step

    def _slide(self, old: Span, new: Span) -> None:
        self.earlier = None
        if used := self.spent - sum(self.before.values()):
            self.before[self._current(old)] = used
        for start in [start for start in self.before if start < new.start_us]:
            self.spent -= self.before.pop(start)
            self.opened.pop(start, None)

    def _reopen(self) -> None:
        if self.span is not None:
            self._open(self._told(self.span))

    def _open(self, counted: dict[int, int]) -> None:
        assert self.span is not None
        self.earlier = None
        current = self._current(self.span)
        for start, amount in self.opened.items():
            self.spent -= amount
            if start < current:
                self.before[start] = self.before.get(start, 0) - amount
        for start, amount in counted.items():
            self.spent += amount
            if start < current:
                self.before[start] = self.before.get(start, 0) + amount
        self.before = {start: self.before[start] for start in sorted(self.before) if self.before[start]}
        self.opened = counted

    def _told(self, span: Span) -> dict[int, int]:
        """By the ledger."""
        told: dict[int, int] = {}
        for start_us, amount in self.terms.steps:
            if span.holds(start_us):
                start = start_us // self._step * self._step
                told[start] = told.get(start, 0) + amount
        return told
