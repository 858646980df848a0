"""Usage records as rows of the ledger. A record that cannot be one is poison, with the reason; it never stops the others.

Pure: what becomes of rows and poison is the ledger's business."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from google.protobuf.message import DecodeError

from forebay.ledger_id import day_of, time_of
from forebay.wire.v1 import types_pb2, usage_pb2

FUTURE_LIMIT = timedelta(days=2)
"""How far ahead of ours a gateway's clock may be: each day has a partition, and nonsense must not make thousands."""

OUTCOMES = {
    types_pb2.OUTCOME_FINISHED: "finished",
    types_pb2.OUTCOME_CANCELLED: "cancelled",
    types_pb2.OUTCOME_FAILED: "failed",
    types_pb2.OUTCOME_REFUSED: "refused",
    types_pb2.OUTCOME_GATEWAY_LOST: "gateway_lost",
}
SOURCES = {
    types_pb2.USAGE_SOURCE_UNSPECIFIED: "",
    types_pb2.USAGE_SOURCE_ENGINE: "engine",
    types_pb2.USAGE_SOURCE_COUNTED: "counted",
    types_pb2.USAGE_SOURCE_ESTIMATED: "estimated",
}
_OUTCOME_NUMBERS = {word: number for number, word in OUTCOMES.items()}
_SOURCE_NUMBERS = {word: number for number, word in SOURCES.items()}
_MOST = 2**63 - 1  # of a bigint
_MOST_SMALL = 2**31 - 1


class LedgerRow(NamedTuple):
    """In the order and with the names of the table's columns."""

    day: date
    ledger_id: UUID
    request_id: str
    gateway: str
    generation: int
    key_id: str
    user_id: str
    group_id: str
    pool: str
    model_requested: str
    model: str
    backend_id: str
    dialect: str
    route: str
    stream: bool
    width: int
    outcome: str
    reason: str
    http_status: int
    started_at: datetime
    queue_ms: int
    ttft_ms: int | None
    duration_ms: int
    prompt_tokens: int
    cached_prompt_tokens: int
    completion_tokens: int
    usage_source: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Poison:
    """What cannot be a row, kept as it came."""

    subject: str
    payload: bytes
    why: str


@dataclass(frozen=True, slots=True)
class Parsed:
    rows: Sequence[LedgerRow]
    poison: Sequence[Poison]


class _NotARow(Exception):
    """This record cannot be a row; the message says why."""


def parse_batch(subject: str, payload: bytes, now: datetime) -> Parsed:
    """The rows of one message of the bus."""
    try:
        batch = usage_pb2.UsageBatch.FromString(payload)
    except DecodeError as error:
        return Parsed((), (Poison(subject, payload, f"not a UsageBatch: {error}"),))
    rows: list[LedgerRow] = []
    poison: list[Poison] = []
    for record in batch.records:
        try:
            rows.append(_row(record, now))
        except _NotARow as error:
            poison.append(Poison(subject, record.SerializeToString(), str(error)))
    return Parsed(rows, poison)


def record_from(row: LedgerRow) -> usage_pb2.UsageRecord:
    """The record again, for an answer."""
    return usage_pb2.UsageRecord(
        ledger_id=row.ledger_id.bytes,
        request_id=row.request_id,
        gateway=row.gateway,
        generation=row.generation,
        key_id=row.key_id,
        user_id=row.user_id,
        group_id=row.group_id,
        pool=row.pool,
        model_requested=row.model_requested,
        model=row.model,
        backend_id=row.backend_id,
        dialect=row.dialect,
        route=row.route,
        stream=row.stream,
        width=row.width,
        outcome=_OUTCOME_NUMBERS[row.outcome],
        reason=row.reason,
        http_status=row.http_status,
        started_at_us=round(row.started_at.timestamp() * 1_000_000),
        queue_ms=row.queue_ms,
        ttft_ms=row.ttft_ms,
        duration_ms=row.duration_ms,
        usage=types_pb2.TokenUsage(
            prompt_tokens=row.prompt_tokens,
            cached_prompt_tokens=row.cached_prompt_tokens,
            completion_tokens=row.completion_tokens,
            source=_SOURCE_NUMBERS[row.usage_source],
        ),
        attempts=row.attempts,
    )


def _row(record: usage_pb2.UsageRecord, now: datetime) -> LedgerRow:
    usage = record.usage
    outcome, source = OUTCOMES.get(record.outcome), SOURCES.get(usage.source)
    if outcome is None:
        raise _NotARow(f"outcome {record.outcome} is not known")
    if source is None:
        raise _NotARow(f"usage source {usage.source} is not known")
    row = LedgerRow(
        day=_day(record.ledger_id, now),
        ledger_id=UUID(bytes=record.ledger_id),
        request_id=record.request_id,
        gateway=record.gateway,
        generation=record.generation,
        key_id=record.key_id,
        user_id=record.user_id,
        group_id=record.group_id,
        pool=record.pool,
        model_requested=record.model_requested,
        model=record.model,
        backend_id=record.backend_id,
        dialect=record.dialect,
        route=record.route,
        stream=record.stream,
        width=record.width,
        outcome=outcome,
        reason=record.reason,
        http_status=record.http_status,
        started_at=_moment(record.started_at_us),
        queue_ms=record.queue_ms,
        ttft_ms=record.ttft_ms if record.HasField("ttft_ms") else None,
        duration_ms=record.duration_ms,
        prompt_tokens=usage.prompt_tokens,
        cached_prompt_tokens=usage.cached_prompt_tokens,
        completion_tokens=usage.completion_tokens,
        usage_source=source,
        attempts=record.attempts,
    )
    for name, value in zip(LedgerRow._fields, row, strict=True):
        if isinstance(value, str) and "\0" in value:
            raise _NotARow(f"{name} holds a NUL character")
        if isinstance(value, int) and value > (_MOST_SMALL if name in ("http_status", "attempts") else _MOST):
            raise _NotARow(f"{name} is {value}, more than the ledger holds")
    return row


def _day(ledger_id: bytes, now: datetime) -> date:
    if len(ledger_id) != 16 or ledger_id[6] >> 4 != 7 or ledger_id[8] >> 6 != 2:
        raise _NotARow(f"ledger_id {ledger_id.hex()} is not a UUIDv7")
    if time_of(ledger_id) > (now + FUTURE_LIMIT).timestamp():
        raise _NotARow(f"ledger_id {ledger_id.hex()} was made more than {FUTURE_LIMIT.days} days from now")
    return day_of(ledger_id)


def _moment(us: int) -> datetime:
    try:
        return datetime.fromtimestamp(us / 1_000_000, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise _NotARow(f"started_at_us {us} is not a time") from error
