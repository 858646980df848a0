"""Limits and budgets: what they may be and whom they are for. Pure; keeping them is quota_store's job, enforcing them the
scheduler's.

Limits are at least 1: something that may never happen is no limit but a refusal, and for that keys are revoked and people
are paused. That a new limit is below what is used right now is no mistake: nothing new starts until there is room."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from forebay.errors import BadInput
from forebay_admin.quotas.carry import Carried, closed, demand_carry, no_carry_yet
from forebay_admin.quotas.periods import (
    DEFAULT_ZONE,
    Period,
    Span,
    demand_window,
    span_before,
    span_of,
    span_of_window,
    zone_named,
)

MOST_PER_MINUTE = 2**31 - 1
MOST_TOKENS = 10**15
MOST_MICROS = 10**18
MICROS = 1_000_000
"""In one unit of money."""


class SubjectKind(StrEnum):
    USER = "user"
    GROUP = "group"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a quota is for."""

    kind: SubjectKind
    id: str
    name: str
    user_name: str = ""
    """Of a key."""

    def __str__(self) -> str:
        return f"{self.kind} {self.id if self.kind is SubjectKind.KEY else self.name}"


@dataclass(frozen=True, slots=True)
class Caps:
    """None is not limited."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


class BudgetUnit(StrEnum):
    TOKENS = "tokens"
    MONEY = "money"
    """Integer micro-units."""


@dataclass(frozen=True, slots=True)
class Budget:
    id: str
    unit: BudgetUnit
    amount: int
    period: Period
    time_zone: str
    created_at: datetime
    """Nothing counts that was used before."""
    window_s: int | None = None
    """In place of a period: what is used counts for so many seconds."""
    carry_most: int | None = None
    """So much of what is left goes into the next period."""
    carried: Carried | None = None
    """Of a budget that carries, or has."""

    def span(self, now: datetime) -> Span:
        """In which counts what is used now."""
        if self.window_s is not None:
            return span_of_window(self.window_s, now)
        return span_of(self.period, self.time_zone, now)

    def counted_from(self, now: datetime) -> datetime:
        """What began before is of no use to it any more."""
        span = self.span(now)
        if self.carry_most is not None:
            span = span_before(self.period, self.time_zone, now)
        return max(span.since, self.created_at)

    def carried_into(self, span: Span) -> int:
        return self.carried.amount if self.carried is not None and self.carried.since == span.since else 0


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget, and what the ledger says of its period."""

    budget: Budget
    spent: int | None
    """None: it could not be counted in time."""
    since: datetime
    until: datetime | None
    counted_at: datetime
    carried: int = 0
    """Into this period, beside the budget's amount."""
    steps: Mapping[int, int] = field(default_factory=dict)
    """Of a window: when each step began, in microseconds, and what was spent in it."""


@dataclass(frozen=True, slots=True)
class Quota:
    subject: Subject
    caps: Caps
    budgets: tuple[Standing, ...]


_MOST = {
    "requests_per_minute": MOST_PER_MINUTE,
    "tokens_per_minute": MOST_TOKENS,
    "concurrency": MOST_PER_MINUTE,
}


def demand_caps(caps: Caps) -> Caps:
    """Raises BadInput."""
    for name, most in _MOST.items():
        value = getattr(caps, name)
        what = name.replace("_", " ")
        if value is not None and value < 1:
            raise BadInput(
                f"A limit of {value} {what} would let nothing through: give at least 1, or pause the user or group, or "
                "revoke the key."
            )
        if value is not None and value > most:
            raise BadInput(f"A limit of {value} {what} limits nothing: leave it out.")
    return caps


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """A budget as somebody asks for it."""

    unit: BudgetUnit
    amount: int
    period: Period
    time_zone: str
    window_s: int | None = None
    carry_most: int | None = None


def plan_budget(
    unit: BudgetUnit | None,
    amount: int,
    period: Period,
    time_zone: str,
    window_s: int = 0,
    carry_most: int | None = None,
) -> BudgetPlan:
    """Raises BadInput."""
    if unit is None:
        raise BadInput("Say whether the budget is of tokens or of money.")
    zone = time_zone.strip() or DEFAULT_ZONE
    zone_named(zone)
    window = demand_window(window_s)
    if window is not None and period is not Period.EVER:
        raise BadInput("A budget has a period of the calendar or a window that moves, not both.")
    amount = demand_amount(unit, amount)
    return BudgetPlan(unit, amount, period, zone, window, demand_carry(carry_most, period, window, most_of(unit)))


def order_budget(plan: BudgetPlan, now: datetime) -> Budget:
    """A new one."""
    return Budget(
        f"budget_{secrets.token_hex(6)}",
        plan.unit,
        plan.amount,
        plan.period,
        plan.time_zone,
        now,
        plan.window_s,
        plan.carry_most,
        no_carry_yet(plan.period, plan.time_zone, now) if plan.carry_most is not None else None,
    )


def resized(budget: Budget, amount: int, now: datetime) -> Budget:
    """The budget with another amount from now on. Raises BadInput."""
    carried = budget.carried
    if budget.carry_most is not None:
        carried = closed(budget.period, budget.time_zone, budget.amount, carried, now)
    return replace(budget, amount=demand_amount(budget.unit, amount), carried=carried)


def carrying(budget: Budget, most: int | None, now: datetime) -> Budget:
    """The budget with another cap on what it carries from now on. Raises BadInput."""
    most = demand_carry(most, budget.period, budget.window_s, most_of(budget.unit))
    carried = budget.carried
    if most is not None and budget.carry_most is None:
        begun = no_carry_yet(budget.period, budget.time_zone, now)
        carried = carried if carried is not None and carried.since == begun.since else begun
    return replace(budget, carry_most=most, carried=carried)


def demand_amount(unit: BudgetUnit, amount: int) -> int:
    """Raises BadInput."""
    if amount < 1:
        raise BadInput("A budget is more than nothing; to let somebody use nothing at all, revoke their keys.")
    if amount > most_of(unit):
        raise BadInput("That is more than anybody can spend: leave the budget out.")
    return amount


def most_of(unit: BudgetUnit) -> int:
    return MOST_TOKENS if unit is BudgetUnit.TOKENS else MOST_MICROS
