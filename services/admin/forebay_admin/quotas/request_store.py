"""Requests for more in Postgres. Each function works on the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound
from forebay_admin.quotas.quota_requests import QuotaRequest, RequestState
from forebay_admin.tables import quota_requests, users

_REQUEST = select(quota_requests, users.c.name.label("user_name")).join_from(
    quota_requests, users, quota_requests.c.user_id == users.c.id
)
MOST = 1000


async def add_request(connection: AsyncConnection, request: QuotaRequest) -> None:
    await connection.execute(
        insert(quota_requests).values(
            id=request.id,
            user_id=request.user_id,
            wish=dict(request.wish),
            reason=request.reason,
            state=request.state.value,
            created_at=request.created_at,
            decided_by="",
            answer="",
        )
    )


async def keep_decision(connection: AsyncConnection, request: QuotaRequest) -> None:
    await connection.execute(
        update(quota_requests)
        .where(quota_requests.c.id == request.id)
        .values(
            state=request.state.value,
            decided_at=request.decided_at,
            decided_by=request.decided_by,
            answer=request.answer,
        )
    )


async def request_with_id(connection: AsyncConnection, request_id: str) -> QuotaRequest:
    """Raises NotFound."""
    row = (await connection.execute(_REQUEST.where(quota_requests.c.id == request_id))).first()
    if row is None:
        raise NotFound(f"There is no request {request_id[:64]}; `forebay quota requests` shows those that there are.")
    return _request(row)


async def count_open(connection: AsyncConnection, user_id: str) -> int:
    query = select(func.count()).where(
        quota_requests.c.user_id == user_id, quota_requests.c.state == RequestState.OPEN.value
    )
    return int(await connection.scalar(query) or 0)


async def list_requests(connection: AsyncConnection, *, user_id: str, include_decided: bool) -> Sequence[QuotaRequest]:
    """The newest MOST of them, the newest first; of one user, or of all."""
    query = _REQUEST.order_by(quota_requests.c.created_at.desc(), quota_requests.c.id).limit(MOST)
    if user_id:
        query = query.where(quota_requests.c.user_id == user_id)
    if not include_decided:
        query = query.where(quota_requests.c.state == RequestState.OPEN.value)
    return [_request(row) for row in await connection.execute(query)]


def _request(row: Any) -> QuotaRequest:
    return QuotaRequest(
        row.id,
        row.user_id,
        row.user_name,
        row.wish,
        row.reason,
        row.created_at,
        RequestState(row.state),
        row.decided_at,
        row.decided_by,
        row.answer,
    )
