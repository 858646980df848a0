"""Everybody's limits and budgets, and what was paid in advance, as the console shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.wire.v1 import admin_pb2, prices_pb2
from forebay_admin.row_files import Column, Kind, Row
from forebay_admin.web.paging import address, piece_of, step
from forebay_admin.web.people.amounts import unix
from forebay_admin.web.people.limits_view import BudgetRow, Limits, budget_row, limits_of

PATH, BALANCES = "/console/budgets", "/console/balances"
AT_ONCE = 40
COLUMNS = (
    Column("kind", Kind.TEXT),
    Column("name", Kind.TEXT),
    Column("budget", Kind.TEXT),
    Column("size", Kind.TEXT),
    Column("amount", Kind.WHOLE),
    Column("carried", Kind.WHOLE),
    Column("spent", Kind.WHOLE),
    Column("begun_at", Kind.MOMENT),
    Column("ends_at", Kind.MOMENT),
)


@dataclass(frozen=True, slots=True)
class QuotasView:
    quotas: Sequence[Limits]
    number: int
    """Of all that fit."""
    next_href: str
    previous_href: str


@dataclass(frozen=True, slots=True)
class BalanceRow:
    id: str
    path: str
    kind: str
    name: str
    name_path: str
    paid_micros: int
    charged_micros: int
    left_micros: int
    requests: int
    opened_at: float | None
    opened_by: str
    closed_at: float | None


@dataclass(frozen=True, slots=True)
class PostingRow:
    kind: str
    amount_micros: int
    reference: str
    note: str
    by: str
    at: float | None


@dataclass(frozen=True, slots=True)
class ChargeRow:
    hour: float | None
    requests: int
    cost_micros: int


@dataclass(frozen=True, slots=True)
class BalanceView:
    row: BalanceRow
    postings: Sequence[PostingRow]
    charges: Sequence[ChargeRow]


def quotas_view(quotas: Sequence[admin_pb2.Quota], query: Mapping[str, str]) -> QuotasView:
    """Those that fit, whose budgets are spent furthest first."""
    found = sorted(fitting(quotas, query), key=lambda quota: (-_furthest(quota), quota.kind, quota.name.lower()))
    shown, before, after = piece_of(found, query.get("page", ""), AT_ONCE)
    return QuotasView(
        tuple(limits_of(quota) for quota in shown),
        len(found),
        address(PATH, query, page=after) if after else "",
        address(PATH, query, page=before) if before else "",
    )


def fitting(quotas: Sequence[admin_pb2.Quota], query: Mapping[str, str]) -> Sequence[admin_pb2.Quota]:
    kind, text = query.get("kind", ""), query.get("text", "").strip().lower()
    return [
        quota
        for quota in quotas
        if kind in ("", quota.kind) and any(text in told.lower() for told in (quota.name, quota.user_name, quota.id))
    ]


def budget_with_id(quotas: Sequence[admin_pb2.Quota], budget_id: str) -> tuple[Limits, BudgetRow] | None:
    for quota in quotas:
        for budget in quota.budgets:
            if budget.id == budget_id:
                return limits_of(quota), budget_row(budget)
    return None


def budget_rows_of_file(quotas: Sequence[admin_pb2.Quota]) -> Sequence[Row]:
    return tuple(
        {
            "kind": quota.kind,
            "name": quota.name or quota.id,
            "budget": budget.id,
            "size": budget_row(budget).size,
            "amount": budget.amount,
            "carried": budget.carried,
            "spent": budget.spent if budget.HasField("spent") else None,
            "begun_at_us": budget.since_us or None,
            "ends_at_us": budget.until_us if budget.HasField("until_us") else None,
        }
        for quota in quotas
        for budget in quota.budgets
    )


def balance_row(balance: prices_pb2.Balance) -> BalanceRow:
    return BalanceRow(
        balance.id,
        f"{BALANCES}/{step(balance.id)}",
        balance.kind,
        balance.name,
        f"/console/{balance.kind}s/{step(balance.name)}",
        balance.paid_micros,
        balance.charged_micros,
        balance.left_micros,
        balance.requests,
        unix(balance.opened_at_us),
        balance.opened_by,
        unix(balance.closed_at_us) if balance.HasField("closed_at_us") else None,
    )


def balance_view(told: prices_pb2.ShowBalanceResponse) -> BalanceView:
    return BalanceView(
        balance_row(told.balance),
        tuple(
            PostingRow(one.kind, one.amount_micros, one.reference, one.note, one.created_by, unix(one.at_us))
            for one in told.postings
        ),
        tuple(ChargeRow(unix(one.hour_us), one.requests, one.cost_micros) for one in told.charges),
    )


def _furthest(quota: admin_pb2.Quota) -> float:
    """How far the budget is spent that is spent furthest, of one."""
    return max(
        (one.spent / (one.amount + one.carried) for one in quota.budgets if one.amount + one.carried), default=-1.0
    )
