"""Why a limit refuses a request, in words for the person who reads them, and when to come back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC

from forebay.errors import Refusal
from forebay_scheduler.limits.budget import Account
from forebay_scheduler.limits.gcra import Rate
from forebay_scheduler.limits.periods import moment_words
from forebay_scheduler.limits.subjects import Chain, Counter, Places, Subject
from forebay_scheduler.terms import BudgetUnit, Period

_MICROS = 1_000_000
_SPANS = {
    Period.EVER: "",
    Period.HOUR: " for this hour",
    Period.DAY: " for this day",
    Period.WEEK: " for this week",
    Period.MONTH: " for this month",
    Period.YEAR: " for this year",
}

_WHO = {"key": "This API key", "user": "This user", "group": "A group of this user"}


@dataclass(frozen=True, slots=True)
class Refused:
    reason: Refusal
    retry_after_s: float | None
    """None when trying again does not help. As it is: the edge says no more than clients wait for."""
    message: str
    lent: tuple[int, ...] = ()
    """Allotments that hold some of what is missing: recall them and ask again before refusing."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one request is estimated to take."""

    tokens: int
    money_micros: int


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One limit that has no room."""

    reason: Refusal
    retry_after_s: float | None
    message: str
    counter: Counter


def obstacles(chain: Chain, wanted: Wanted, wall_us: int | None, at_us: int, held_s: float) -> list[Obstacle]:
    """All that stand in the way. Budgets first: their word holds for the longest time. `held_s` is for how long requests
    keep what is reserved for them."""
    found = []
    for subject in chain.subjects:
        for account in subject.accounts.values():
            need = wanted.tokens if account.terms.unit is BudgetUnit.TOKENS else wanted.money_micros
            if need and account.free < need:
                found.append(_budget_obstacle(subject, account, need, wall_us, held_s))
    for subject in chain.subjects:
        if subject.request_rate is not None and not subject.request_rate.has_room(1, at_us):
            found.append(_rate_obstacle(subject, subject.request_rate, 1, "request", at_us))
        if subject.token_rate is not None and not subject.token_rate.has_room(wanted.tokens, at_us):
            found.append(_rate_obstacle(subject, subject.token_rate, wanted.tokens, "token", at_us))
    for subject in chain.subjects:
        if subject.places is not None and subject.places.free < 1:
            found.append(_places_obstacle(subject, subject.places))
    return found


def highest(found: list[Obstacle]) -> Obstacle:
    """Of the kind whose word lasts longest, the one that lasts longest."""
    reason = found[0].reason
    of_kind = [obstacle for obstacle in found if obstacle.reason is reason]
    return max(of_kind, key=lambda o: math.inf if o.retry_after_s is None else o.retry_after_s)


def _budget_obstacle(subject: Subject, account: Account, need: int, wall_us: int | None, held_s: float) -> Obstacle:
    terms = account.terms
    span = f" in {_window(terms.window_s)}" if terms.window_s else _SPANS[terms.period]
    budget = f"budget of {_amount(account.amount, terms.unit)}{span}"
    who = _who(subject)
    is_spent = account.amount <= account.spent
    if is_spent:
        told = f"{who} has spent its {budget}"
    else:
        held = account.reserved + account.lent
        left = max(0, account.amount - account.spent)
        told = f"{who} has {_amount(left, terms.unit)} of its {budget} left"
        if held:
            told += f", and running requests may need {_amount(held, terms.unit)} of it"
        told += f"; this request may need {_amount(need, terms.unit)}"
    room_at_us = account.room_at_us(need)
    retry_after_s = None if room_at_us is None or wall_us is None else max(1.0, (room_at_us - wall_us) / _MICROS)
    if account.amount - account.spent >= need:
        returns_s = max(1.0, held_s)  # running requests seldom need all that is reserved for them
        retry_after_s = returns_s if retry_after_s is None else min(returns_s, retry_after_s)
    end_us = account.span.end_us if account.span is not None else None
    calendar = account.calendar
    if terms.window_s:
        again = "" if room_at_us is None else f"there is room for it on {moment_words(room_at_us, UTC)} (UTC)"
    elif end_us is None:
        again = "it does not begin anew" if is_spent else ""
    else:
        again = f"it begins anew on {moment_words(end_us, calendar.zone)} ({calendar.zone_name})"
    message = f"{told}; {again}." if again else f"{told}."
    return Obstacle(Refusal.QUOTA_SPENT, retry_after_s, message, account)


def _window(seconds: int) -> str:
    hours = seconds // 3600
    return _counted(hours // 24, "day") if hours % 24 == 0 else _counted(hours, "hour")


def _rate_obstacle(subject: Subject, rate: Rate, units: int, what: str, at_us: int) -> Obstacle:
    wait_s = rate.wait_s(units, at_us)
    message = f"{_who(subject)} may use {_counted(rate.limit, what)} a minute"
    if what == "token":
        message += f", and this request may need {units:,}"
    message += "." if wait_s is None else f"; there is room for it in {max(0.1, wait_s):,.1f} s."
    return Obstacle(Refusal.RATE_LIMITED, wait_s, message, rate)


def _places_obstacle(subject: Subject, places: Places) -> Obstacle:
    message = (
        f"{_who(subject)} may have {_counted(places.limit, 'request')} at once, waiting ones included, and has as many."
    )
    return Obstacle(Refusal.CONCURRENCY_LIMITED, places.wait_s(), message, places)


def _who(subject: Subject) -> str:
    """For the client, whom the ids of users and groups tell nothing."""
    return _WHO.get(subject.kind, f"The {subject.kind} '{subject.name}'")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _amount(amount: int, unit: BudgetUnit) -> str:
    if unit is BudgetUnit.TOKENS:
        return _counted(amount, "token")
    whole, micros = divmod(amount, _MICROS)
    return f"{whole:,}.{micros:06d}".rstrip("0").ljust(len(f"{whole:,}.00"), "0") + " in money"
