"""What the ledger says was spent of budgets in their periods. The scheduler counts for itself; this is what it starts from
where it has no count of its own, and what people are shown.

Money is what the rows cost when they were entered, and for rows that say nothing of their cost what their tokens would at
today's prices, rounded once a row. A group's is that of all groups within it, each request
counted for the group that its user was in. A budget counts nothing from before it was made."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.quotas.periods import span_of
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
        SELECT id, {subjects} AS subjects, since, money FROM unnest(
            CAST(:ids AS text[]), CAST(:subjects AS text[]), CAST(:since AS timestamptz[]), CAST(:money AS boolean[])
        ) AS asked (id, subject, since, money)
    )
    SELECT wanted.id, spent.amount
    FROM wanted LEFT JOIN LATERAL (
        SELECT CASE
            WHEN NOT wanted.money THEN sum(used.prompt_tokens) + sum(used.completion_tokens)
            ELSE sum(CASE
                WHEN used.cost_micros IS NOT NULL THEN used.cost_micros
                WHEN wanted.money AND used.unbilled IS NULL THEN round((
                    greatest(used.prompt_tokens - used.cached_prompt_tokens, 0)::numeric * terms.prompt_micros
                    + used.cached_prompt_tokens::numeric * terms.cached_prompt_micros
                    + used.completion_tokens::numeric * terms.completion_micros
                ) / 1000000) END)
            END AS amount
        FROM admin.usage_ledger AS used LEFT JOIN admin.model_terms AS terms ON terms.model = used.model
        WHERE used.{column} = ANY (wanted.subjects) AND used.started_at >= wanted.since
            -- Lets Postgres leave out partitions; the ledger id, which gives the day, is minted a moment after the start.
            AND used.day >= (wanted.since AT TIME ZONE 'UTC')::date - 1
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
    SubjectKind.USER: {"column": "user_id", "subjects": _ITSELF},
    SubjectKind.KEY: {"column": "key_id", "subjects": _ITSELF},
    SubjectKind.GROUP: {"column": "group_id", "subjects": _WITHIN},
}

Budgets = Mapping[tuple[SubjectKind, str], Sequence[Budget]]


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
    spans = {budget.id: span_of(budget.period, budget.time_zone, now) for _, budget in held}
    since = {budget.id: max(spans[budget.id].since, budget.created_at) for _, budget in held}
    asked: dict[str, Sequence[object]] = {
        "ids": [budget.id for _, budget in held],
        "subjects": [subject for subject, _ in held],
        "since": [since[budget.id] for _, budget in held],
        "money": [budget.unit is BudgetUnit.MONEY for _, budget in held],
    }
    counted = await _count(connection, kind, asked)
    return {
        budget.id: Standing(
            budget,
            counted.get(budget.id, 0) if counted is not None else None,
            since[budget.id],
            spans[budget.id].until,
            now,
        )
        for _, budget in held
    }


async def _count(
    connection: AsyncConnection, kind: SubjectKind, asked: Mapping[str, Sequence[object]]
) -> dict[str, int] | None:
    """Budget → tokens or micro-units. None when it would take too long."""
    try:
        async with connection.begin_nested():
            await connection.execute(text(f"SET LOCAL statement_timeout = {round(COUNT_S * 1000)}"))
            rows = await connection.execute(text(_COUNT.format_map(_WHOSE[kind])), asked)
            counted = {row.id: min(int(row.amount or 0), _MOST) for row in rows}
            await connection.execute(text("SET LOCAL statement_timeout = DEFAULT"))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _CANCELLED:
            raise
        log.warning(
            "spending of budgets not counted in time",
            extra={"action": "spending_slow", "of": kind.value, "budgets": len(asked["ids"])},
        )
        return None
    return counted
