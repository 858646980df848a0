"""Whose tokens each backend read and wrote in each hour, by the sums of the ledger."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from forebay.database import Database
from forebay.errors import NotPossible
from forebay_admin.fleet.energy import Hour
from forebay_admin.ledger.rollup_store import see_one_moment
from forebay_admin.ledger.usage_question import Question
from forebay_admin.ledger.usage_store import answer
from forebay_admin.ledger.usage_sums import Column
from forebay_admin.tables import groups

_LONGEST_S = 8
_CANCELLED = "57014"
_MOST = 2_000_000
_HOUR = timedelta(hours=1)


async def tokens_by_hour(
    database: Database, since: datetime, until: datetime, *, by_group: bool
) -> dict[Hour, dict[str, int]]:
    """By model, or by group; both times are whole hours. A request counts in the hour in which it began. Raises NotPossible
    for more than can be added up in a few seconds, and Unavailable."""
    edges = [since + _HOUR * n for n in range((until - since) // _HOUR + 1)]
    question = Question(edges, (Column.BACKEND, Column.GROUP if by_group else Column.MODEL), limit=_MOST)
    try:
        async with database.reading() as connection:
            await see_one_moment(connection)
            await connection.execute(text(f"SET LOCAL statement_timeout = '{_LONGEST_S}s'"))
            lines = (await answer(connection, question)).lines
            names = {row.id: row.name for row in await connection.execute(select(groups.c.id, groups.c.name))}
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _CANCELLED:
            raise NotPossible(
                f"The usage of that time is too much to be added up in {_LONGEST_S} s: ask for a shorter time."
            ) from error
        raise
    found: dict[Hour, dict[str, int]] = {}
    for line in lines:
        backend, whose = line.whose
        if backend:
            name = names.get(whose, whose) if by_group else whose
            mine = found.setdefault((backend, round(edges[line.bucket].timestamp())), {})
            mine[name] = mine.get(name, 0) + line.sums.prompt_tokens + line.sums.completion_tokens
    return found
