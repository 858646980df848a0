"""What is told of a budget that is used up in part, and of a balance that runs low: in which period once, and in which
words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from forebay_admin.money.balances import Balance
from forebay_admin.notify.kinds import SUMMARY
from forebay_admin.quotas.quotas import MICROS, Budget, BudgetUnit, Standing, Subject

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)


def span_named(budget: Budget, now: datetime) -> str:
    """The period in which each threshold is told once. Of a window that moves: so long from one telling to the next, at
    multiples of its length since 1970."""
    if budget.window_s is not None:
        return f"window {int((now - _FIRST).total_seconds()) // budget.window_s}"
    return budget.span(now).since.isoformat()


def amount_of(standing: Standing) -> int:
    """What there is in this period."""
    return standing.budget.amount + standing.carried


def budget_body(subject: Subject, standing: Standing, percent: int) -> Mapping[str, Any]:
    budget, amount, spent = standing.budget, amount_of(standing), standing.spent or 0
    until = f", until {standing.until:%Y-%m-%d %H:%M} UTC" if standing.until is not None else ""
    used = f"{_told(budget.unit, spent)} of {_told(budget.unit, amount)}"
    return {
        SUMMARY: f"{percent} % of the budget of {subject} is used: {used}{until}.",
        "budget": budget.id,
        "percent": percent,
        "unit": budget.unit.value if budget.unit is BudgetUnit.TOKENS else "micros",
        "spent": spent,
        "amount": amount,
        "since": standing.since.isoformat(),
        "until": standing.until.isoformat() if standing.until is not None else None,
    }


def balance_body(balance: Balance, topped_up: int, percent: int) -> Mapping[str, Any]:
    left = balance.left_micros
    said = "Nothing is left" if left <= 0 else f"{money(left)} is left"
    return {
        SUMMARY: f"{said} of what was paid in advance for {balance.account}; {money(topped_up)} was paid last.",
        "balance": balance.account.id,
        "percent": percent,
        "left_micros": left,
        "topped_up_micros": topped_up,
    }


def money(micros: int) -> str:
    """Two places, cut off and not rounded: what is left is never told as more."""
    sign, cents = "-" if micros < 0 else "", abs(micros) * 100 // MICROS
    return f"{sign}{cents // 100:,}.{cents % 100:02}"


def _told(unit: BudgetUnit, amount: int) -> str:
    return f"{amount:,} tokens" if unit is BudgetUnit.TOKENS else money(amount)
