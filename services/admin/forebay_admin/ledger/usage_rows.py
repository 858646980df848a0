"""Usage records as rows of the ledger. A record that cannot be one is poison, with the reason; it never stops the others.

Pure: what becomes of rows and poison is the ledger's business."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from asyncpg.pgproto.pgproto import UUID  # a uuid.UUID that the driver makes and writes at a tenth of the cost
from google.protobuf.message import DecodeError

from forebay.wire.v1 import types_pb2, usage_pb2
from forebay_admin.money.price_book import Bill, PriceBook

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
NOT_A_BATCH = "not a UsageBatch"
"""How the reason begins of what is no message of ours; all other poison is a single record."""
_DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 1000 * _DAY_MS
_FUTURE_MS = FUTURE_LIMIT // timedelta(milliseconds=1)


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
    images: int | None = None
    audio_ms: int | None = None
    cost_micros: int | None = None
    """By the price in force at its start. None with a reason is not charged; None without one is from before costs were
    kept."""
    price_version: int | None = None
    unbilled: str | None = None


_NO_BILL = Bill(None, None, None)


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


def parse_batch(subject: str, payload: bytes, now: datetime, prices: PriceBook | None = None) -> Parsed:
    """The rows of one message of the bus, with what each cost."""
    try:
        batch = usage_pb2.UsageBatch.FromString(payload)
    except DecodeError as error:
        return Parsed((), (Poison(subject, payload, f"{NOT_A_BATCH}: {error}"),))
    rows: list[LedgerRow] = []
    poison: list[Poison] = []
    now_ms = round(now.timestamp() * 1000)
    for record in batch.records:
        try:
            rows.append(_row(record, now_ms, prices))
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
        images=row.images,
        audio_ms=row.audio_ms,
        cost_micros=row.cost_micros,
        price_version=row.price_version,
        unbilled=row.unbilled,
    )


def _row(record: usage_pb2.UsageRecord, now_ms: int, prices: PriceBook | None) -> LedgerRow:
    """Each field of a message is asked for once and by its name: that is most of what a row costs."""
    ledger_id, usage, started_at_us = record.ledger_id, record.usage, record.started_at_us
    outcome, source = OUTCOMES.get(record.outcome), SOURCES.get(usage.source)
    if outcome is None:
        raise _NotARow(f"outcome {record.outcome} is not known")
    if source is None:
        raise _NotARow(f"usage source {usage.source} is not known")
    made_ms = _made_ms(ledger_id, now_ms)
    started_at = _moment(started_at_us)
    if abs(started_at_us - made_ms * 1000) > _DAY_US:
        raise _NotARow(f"it began at {started_at}, more than a day from when ledger_id {ledger_id.hex()} was made")
    key_id, model, width = record.key_id, record.model, record.width
    queue_ms, duration_ms = record.queue_ms, record.duration_ms
    ttft_ms = record.ttft_ms if record.HasField("ttft_ms") else None
    images = record.images if record.HasField("images") else None
    audio_ms = record.audio_ms if record.HasField("audio_ms") else None
    prompt, cached, completion = usage.prompt_tokens, usage.cached_prompt_tokens, usage.completion_tokens
    cost_micros, price_version, unbilled = (
        _NO_BILL
        if prices is None
        else prices.bill(
            model,
            started_at,
            outcome,
            key_id,
            ttft_ms,
            source,
            prompt,
            cached,
            completion,
            images,
            audio_ms,
            queue_ms,
            duration_ms,
            width,
        )
    )
    # In the order of its columns: names would double what it takes to make one.
    row = LedgerRow(
        _day(made_ms // _DAY_MS),
        UUID(ledger_id),
        record.request_id,
        record.gateway,
        record.generation,
        key_id,
        record.user_id,
        record.group_id,
        record.pool,
        record.model_requested,
        model,
        record.backend_id,
        record.dialect,
        record.route,
        record.stream,
        width,
        outcome,
        record.reason,
        record.http_status,
        started_at,
        queue_ms,
        ttft_ms,
        duration_ms,
        prompt,
        cached,
        completion,
        source,
        record.attempts,
        images,
        audio_ms,
        cost_micros,
        price_version,
        unbilled,
    )
    if not _fits(row):
        raise _NotARow(_what_does_not_fit(row))
    return row


def _fits(row: LedgerRow) -> bool:
    """In one look, since nearly all do. The other fields have 32 bits on the wire and 64 in the table, or are words of
    ours."""
    large = row.generation | row.duration_ms | row.prompt_tokens | row.cached_prompt_tokens | row.completion_tokens
    return (
        (large | (row.audio_ms or 0)) <= _MOST
        and (row.http_status | row.attempts) <= _MOST_SMALL
        and "\0" not in "".join((*row[2:4], *row[5:14], row.reason))
    )


def _what_does_not_fit(row: LedgerRow) -> str:
    for name, value in zip(LedgerRow._fields, row, strict=True):
        if isinstance(value, str) and "\0" in value:
            return f"{name} holds a NUL character"
        if isinstance(value, int) and value > (_MOST_SMALL if name in ("http_status", "attempts") else _MOST):
            return f"{name} is {value}, more than the ledger holds"
    raise AssertionError("it fits")


def _made_ms(ledger_id: bytes, now_ms: int) -> int:
    """When the id was made, in milliseconds since the epoch."""
    if len(ledger_id) != 16 or ledger_id[6] >> 4 != 7 or ledger_id[8] >> 6 != 2:
        raise _NotARow(f"ledger_id {ledger_id.hex()} is not a UUIDv7")
    made_ms = int.from_bytes(ledger_id[:6])
    if made_ms - now_ms > _FUTURE_MS:
        raise _NotARow(f"ledger_id {ledger_id.hex()} was made more than {FUTURE_LIMIT.days} days from now")
    return made_ms


@lru_cache(64)
def _day(days: int) -> date:
    return date(1970, 1, 1) + timedelta(days=days)


def _moment(us: int) -> datetime:
    try:
        return _EPOCH + timedelta(0, 0, us)
    except OverflowError as error:
        raise _NotARow(f"started_at_us {us} is not a time") from error
