"""Whose tokens each backend read and wrote in each hour, by the ledger."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, DateTime, cast, func, select, text
from sqlalchemy.exc import DBAPIError

from forebay.database import Database
from forebay.errors import NotPossible
from forebay_admin.fleet.energy import Hour
from forebay_admin.tables import groups
from forebay_admin.tables import usage_ledger as ledger

_LONGEST_S = 8
_CANCELLED = "57014"


async def tokens_by_hour(
    database: Database, since: datetime, until: datetime, *, by_group: bool
) -> dict[Hour, dict[str, int]]:
    """By model, or by group. A request counts in the hour in which it began. Raises NotPossible for more rows than
    can be counted in a few seconds, and Unavailable."""
    name: ColumnElement[str] = func.coalesce(groups.c.name, ledger.c.group_id) if by_group else ledger.c.model
    hour = cast(func.date_trunc("hour", ledger.c.started_at, "UTC"), DateTime(timezone=True))
    whose, at = name.label("whose"), hour.label("at")
    statement = (
        select(ledger.c.backend_id, at, whose, func.sum(ledger.c.prompt_tokens + ledger.c.completion_tokens).label("n"))
        .select_from(ledger.outerjoin(groups, groups.c.id == ledger.c.group_id) if by_group else ledger)
        .where(
            # The day lets Postgres leave out partitions. It comes from the ledger id, which is minted after the start.
            ledger.c.day >= since.date() - timedelta(days=1),
            ledger.c.day <= until.date() + timedelta(days=1),
            ledger.c.started_at >= since,
            ledger.c.started_at < until,
            ledger.c.backend_id != "",
        )
        .group_by(ledger.c.backend_id, at, whose)
    )
    found: dict[Hour, dict[str, int]] = {}
    try:
        async with database.reading() as connection:
            await connection.execute(text(f"SET LOCAL statement_timeout = '{_LONGEST_S}s'"))
            for row in await connection.execute(statement):
                found.setdefault((row.backend_id, round(row.at.timestamp())), {})[row.whose] = int(row.n)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _CANCELLED:
            raise NotPossible(
                f"The ledger of that time is too long to be counted in {_LONGEST_S} s: ask for a shorter time."
            ) from error
        raise
    return found
