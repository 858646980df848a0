"""Limits and budgets of users, groups and keys as the console shows them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forebay.wire.v1 import admin_pb2
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.paging import step
from forebay_admin.web.people.amounts import CAP_WORDS, caps_told, unix
from forebay_admin.web.words import count, money, span

KINDS = ("user", "group", "key")
UNITS = {"tokens": admin_pb2.BUDGET_UNIT_TOKENS, "money": admin_pb2.BUDGET_UNIT_MONEY}
PERIODS = {
    "day": admin_pb2.BUDGET_PERIOD_DAY,
    "hour": admin_pb2.BUDGET_PERIOD_HOUR,
    "week": admin_pb2.BUDGET_PERIOD_WEEK,
    "month": admin_pb2.BUDGET_PERIOD_MONTH,
    "year": admin_pb2.BUDGET_PERIOD_YEAR,
    "ever": admin_pb2.BUDGET_PERIOD_UNSPECIFIED,
    "window": admin_pb2.BUDGET_PERIOD_UNSPECIFIED,
}
PERIOD_WORDS = {
    "day": "Day",
    "hour": "Hour",
    "week": "Week, from Monday",
    "month": "Month",
    "year": "Year",
    "ever": "For ever",
    "window": "Last hours, as given below",
}
_OF_WIRE = {
    admin_pb2.BUDGET_PERIOD_HOUR: "an hour",
    admin_pb2.BUDGET_PERIOD_DAY: "a day",
    admin_pb2.BUDGET_PERIOD_WEEK: "a week",
    admin_pb2.BUDGET_PERIOD_MONTH: "a month",
    admin_pb2.BUDGET_PERIOD_YEAR: "a year",
}
_MOST_TOKENS = 2**53
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class BudgetRow:
    id: str
    path: str
    is_money: bool
    size: str
    """As people read it, with its unit and period: 5M tokens a month."""
    spent: int | None
    """None: it could not be counted in time."""
    whole: int
    """With what was carried into the period."""
    words: str
    """Spent and free."""
    carried: str
    carry_most: str
    time_zone: str
    begun_at: float | None
    ends_at: float | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one subject."""

    kind: str
    name: str
    title: str
    path: str
    """Where they are changed."""
    caps: Sequence[tuple[str, int]]
    budgets: Sequence[BudgetRow]


def limits_view(quotas: Sequence[admin_pb2.Quota], now: float) -> Sequence[Limits]:
    """All that apply to somebody, in the order in which they are told."""
    return tuple(limits_of(quota) for quota in quotas)


def limits_of(quota: admin_pb2.Quota) -> Limits:
    of_key = quota.kind == "key"
    return Limits(
        quota.kind,
        quota.name,
        f"{quota.kind} {quota.name or quota.id}{f' of {quota.user_name}' if of_key and quota.user_name else ''}",
        f"/console/limits/{quota.kind}/{step(quota.id if of_key else quota.name)}",
        tuple((CAP_WORDS[name], most) for name, most in caps_told(quota).items()),
        tuple(budget_row(budget) for budget in quota.budgets),
    )


def budget_row(budget: admin_pb2.BudgetStanding) -> BudgetRow:
    is_money = budget.unit == admin_pb2.BUDGET_UNIT_MONEY
    whole = budget.amount + budget.carried
    spent = budget.spent if budget.HasField("spent") else None
    told = "not counted at the moment"
    if spent is not None:
        free = amount(max(0, whole - spent), is_money)
        told = f"{amount(spent, is_money)} spent, {free} free of {amount(whole, is_money)}"
    return BudgetRow(
        id=budget.id,
        path=f"/console/budgets/{step(budget.id)}",
        is_money=is_money,
        size=_size(budget.amount, is_money, budget.period, budget.window_s),
        spent=spent,
        whole=whole,
        words=told,
        carried=amount(budget.carried, is_money) if budget.carried else "",
        carry_most=typed_amount(budget.carry_most, is_money) if budget.HasField("carry_most") else "",
        time_zone=budget.time_zone or "UTC",
        begun_at=unix(budget.since_us),
        ends_at=unix(budget.until_us) if budget.HasField("until_us") else None,
    )


def member_budget_words(budget: admin_pb2.MemberBudget) -> str:
    is_money = budget.unit == admin_pb2.BUDGET_UNIT_MONEY
    zone = f", {budget.time_zone}" if budget.time_zone else ""
    return f"{_size(budget.amount, is_money, budget.period, budget.window_s)}{zone}"


def amount(value: int, is_money: bool) -> str:
    return money(value) if is_money else count(value)


def typed_amount(value: int, is_money: bool) -> str:
    """As a field has it: exact."""
    return money(value).replace(",", "") if is_money else str(value)


def order_of(form: Form) -> admin_pb2.MemberBudget:
    """A new budget, whosever it is to be. Raises WrongField."""
    unit, period = form.get("unit", "tokens"), form.get("period", "month")
    if unit not in UNITS:
        raise WrongField("unit", f"A budget is of {' or of '.join(UNITS)}.")
    if period not in PERIODS:
        raise WrongField("period", f"A budget's period is one of {', '.join(PERIODS)}.")
    window_s = 0
    if period == "window":
        form.demand("window", "How many hours count")
        window_s = form.whole("window", least=1, most=24 * 366) * _HOUR_S
    return admin_pb2.MemberBudget(
        unit=UNITS[unit],
        amount=amount_of(form, "amount", unit == "money"),
        period=PERIODS[period],
        time_zone=form.get("time_zone"),
        window_s=window_s,
        carry_most=amount_of(form, "carry_most", unit == "money") if form.get("carry_most") else None,
    )


def amount_of(form: Form, name: str, is_money: bool) -> int:
    """Raises WrongField."""
    form.demand(name, "The amount")
    found = form.micro(name) if is_money else form.whole(name, least=1, most=_MOST_TOKENS)
    if found < 1:
        raise WrongField(name, "An amount is more than nothing.")
    return found


def _size(value: int, is_money: bool, period: admin_pb2.BudgetPeriod.ValueType, window_s: int) -> str:
    return f"{amount(value, is_money)} {'money' if is_money else 'tokens'} {_period(period, window_s)}"


def _period(period: admin_pb2.BudgetPeriod.ValueType, window_s: int) -> str:
    if window_s:
        return f"in any {span(window_s)}"
    return _OF_WIRE.get(period, "for ever")
