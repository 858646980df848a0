"""What the ledger says was spent of budgets in their periods. The scheduler counts for itself; this is what it starts from
where it has no count of its own, and what people are shown.

Money is what the rows cost when they were entered, and for rows that say nothing of their cost what their tokens would at
today's prices, rounded once a row. A group's is that of all groups within it, each request
counted for the group that its user was in. A budget counts nothing from before it was made."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.quotas.periods import Span, step_of
from forebay_admin.quotas.quotas import Budget, BudgetUnit, Standing, SubjectKind

log = logging.getLogger(__name__)

COUNT_S = 2.0
"""How long the counting of all budgets of users, of groups or of keys may take; then their spending is not told. The rest of
the policy must not wait for it."""
_MOST = 2**63 - 1
_CANCELLED = "57014"
"""What Postgres says of a statement whose time is over."""

_COUNT = """
    WITH wanted AS MATERIALIZED (
        SELECT id, {subjects} AS subjects, since, until, step_us, money FROM unnest(
            CAST(:ids AS text[]), CAST(:subjects AS text[]), CAST(:since AS timestamptz[]),
            CAST(:until AS timestamptz[]), CAST(:step_us AS bigint[]), CAST(:money AS boolean[])
        ) AS asked (id, subject, since, until, step_us, money)
    )
    SELECT wanted.id, spent.step, spent.amount
    FROM wanted LEFT JOIN LATERAL (
        SELECT CASE WHEN wanted.step_us IS NULL THEN 0 ELSE
            (extract(epoch FROM used.started_at) * 1000000)::bigint / wanted.step_us * wanted.step_us END AS step,
        CASE WHEN NOT wanted.money THEN sum(used.prompt_tokens) + sum(used.completion_tokens)
            ELSE sum(CASE
                WHEN used.cost_micros IS NOT NULL THEN used.cost_micros
                WHEN wanted.money AND used.unbilled IS NULL THEN round((
                    greatest(used.prompt_tokens - used.cached_prompt_tokens, 0)::numeric * terms.prompt_micros
                    + used.cached_prompt_tokens::numeric * terms.cached_prompt_micros
                    + used.completion_tokens::numeric * terms.completion_micros
                ) / 1000000) END)
            END AS amount
        FROM admin.usage_ledger AS used LEFT JOIN admin.model_terms AS terms ON terms.model = used.model
        WHERE {theirs} AND used.started_at >= wanted.since
            AND used.started_at < coalesce(wanted.until, 'infinity')
            -- Lets Postgres leave out partitions; the ledger id, which gives the day, is minted a moment after the start.
            AND used.day >= (wanted.since AT TIME ZONE 'UTC')::date - 1
            AND used.day <= (coalesce(wanted.until, 'infinity') AT TIME ZONE 'UTC')::date + 1
        GROUP BY 1
    ) AS spent ON true
"""
_ITSELF = "ARRAY[subject]"
_WITHIN = """ARRAY(
    WITH RECURSIVE within AS (
        SELECT subject AS id UNION SELECT groups.id FROM admin.groups JOIN within ON groups.parent_id = within.id
    )
    SELECT id FROM within
)"""
_WHOSE = {
    # Not = ANY where there is one: then the planner takes the index of all rows' times, which is hundreds of times as slow.
    SubjectKind.USER: {"theirs": "used.user_id = wanted.subjects[1]", "subjects": _ITSELF},
    SubjectKind.KEY: {"theirs": "used.key_id = wanted.subjects[1]", "subjects": _ITSELF},
    SubjectKind.GROUP: {"theirs": "used.group_id = ANY (wanted.subjects)", "subjects": _WITHIN},
}

Budgets = Mapping[tuple[SubjectKind, str], Sequence[Budget]]


@dataclass(frozen=True, slots=True)
class Asked:
    subject_id: str
    budget: Budget
    span: Span


async def standings(connection: AsyncConnection, held: Budgets, now: datetime) -> dict[str, Standing]:
    """By the budget's id. The connection is in a transaction that reads."""
    found: dict[str, Standing] = {}
    for kind in SubjectKind:
        mine = [(subject, budget) for (of, subject), some in held.items() if of is kind for budget in some]
        if mine:
            found |= await _of_kind(connection, kind, mine, now)
    return found


async def _of_kind(
    connection: AsyncConnection, kind: SubjectKind, held: Sequence[tuple[str, Budget]], now: datetime
) -> dict[str, Standing]:
    asked = [Asked(subject, budget, budget.span(now)) for subject, budget in held]
    counted = await count(connection, kind, asked)
    return {
        one.budget.id: Standing(
            one.budget,
            min(sum(counted[one.budget.id].values()), _MOST) if counted is not None else None,
            max(one.span.since, one.budget.created_at),
            one.span.until,
            now,
            one.budget.carried_into(one.span),
            counted[one.budget.id] if counted is not None and one.budget.window_s is not None else {},
        )
        for one in asked
    }


async def count(
    connection: AsyncConnection, kind: SubjectKind, asked: Sequence[Asked]
) -> Mapping[str, Mapping[int, int]] | None:
    """Budget → tokens or micro-units, of a window by the step, else under 0. None when it would take too long."""
    given: dict[str, Sequence[object]] = {
        "ids": [one.budget.id for one in asked],
        "subjects": [one.subject_id for one in asked],
        "since": [max(one.span.since, one.budget.created_at) for one in asked],
        "until": [one.span.until for one in asked],
        "step_us": [_step_us(one.budget) for one in asked],
        "money": [one.budget.unit is BudgetUnit.MONEY for one in asked],
    }
    counted: dict[str, dict[int, int]] = {one.budget.id: {} for one in asked}
    try:
        async with connection.begin_nested():
            await connection.execute(text(f"SET LOCAL statement_timeout = {round(COUNT_S * 1000)}"))
            for row in await connection.execute(text(_COUNT.format_map(_WHOSE[kind])), given):
                if row.amount:
                    counted[row.id][row.step] = min(int(row.amount), _MOST)
            await connection.execute(text("SET LOCAL statement_timeout = DEFAULT"))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _CANCELLED:
            raise
        log.warning(
            "spending of budgets not counted in time",
            extra={"action": "spending_slow", "of": kind.value, "budgets": len(asked)},
        )
        return None
    return counted


def _step_us(budget: Budget) -> int | None:
    return None if budget.window_s is None else step_of(budget.window_s) // timedelta(microseconds=1)
