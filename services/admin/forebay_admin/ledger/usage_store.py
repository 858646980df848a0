"""What the ledger says about a span of time: sums by user and model, or the newest rows. Totals are derived, never kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.ledger.usage_rows import LedgerRow
from forebay_admin.tables import usage_ledger as ledger
from forebay_admin.tables import users

_FAILED = ("failed", "gateway_lost")


@dataclass(frozen=True, slots=True)
class UsageSum:
    user_name: str
    """The user's id where there is no such user any more; empty for requests that came without a valid key."""
    model: str
    requests: int
    finished: int
    refused: int
    failed: int
    """gateway_lost among them."""
    cancelled: int
    prompt_tokens: int
    completion_tokens: int


async def usage_sums(connection: AsyncConnection, since: datetime, user_id: str | None) -> list[UsageSum]:
    """Those with the most tokens first."""
    tokens = func.sum(ledger.c.prompt_tokens) + func.sum(ledger.c.completion_tokens)
    name = func.coalesce(users.c.name, ledger.c.user_id).label("user_name")
    rows = await connection.execute(
        select(
            name,
            ledger.c.model,
            func.count().label("requests"),
            func.count().filter(ledger.c.outcome == "finished").label("finished"),
            func.count().filter(ledger.c.outcome == "refused").label("refused"),
            func.count().filter(ledger.c.outcome.in_(_FAILED)).label("failed"),
            func.count().filter(ledger.c.outcome == "cancelled").label("cancelled"),
            func.sum(ledger.c.prompt_tokens).label("prompt_tokens"),
            func.sum(ledger.c.completion_tokens).label("completion_tokens"),
        )
        .join_from(ledger, users, ledger.c.user_id == users.c.id, isouter=True)
        .where(*_span(since, user_id))
        .group_by(name, ledger.c.model)
        .order_by(tokens.desc(), name, ledger.c.model)
    )
    return [
        UsageSum(
            row.user_name,
            row.model,
            row.requests,
            row.finished,
            row.refused,
            row.failed,
            row.cancelled,
            int(row.prompt_tokens),
            int(row.completion_tokens),
        )
        for row in rows
    ]


async def newest_rows(connection: AsyncConnection, since: datetime, user_id: str | None, limit: int) -> list[LedgerRow]:
    """Newest first."""
    columns = [ledger.c[name] for name in LedgerRow._fields]
    rows = await connection.execute(
        select(*columns)
        .where(*_span(since, user_id))
        .order_by(ledger.c.started_at.desc(), ledger.c.ledger_id)
        .limit(limit)
    )
    return [LedgerRow._make(row) for row in rows]


def _span(since: datetime, user_id: str | None) -> list[ColumnElement[bool]]:
    # The day lets Postgres leave out partitions. It comes from the ledger id, which is minted a moment after the start.
    clauses: list[Any] = [ledger.c.day >= since.date() - timedelta(days=1), ledger.c.started_at >= since]
    if user_id is not None:
        clauses.append(ledger.c.user_id == user_id)
    return clauses
