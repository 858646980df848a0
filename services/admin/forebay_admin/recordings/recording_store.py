"""Recordings in Postgres: a partition for each day, found by their words, dropped whole or with their user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, func, or_, select, text, tuple_
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database
from forebay.errors import NotFound
from forebay_admin.ledger.partitions import Length, Partitioned, make_partitions
from forebay_admin.recordings.rows import RecordingRow
from forebay_admin.tables import SCHEMA, groups, recordings, users

RECORDINGS = Partitioned("recordings", Length.DAY)
AHEAD = 2

_COLUMNS = RecordingRow._fields
_INSERT = text(
    f"INSERT INTO {SCHEMA}.recordings ({', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join(f':{name}' for name in _COLUMNS[:-1])}, to_tsvector('simple', :words)) ON CONFLICT DO NOTHING"
)
_at = recordings.c
_TOLD = (
    *(column for column in recordings.c if column.name not in ("request", "answer", "words")),
    users.c.name.label("user_name"),
    groups.c.name.label("group_name"),
)
_FROM = recordings.outerjoin(users, users.c.id == _at.user_id).outerjoin(groups, groups.c.id == _at.group_id)


@dataclass(frozen=True, slots=True)
class Sought:
    """Empty and None: any."""

    text: str = ""
    since: datetime | None = None
    until: datetime | None = None
    user_id: str = ""
    key_id: str = ""
    model: str = ""
    before: tuple[datetime, UUID] | None = None
    """Only older ones than that."""


class RecordingStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._days: set[date] = set()

    async def prepare_days(self, today: date) -> None:
        """Raises Unavailable."""
        await self._ensure({today + timedelta(days=days) for days in range(-1, AHEAD + 1)})

    async def write(self, rows: Sequence[RecordingRow]) -> int:
        """Those that were new; what comes again is there already. Raises Unavailable."""
        if not rows:
            return 0
        await self._ensure({row.at.date() for row in rows})
        async with self._database.writing() as connection:
            # A partition can be dropped between its making and now.
            await make_partitions(connection, RECORDINGS, {row.at.date() for row in rows})
            before = await connection.scalar(select(func.count()).select_from(recordings).where(_ids(rows))) or 0
            await connection.execute(_INSERT, [row._asdict() for row in rows])
        return len(rows) - before

    async def _ensure(self, days: set[date]) -> None:
        if missing := days - self._days:
            async with self._database.writing() as connection:
                await make_partitions(connection, RECORDINGS, missing)
            self._days |= missing


async def search(connection: AsyncConnection, sought: Sought, limit: int) -> Sequence[Row[Any]]:
    """The newest first, without what they say."""
    query: Select[Any] = select(*_TOLD).select_from(_FROM)
    if sought.text:
        query = query.where(_at.words.op("@@")(func.websearch_to_tsquery("simple", sought.text)))
    if sought.since is not None:
        query = query.where(_at.at >= sought.since)
    if sought.until is not None:
        query = query.where(_at.at < sought.until)
    if sought.user_id:
        query = query.where(_at.user_id == sought.user_id)
    if sought.key_id:
        query = query.where(_at.key_id == sought.key_id)
    if sought.model:
        query = query.where(or_(_at.model == sought.model, _at.model_requested == sought.model))
    if sought.before is not None:
        query = query.where(tuple_(_at.at, _at.ledger_id) < sought.before)
    found = await connection.execute(query.order_by(_at.at.desc(), _at.ledger_id.desc()).limit(limit))
    return list(found)


async def find(connection: AsyncConnection, name: str) -> Row[Any]:
    """With what it says: by the request's id, the newest of that name, or by the ledger's. Raises NotFound."""
    query: Select[Any] = select(*_TOLD, _at.request, _at.answer).select_from(_FROM).where(_named(name))
    row: Row[Any] | None = (await connection.execute(query.order_by(_at.at.desc()).limit(1))).first()
    if row is None:
        raise NotFound(f"Nothing is kept of a request {name[:80]}.")
    return row


async def delete_of(connection: AsyncConnection, *, user_id: str = "", name: str = "") -> int:
    """How many there were."""
    where = _at.user_id == user_id if user_id else _named(name)
    return (await connection.execute(delete(recordings).where(where))).rowcount


def _named(name: str) -> Any:
    try:
        return or_(_at.request_id == name, _at.ledger_id == UUID(hex=name))
    except ValueError:
        return _at.request_id == name


def _ids(rows: Sequence[RecordingRow]) -> Any:
    return tuple_(_at.at, _at.ledger_id).in_([(row.at, row.ledger_id) for row in rows])
