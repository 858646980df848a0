"""What one may use, what of it is used, and what was asked for beyond. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forebay.wire.v1 import admin_pb2, key_terms_pb2, prices_pb2
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.words import count, exact, money, span

_PERIODS = {
    admin_pb2.BUDGET_PERIOD_UNSPECIFIED: "for ever",
    admin_pb2.BUDGET_PERIOD_HOUR: "an hour",
    admin_pb2.BUDGET_PERIOD_DAY: "a day",
    admin_pb2.BUDGET_PERIOD_WEEK: "a week",
    admin_pb2.BUDGET_PERIOD_MONTH: "a month",
    admin_pb2.BUDGET_PERIOD_YEAR: "a year",
}
_STATES = {
    key_terms_pb2.QUOTA_REQUEST_STATE_OPEN: ("open", "info"),
    key_terms_pb2.QUOTA_REQUEST_STATE_APPROVED: ("approved", "good"),
    key_terms_pb2.QUOTA_REQUEST_STATE_DENIED: ("denied", "bad"),
}
_MOST = 2**53
_MOST_32 = 2**32 - 1


@dataclass(frozen=True, slots=True)
class BudgetView:
    id: str
    title: str
    whose: str
    spent: int | None
    """None: it could not be counted in time."""
    most: int
    words: str
    """How much of it is spent."""
    left: str
    carried: str
    """Empty: nothing was carried over."""
    begins_anew_at: float | None
    anew: str
    """In words, where that is no moment."""
    is_money: bool


@dataclass(frozen=True, slots=True)
class LimitsOf:
    whose: str
    limits: tuple[tuple[str, str], ...]
    budgets: tuple[BudgetView, ...]


@dataclass(frozen=True, slots=True)
class BalanceView:
    whose: str
    left: str
    paid: str
    charged: str
    left_micros: int
    paid_micros: int
    postings: tuple[tuple[float, str, str, str], ...]
    """When, what, how much, a note."""


@dataclass(frozen=True, slots=True)
class Asked:
    id: str
    what: str
    reason: str
    state: str
    tone: str
    at: float
    decided_at: float | None
    answer: str


def limits_view(quotas: Sequence[admin_pb2.Quota]) -> tuple[LimitsOf, ...]:
    """Those that apply, one's own first; without those that limit nothing."""
    found = []
    for quota in quotas:
        whose = {"user": "Yours", "group": f"Of the group {quota.name}", "key": f"Of the key {quota.name}"}[quota.kind]
        limits = []
        if quota.HasField("requests_per_minute"):
            limits.append(("Requests a minute", exact(quota.requests_per_minute)))
        if quota.HasField("tokens_per_minute"):
            limits.append(("Tokens a minute", exact(quota.tokens_per_minute)))
        if quota.HasField("concurrency"):
            limits.append(("Requests at once", exact(quota.concurrency)))
        budgets = tuple(_budget(one, whose) for one in quota.budgets)
        if limits or budgets:
            found.append(LimitsOf(whose, tuple(limits), budgets))
    return tuple(found)


def balance_view(told: prices_pb2.ShowBalanceResponse) -> BalanceView | None:
    """None: nothing was paid in advance."""
    balance = told.balance
    if not balance.id:
        return None
    return BalanceView(
        "Yours" if balance.kind == "user" else f"Of the group {balance.name}",
        money(balance.left_micros),
        money(balance.paid_micros),
        money(balance.charged_micros),
        balance.left_micros,
        balance.paid_micros,
        tuple(
            (one.at_us / 1e6, one.kind.replace("_", " "), money(one.amount_micros), one.note) for one in told.postings
        ),
    )


def asked_view(requests: Sequence[key_terms_pb2.QuotaRequest]) -> tuple[Asked, ...]:
    return tuple(
        Asked(
            one.id,
            wish_words(one.wish),
            one.reason,
            *_STATES.get(one.state, ("unknown", "warn")),
            one.created_at_us / 1e6,
            one.decided_at_us / 1e6 if one.HasField("decided_at_us") else None,
            one.answer,
        )
        for one in requests
    )


def wish_words(wish: key_terms_pb2.QuotaWish) -> str:
    match wish.WhichOneof("of"):
        case "limits":
            limits = wish.limits
            told = []
            if limits.HasField("requests_per_minute"):
                told.append(f"{exact(limits.requests_per_minute)} requests a minute")
            if limits.HasField("tokens_per_minute"):
                told.append(f"{exact(limits.tokens_per_minute)} tokens a minute")
            if limits.HasField("concurrency"):
                told.append(f"{exact(limits.concurrency)} requests at once")
            return ", ".join(told) + (f" for the key {limits.key_id}" if limits.key_id else "")
        case "budget":
            return f"{exact(wish.budget.amount)} for the budget {wish.budget.id}"
        case "key_terms":
            return f"other terms for the key {wish.key_terms.key_id}"
        case _:
            return "something that this version does not know"


# --- what forms say ----------------------------------------------------------------------------------------------------


def limits_wish(form: Form) -> key_terms_pb2.RequestQuotaRequest:
    """Raises WrongField."""
    told = {
        name: form.whole(name, least=1, most=most)
        for name, most in (("requests_per_minute", _MOST_32), ("tokens_per_minute", _MOST), ("concurrency", _MOST_32))
        if form.get(name)
    }
    if not told:
        raise WrongField("requests_per_minute", "Say at least one limit that you need.")
    limits = key_terms_pb2.LimitsWish(key_id=form.get("key"), **told)
    return key_terms_pb2.RequestQuotaRequest(wish=key_terms_pb2.QuotaWish(limits=limits), reason=_reason(form))


def budget_wish(form: Form, budgets: Sequence[BudgetView]) -> key_terms_pb2.RequestQuotaRequest:
    """`budgets`: those that apply. Raises WrongField."""
    chosen = next((budget for budget in budgets if budget.id == form.get("budget")), None)
    if chosen is None:
        raise WrongField("budget", "Choose one of the budgets that apply to you.")
    amount = form.micro("amount") if chosen.is_money else form.whole("amount", least=1, most=_MOST)
    budget = key_terms_pb2.BudgetWish(id=chosen.id, amount=amount)
    return key_terms_pb2.RequestQuotaRequest(wish=key_terms_pb2.QuotaWish(budget=budget), reason=_reason(form))


def _reason(form: Form) -> str:
    return form.demand("reason", "A reason")


def _budget(budget: admin_pb2.BudgetStanding, whose: str) -> BudgetView:
    is_money = budget.unit == admin_pb2.BUDGET_UNIT_MONEY
    most = budget.amount + budget.carried
    per = f"in any {span(budget.window_s)}" if budget.window_s else _PERIODS.get(budget.period, "a period")
    spent = budget.spent if budget.HasField("spent") else None
    return BudgetView(
        budget.id,
        f"{_amount(budget.amount, is_money)} {per}",
        whose,
        spent,
        most,
        f"{_amount(spent, is_money)} of {_amount(most, is_money)}" if spent is not None else "could not be counted now",
        _amount(max(0, most - spent), is_money) if spent is not None else "unknown",
        _amount(budget.carried, is_money) if budget.carried else "",
        budget.until_us / 1e6 if budget.HasField("until_us") else None,
        "bit by bit" if budget.window_s else "never",
        is_money,
    )


def _amount(amount: int, is_money: bool) -> str:
    return money(amount) if is_money else f"{count(amount)} tokens"
