"""Batches in Postgres. Each function works on the caller's transaction; what changes a batch locks its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Column, and_, delete, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound, NotPossible
from forebay_admin.batches.batch import (
    UNFINISHED,
    Batch,
    BatchError,
    Counts,
    Ending,
    Order,
    Status,
    may_become,
)
from forebay_admin.tables import batch_lines, batches, users

_UNFINISHED = [status.value for status in UNFINISHED]
_ENTERED: Mapping[Status, Column[Any]] = {
    status: batches.c[f"{status}_at"] for status in Status if status is not Status.VALIDATING
}
_DONE = batch_lines.c.state == "done"
_SUCCESS = and_(_DONE, batch_lines.c.status_code.between(200, 299))


async def add_batch(connection: AsyncConnection, batch: Batch, most_unfinished: int) -> None:
    """Raises NotFound (no such user), NotPossible (so many are unfinished already)."""
    order = batch.order
    user = select(users.c.id).where(users.c.id == order.user_id).with_for_update(key_share=True)
    if await connection.scalar(user) is None:
        raise NotFound(f"There is no user {order.user_id}.")
    unfinished = await connection.scalar(
        select(func.count()).where(batches.c.user_id == order.user_id, batches.c.status.in_(_UNFINISHED))
    )
    if (unfinished or 0) >= most_unfinished:
        raise NotPossible(
            f"{unfinished} of your batches have not ended, and {most_unfinished} are the most (batches_per_user): wait for "
            "one, or cancel one."
        )
    await connection.execute(
        insert(batches).values(
            id=batch.id,
            user_id=order.user_id,
            key_id=order.key_id,
            endpoint=order.endpoint,
            input_file_id=order.input_file_id,
            metadata=orjson.dumps(dict(order.metadata)).decode(),
            output_expires_s=order.output_expires_s,
            status=batch.status.value,
            errors="[]",
            created_at=batch.created_at,
            expires_at=batch.expires_at,
            total=0,
            completed=0,
            failed=0,
        )
    )


async def batch_at(connection: AsyncConnection, user_id: str, id: str) -> Batch:
    """Raises NotFound."""
    row = (await connection.execute(select(batches).where(batches.c.user_id == user_id, batches.c.id == id))).first()
    if row is None:
        raise _no_such(id)
    return _batch(row)


async def list_batches(
    connection: AsyncConnection, user_id: str, *, limit: int, after: str | None
) -> tuple[list[Batch], bool]:
    """The newest first, and whether there are more. Raises NotFound when what it begins after is gone."""
    key = (batches.c.created_at, batches.c.id)
    query = select(batches).where(batches.c.user_id == user_id)
    if after is not None:
        before = await batch_at(connection, user_id, after)
        query = query.where(tuple_(*key) < (before.created_at, before.id))
    rows = (await connection.execute(query.order_by(*(c.desc() for c in key)).limit(limit + 1))).all()
    return [_batch(row) for row in rows[:limit]], len(rows) > limit


async def unfinished_batches(connection: AsyncConnection) -> list[Batch]:
    """The oldest first."""
    rows = await connection.execute(
        select(batches).where(batches.c.status.in_(_UNFINISHED)).order_by(batches.c.created_at, batches.c.id)
    )
    return [_batch(row) for row in rows]


async def lock_batch(connection: AsyncConnection, id: str) -> Batch:
    """Until the transaction ends. Raises NotFound."""
    row = (await connection.execute(select(batches).where(batches.c.id == id).with_for_update())).first()
    if row is None:
        raise _no_such(id)
    return _batch(row)


async def enter(connection: AsyncConnection, batch: Batch, status: Status, now: datetime, **changed: Any) -> Batch:
    """`batch`: as it was locked. It as it is afterwards; `changed` are fields of Batch. Raises NotPossible when it cannot
    become that."""
    if not may_become(batch.status, status):
        raise NotPossible(f"The batch {batch.id} is {batch.status} and cannot become {status}.")
    after = replace(batch, status=status, entered_at={**batch.entered_at, status: now}, **changed)
    await connection.execute(
        update(batches)
        .where(batches.c.id == batch.id)
        .values(
            {
                batches.c.status: status.value,
                _ENTERED[status]: now,
                batches.c.ending: after.ending.value if after.ending is not None else None,
                batches.c.errors: orjson.dumps([_error_to_json(error) for error in after.errors]).decode(),
                batches.c.output_file_id: after.output_file_id,
                batches.c.error_file_id: after.error_file_id,
                batches.c.total: after.counts.total,
                batches.c.completed: after.counts.completed,
                batches.c.failed: after.counts.failed,
            }
        )
    )
    return after


async def counted(connection: AsyncConnection, id: str) -> Counts:
    """By what its lines are."""
    row = (
        await connection.execute(
            select(
                func.count().label("total"),
                func.count().filter(_SUCCESS).label("completed"),
                func.count().filter(_DONE).label("done"),
            ).where(batch_lines.c.batch_id == id)
        )
    ).one()
    return Counts(row.total, row.completed, row.done - row.completed)


async def tell_progress(connection: AsyncConnection, id: str) -> None:
    """Only while it is in progress: what was counted at the end stays."""
    counts = await counted(connection, id)
    await connection.execute(
        update(batches)
        .where(batches.c.id == id, batches.c.status == Status.IN_PROGRESS.value)
        .values(completed=counts.completed, failed=counts.failed)
    )


async def forget_lines(connection: AsyncConnection, id: str) -> None:
    await connection.execute(delete(batch_lines).where(batch_lines.c.batch_id == id))


async def remove_finished(connection: AsyncConnection, before: datetime, most: int) -> int:
    """Those that were made before then. How many there were."""
    old = (
        select(batches.c.id)
        .where(batches.c.created_at < before, batches.c.status.not_in(_UNFINISHED))
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    removed = await connection.execute(delete(batches).where(batches.c.id.in_(old.scalar_subquery())))
    return removed.rowcount


def _batch(row: Any) -> Batch:
    return Batch(
        id=row.id,
        order=Order(
            row.user_id,
            row.key_id,
            row.input_file_id,
            row.endpoint,
            orjson.loads(row.metadata),
            row.output_expires_s,
        ),
        status=Status(row.status),
        created_at=row.created_at,
        expires_at=row.expires_at,
        ending=Ending(row.ending) if row.ending is not None else None,
        errors=_errors(row.errors),
        entered_at={
            status: moment for status, column in _ENTERED.items() if (moment := row._mapping[column]) is not None
        },
        output_file_id=row.output_file_id,
        error_file_id=row.error_file_id,
        counts=Counts(row.total, row.completed, row.failed),
    )


def _errors(text: str) -> Sequence[BatchError]:
    return [BatchError(**told) for told in orjson.loads(text)]


def _error_to_json(error: BatchError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "line": error.line, "param": error.param}


def _no_such(id: str) -> NotFound:
    return NotFound(f"There is no batch {id}.")
