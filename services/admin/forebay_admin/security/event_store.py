"""Security events in Postgres: a partition for each day, dropped whole. Each function works on the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, cast, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import INET, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.ledger.partitions import Length, Partitioned
from forebay_admin.security.events import SecurityEvent
from forebay_admin.security.tables import security_events

EVENTS = Partitioned("security_events", Length.DAY)

_at = security_events.c


@dataclass(frozen=True, slots=True)
class Sought:
    """Empty and None: any."""

    since: datetime | None = None
    until: datetime | None = None
    kind: str = ""
    network: str = ""
    """In which the address lies."""
    key_id: str = ""
    user: str = ""
    before: tuple[datetime, UUID] | None = None
    """Only older ones than that."""


async def enter(connection: AsyncConnection, events: Sequence[SecurityEvent]) -> Sequence[SecurityEvent]:
    """Those that were new: what comes again is there already. Their days have partitions."""
    if not events:
        return ()
    rows = [
        {
            "at": event.at,
            "id": event.id,
            "last_at": event.last_at,
            "kind": event.kind,
            "count": event.count,
            "source": event.source,
            "address": event.address,
            "key_id": event.key_id,
            "user": event.user,
            "reason": event.reason,
            "detail": event.detail,
        }
        for event in events
    ]
    taken = insert(security_events).values(rows).on_conflict_do_nothing().returning(_at.id)
    new = set((await connection.execute(taken)).scalars())
    return [event for event in events if event.id in new]


async def search(connection: AsyncConnection, sought: Sought, limit: int) -> Sequence[SecurityEvent]:
    """The newest first."""
    query: Select[Any] = select(security_events)
    for column, value in ((_at.kind, sought.kind), (_at.key_id, sought.key_id), (_at.user, sought.user)):
        if value:
            query = query.where(column == value)
    if sought.since is not None:
        query = query.where(_at.at >= sought.since)
    if sought.until is not None:
        query = query.where(_at.at < sought.until)
    if sought.network:
        address = func.nullif(_at.address, "").cast(INET)
        query = query.where(address.op("<<=")(cast(literal(sought.network), INET)))
    if sought.before is not None:
        query = query.where(tuple_(_at.at, _at.id) < sought.before)
    rows = await connection.execute(query.order_by(_at.at.desc(), _at.id.desc()).limit(limit))
    return [
        SecurityEvent(
            row.kind,
            row.at,
            row.last_at,
            row.count,
            row.source,
            row.address,
            row.key_id,
            row.user,
            row.reason,
            row.detail,
            row.id,
        )
        for row in rows
    ]
