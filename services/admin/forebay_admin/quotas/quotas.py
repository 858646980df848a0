"""Limits and budgets: what they may be and whom they are for. Pure; keeping them is quota_store's job, enforcing them the
scheduler's.

Limits are at least 1: something that may never happen is no limit but a refusal, and for that keys are revoked and people
are paused. That a new limit is below what is used right now is no mistake: nothing new starts until there is room."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from forebay.errors import BadInput
from forebay_admin.quotas.periods import DEFAULT_ZONE, Period, zone_named

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


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget, and what the ledger says of its period."""

    budget: Budget
    spent: int | None
    """None: it could not be counted in time."""
    since: datetime
    until: datetime | None
    counted_at: datetime


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


def order_budget(unit: BudgetUnit | None, amount: int, period: Period, time_zone: str, now: datetime) -> Budget:
    """A new one. Raises BadInput."""
    if unit is None:
        raise BadInput("Say whether the budget is of tokens or of money.")
    zone = time_zone.strip() or DEFAULT_ZONE
    zone_named(zone)
    return Budget(f"budget_{secrets.token_hex(6)}", unit, demand_amount(unit, amount), period, zone, now)


def demand_amount(unit: BudgetUnit, amount: int) -> int:
    """Raises BadInput."""
    if amount < 1:
        raise BadInput("A budget is more than nothing; to let somebody use nothing at all, revoke their keys.")
    if amount > (MOST_TOKENS if unit is BudgetUnit.TOKENS else MOST_MICROS):
        raise BadInput("That is more than anybody can spend: leave the budget out.")
    return amount
