"""The rows of one request, by the label that its client knows or by its ledger id."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.ledger_id import day_of
from forebay_admin.ledger.usage_rows import LedgerRow
from forebay_admin.tables import usage_ledger as ledger

_A_DAY = timedelta(days=1)


async def rows_of_request(
    connection: AsyncConnection,
    request_id: str,
    ledger_id: UUID | None,
    since: datetime,
    user_id: str | None,
    limit: int,
) -> list[LedgerRow]:
    """Newest first. By its label from `since` on, since no index knows labels; by `ledger_id` whatever its age. `user_id`:
    of that user only; None: anybody's."""
    wanted = [
        (ledger.c.day >= since.date() - _A_DAY) & (ledger.c.started_at >= since) & (ledger.c.request_id == request_id)
    ]
    if ledger_id is not None and ledger_id.version == 7:
        wanted.append((ledger.c.day == day_of(ledger_id.bytes)) & (ledger.c.ledger_id == ledger_id))
    query = select(*(ledger.c[name] for name in LedgerRow._fields)).where(or_(*wanted))
    if user_id is not None:
        query = query.where(ledger.c.user_id == user_id)
    rows = await connection.execute(query.order_by(ledger.c.started_at.desc(), ledger.c.ledger_id).limit(limit))
    return [LedgerRow._make(row) for row in rows]
