"""Thresholds of budgets, and what was told of them, in Postgres. Each function works on the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.notify.tables import budget_thresholds, event_marks
from forebay_admin.tables import is_one_of

_REMEMBERED = timedelta(days=8)
"""What was told of a period before, so that a clock that steps back over its end has nothing told twice."""


async def thresholds_of(connection: AsyncConnection, budget_ids: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Of those budgets of which somebody said something."""
    query = select(budget_thresholds).where(is_one_of(budget_thresholds.c.budget_id, budget_ids))
    return {row.budget_id: tuple(row.percents) for row in await connection.execute(query)}


async def set_thresholds(connection: AsyncConnection, budget_id: str, percents: Sequence[int] | None) -> None:
    """None: as usual."""
    if percents is None:
        await connection.execute(delete(budget_thresholds).where(budget_thresholds.c.budget_id == budget_id))
        return
    await connection.execute(
        insert(budget_thresholds)
        .values(budget_id=budget_id, percents=list(percents))
        .on_conflict_do_update(index_elements=[budget_thresholds.c.budget_id], set_={"percents": list(percents)})
    )


async def marked(connection: AsyncConnection, spans: Mapping[str, str]) -> dict[str, set[int]]:
    """What was told of each subject in its span. `spans`: subject → span."""
    rows = await connection.execute(
        text(
            "SELECT mark.subject, mark.percent FROM admin.event_marks AS mark "
            "JOIN unnest(CAST(:subjects AS text[]), CAST(:spans AS text[])) AS asked (subject, span) "
            "ON asked.subject = mark.subject AND asked.span = mark.span"
        ),
        {"subjects": list(spans.keys()), "spans": list(spans.values())},
    )
    found: dict[str, set[int]] = {}
    for row in rows:
        found.setdefault(row.subject, set()).add(row.percent)
    return found


async def mark(connection: AsyncConnection, subject: str, span: str, percent: int, now: datetime) -> bool:
    """Whether nobody has before, whichever replica and whatever crashed."""
    made = await connection.execute(
        insert(event_marks)
        .values(subject=subject, span=span, percent=percent, at=now)
        .on_conflict_do_nothing()
        .returning(event_marks.c.percent)
    )
    if made.first() is None:
        return False
    old = (event_marks.c.subject == subject) & (event_marks.c.span != span) & (event_marks.c.at < now - _REMEMBERED)
    await connection.execute(delete(event_marks).where(old))
    return True


async def forget_gone(connection: AsyncConnection) -> None:
    """What was told of budgets and balances that there are no more."""
    await connection.execute(
        text(
            "DELETE FROM admin.event_marks WHERE subject NOT IN (SELECT id FROM admin.budgets) "
            "AND subject NOT IN (SELECT id FROM admin.balance_accounts WHERE closed_at IS NULL)"
        )
    )
