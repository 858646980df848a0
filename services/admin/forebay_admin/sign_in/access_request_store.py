"""Requests to be let in, in Postgres. Each function works on the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound
from forebay_admin.sign_in.access_requests import KEPT, AccessRequest, AccessState
from forebay_admin.sign_in.tables import access_requests as table

MOST = 1000


async def add_access_request(connection: AsyncConnection, request: AccessRequest) -> bool:
    """False when one of the same mail address is open already, which then stays as it is."""
    added = await connection.execute(
        insert(table)
        .values(
            id=request.id,
            name=request.name,
            mail=request.mail,
            reason=request.reason,
            address=request.address,
            state=request.state.value,
            created_at=request.created_at,
            decided_by="",
            answer="",
            user_name="",
        )
        .on_conflict_do_nothing()
        .returning(table.c.id)
    )
    return added.first() is not None


async def open_access_requests(connection: AsyncConnection, address: str) -> tuple[int, int]:
    """How many are open: in all, and of that address. Whoever asks at the same time waits for the caller's transaction."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('access_requests', 7))"))
    is_open = table.c.state == AccessState.OPEN.value
    query = select(func.count(), func.count().filter(table.c.address == address)).where(is_open)
    row: Any = (await connection.execute(query)).one()
    return int(row[0]), int(row[1])


async def forget_access_requests(connection: AsyncConnection, now: datetime) -> None:
    await connection.execute(delete(table).where(table.c.decided_at < now - KEPT))


async def keep_access_decision(connection: AsyncConnection, request: AccessRequest) -> None:
    await connection.execute(
        update(table)
        .where(table.c.id == request.id)
        .values(
            state=request.state.value,
            decided_at=request.decided_at,
            decided_by=request.decided_by,
            answer=request.answer,
            user_name=request.user_name,
        )
    )


async def access_request_with_id(connection: AsyncConnection, request_id: str) -> AccessRequest:
    """Nobody else decides it before the caller's transaction ends. Raises NotFound."""
    row = (await connection.execute(select(table).where(table.c.id == request_id).with_for_update())).first()
    if row is None:
        raise NotFound(f"There is no request {request_id[:64]}; `forebay user requests` shows those that there are.")
    return _request(row)


async def list_access_requests(connection: AsyncConnection, *, include_decided: bool) -> Sequence[AccessRequest]:
    """The newest MOST of them, the newest first."""
    query = select(table).order_by(table.c.created_at.desc(), table.c.id).limit(MOST)
    if not include_decided:
        query = query.where(table.c.state == AccessState.OPEN.value)
    return [_request(row) for row in await connection.execute(query)]


def _request(row: Any) -> AccessRequest:
    return AccessRequest(
        row.id,
        row.name,
        row.mail,
        row.reason,
        row.address,
        row.created_at,
        AccessState(row.state),
        row.decided_at,
        row.decided_by,
        row.answer,
        row.user_name,
    )
