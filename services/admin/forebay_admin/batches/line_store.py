"""The lines of batches in Postgres. Each function works on the caller's transaction.

What is known of a line changes only from what the caller believes it to be, which its ledger id says: of two who believe to
have the same line, one finds that it is not theirs any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.ledger_id import day_of
from forebay_admin.batches.input_check import InputLine
from forebay_admin.batches.line import Answer
from forebay_admin.tables import SCHEMA, batch_lines, usage_ledger

_COLUMNS = ("batch_id", "line", "custom_id", "first_byte", "bytes", "state", "attempts", "engine_failures")
_line = batch_lines.c
_MOST_AT_ONCE, _MOST_AT_ONCE_BYTES = 500, 16 * 1024**2


@dataclass(frozen=True, slots=True)
class StartedLine:
    batch_id: str
    line: int
    ledger_id: bytes
    first_byte: int
    size_bytes: int
    engine_failures: int


@dataclass(frozen=True, slots=True)
class LineEnd:
    """A line as it stands when its batch ends."""

    line: int
    custom_id: str
    ledger_id: bytes | None
    outcome: Answer | tuple[str, str] | None
    """An answer, or an error's code and message; None when there is neither."""


@dataclass(frozen=True, slots=True)
class LedgerWord:
    outcome: str
    recorded_at: datetime


async def add_lines(connection: AsyncConnection, batch_id: str, lines: Sequence[InputLine]) -> None:
    rows = [(batch_id, one.line, one.custom_id, one.first_byte, one.size_bytes, "waiting", 0, 0) for one in lines]
    driver: Any = (await connection.get_raw_connection()).driver_connection
    await driver.copy_records_to_table("batch_lines", schema_name=SCHEMA, columns=_COLUMNS, records=rows)


async def start_line(connection: AsyncConnection, batch_id: str, ledger_id: bytes) -> StartedLine | None:
    """One that waits, those that were tried least first. None when none waits."""
    next_one = (
        select(_line.line)
        .where(_line.batch_id == batch_id, _line.state == "waiting")
        .order_by(_line.attempts, _line.line)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = (
        await connection.execute(
            update(batch_lines)
            .where(_line.batch_id == batch_id, _line.line == next_one.scalar_subquery())
            .values(state="started", ledger_id=UUID(bytes=ledger_id), attempts=_line.attempts + 1)
            .returning(_line.line, _line.first_byte, _line.bytes, _line.engine_failures)
        )
    ).first()
    if row is None:
        return None
    return StartedLine(batch_id, row.line, ledger_id, row.first_byte, row.bytes, row.engine_failures)


async def line_of(connection: AsyncConnection, batch_id: str, ledger_id: bytes) -> StartedLine | None:
    """That was started under this id."""
    started = await started_lines(connection, batch_id)
    return next((line for line in started if line.ledger_id == ledger_id), None)


async def finish_line(connection: AsyncConnection, line: StartedLine, outcome: Answer | tuple[str, str]) -> bool:
    """False when it is not ours any more. What was committed already is found as it is."""
    if isinstance(outcome, Answer):
        told: dict[str, Any] = {
            "status_code": outcome.status,
            "request_id": outcome.request_id,
            "answer": outcome.body,
        }
    else:
        told = {"error_code": outcome[0], "error_message": outcome[1]}
    return await _change(connection, line, state="done", **told)


async def let_line_go(connection: AsyncConnection, line: StartedLine, *, engine_failed: bool = False) -> bool:
    """It waits for another try. False when it is not ours any more."""
    return await _change(
        connection,
        line,
        state="waiting",
        ledger_id=None,
        engine_failures=line.engine_failures + engine_failed,
    )


async def started_lines(connection: AsyncConnection, batch_id: str) -> list[StartedLine]:
    rows = await connection.execute(
        select(_line.line, _line.ledger_id, _line.first_byte, _line.bytes, _line.engine_failures)
        .where(_line.batch_id == batch_id, _line.state == "started")
        .order_by(_line.line)
    )
    return [
        StartedLine(batch_id, row.line, row.ledger_id.bytes, row.first_byte, row.bytes, row.engine_failures)
        for row in rows
    ]


async def has_open_lines(connection: AsyncConnection, batch_id: str) -> bool:
    """Any that is not done."""
    return bool(await connection.scalar(select(exists().where(_line.batch_id == batch_id, _line.state != "done"))))


async def ledger_words(connection: AsyncConnection, ledger_ids: Sequence[bytes]) -> dict[bytes, LedgerWord]:
    """Of those that have a row."""
    ledger = usage_ledger.c
    # Day by day: with the days as constants, Postgres looks into those partitions alone.
    by_day = [
        (ledger.day == day) & ledger.ledger_id.in_([UUID(bytes=one) for one in ledger_ids if day_of(one) == day])
        for day in sorted({day_of(one) for one in ledger_ids})
    ]
    if not by_day:
        return {}
    rows = await connection.execute(select(ledger.ledger_id, ledger.outcome, ledger.recorded_at).where(or_(*by_day)))
    return {row.ledger_id.bytes: LedgerWord(row.outcome, row.recorded_at) for row in rows}


async def line_ends(connection: AsyncConnection, batch_id: str, after: int) -> list[LineEnd]:
    """Some, in the order of the input, from the one after line `after` on; none when there are no more."""
    sizes = await connection.execute(
        select(_line.line, func.coalesce(func.octet_length(_line.answer), 0).label("size"))
        .where(_line.batch_id == batch_id, _line.line > after)
        .order_by(_line.line)
        .limit(_MOST_AT_ONCE)
    )
    last = _last_that_fits(sizes.all())
    rows = await connection.execute(
        select(
            _line.line,
            _line.custom_id,
            _line.ledger_id,
            _line.state,
            _line.status_code,
            _line.request_id,
            _line.answer,
            _line.error_code,
            _line.error_message,
        )
        .where(_line.batch_id == batch_id, _line.line.between(after + 1, last))
        .order_by(_line.line)
    )
    return [
        LineEnd(row.line, row.custom_id, row.ledger_id.bytes if row.ledger_id is not None else None, _outcome(row))
        for row in rows
    ]


async def _change(connection: AsyncConnection, line: StartedLine, **values: Any) -> bool:
    changed = await connection.execute(
        update(batch_lines)
        .where(
            tuple_(_line.batch_id, _line.line) == (line.batch_id, line.line),
            _line.state == "started",
            _line.ledger_id == UUID(bytes=line.ledger_id),
        )
        .values(**values)
    )
    return changed.rowcount == 1


def _last_that_fits(sizes: Sequence[Any]) -> int:
    """The last line up to which answers are held together; 0 when there is none."""
    last = held = 0
    for row in sizes:
        held += row.size
        if last and held > _MOST_AT_ONCE_BYTES:
            break
        last = row.line
    return last


def _outcome(row: Any) -> Answer | tuple[str, str] | None:
    if row.status_code is not None:
        return Answer(row.status_code, row.request_id, row.answer)
    return (row.error_code, row.error_message) if row.error_code is not None else None
