"""What is left of a budget at the end of a period and goes into the next one. Pure; `carrying` does it when it is due.

A request counts in the period that it began in, whose rows come in for a while after its end: so what was left is counted
SETTLE after it for the first time, and again until SURE after it. It only falls then."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from forebay.errors import BadInput
from forebay_admin.quotas.periods import Period, Span, span_before, span_of

SETTLE = timedelta(seconds=30)
SURE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Carried:
    since: datetime
    """When the period began that it was carried into."""
    amount: int
    of: int
    """What there was in all in the period before; 0: nothing was carried out of that one."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A period that is over, of which is to be counted what was spent."""

    over: Span
    since: datetime
    """When the next one began."""
    of: int
    is_first: bool
    """It was not counted yet."""


def no_carry_yet(period: Period, zone: str, now: datetime) -> Carried:
    """Of a budget that carries from now on: nothing into this period."""
    return Carried(span_of(period, zone, now).since, 0, 0)


def turn_of(period: Period, zone: str, amount: int, before: Carried | None, now: datetime) -> Turn | None:
    """What is to be counted now of a budget that carries. None: nothing; also where the clock was set back over the end of a
    period, so that none is carried out of twice. What was left while nobody counted is not made up for."""
    span = span_of(period, zone, now)
    if span.until is None or before is None or before.since > span.since:
        return None
    passed = now - span.since
    over = span_before(period, zone, now)
    if passed < SETTLE:
        return None
    if before.since == span.since:
        return Turn(over, span.since, before.of, is_first=False) if before.of and passed <= SURE else None
    return Turn(over, span.since, _there_was(amount, before, over), is_first=True)


def closed(period: Period, zone: str, amount: int, before: Carried | None, now: datetime) -> Carried | None:
    """Of a budget whose amount is about to change: what there was in a period that is over and was not counted yet goes by
    the amount that it had. It is counted like one that was counted before."""
    span = span_of(period, zone, now)
    if span.until is None or before is None or before.since >= span.since:
        return before
    return Carried(span.since, 0, _there_was(amount, before, span_before(period, zone, now)))


def _there_was(amount: int, before: Carried, over: Span) -> int:
    return amount + (before.amount if before.since == over.since else 0)


def left_of(turn: Turn, spent: int, most: int) -> Carried:
    return Carried(turn.since, min(most, max(0, turn.of - spent)), turn.of)


def demand_carry(most: int | None, period: Period, window_s: int | None, most_of_all: int) -> int | None:
    """Raises BadInput."""
    if most is None:
        return None
    if window_s is not None or period is Period.EVER:
        raise BadInput("Only a budget with a period of the calendar carries over what is left: it is what has an end.")
    if not 1 <= most <= most_of_all:
        raise BadInput("Say how much at most is carried over, at least 1; without it, nothing is.")
    return most
