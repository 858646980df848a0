"""Between the gateway's own accounting and the UsageRecord that travels to the ledger."""

from __future__ import annotations

from forebay.clock import micros
from forebay.wire.v1 import types_pb2, usage_pb2
from forebay_gateway.accounting import NOTHING_USED, Entry, Outcome, Usage, UsageSource
from forebay_gateway.canonical.forms import IMAGE, IMAGE_EDIT

OUTCOMES = {
    Outcome.FINISHED: types_pb2.OUTCOME_FINISHED,
    Outcome.CANCELLED: types_pb2.OUTCOME_CANCELLED,
    Outcome.FAILED: types_pb2.OUTCOME_FAILED,
    Outcome.REFUSED: types_pb2.OUTCOME_REFUSED,
    Outcome.GATEWAY_LOST: types_pb2.OUTCOME_GATEWAY_LOST,
}
_SOURCES = {
    UsageSource.ENGINE: types_pb2.USAGE_SOURCE_ENGINE,
    UsageSource.COUNTED: types_pb2.USAGE_SOURCE_COUNTED,
    UsageSource.ESTIMATED: types_pb2.USAGE_SOURCE_ESTIMATED,
}

_PICTURES = frozenset({IMAGE.path, IMAGE_EDIT.path})
"""Whose requests take a slot for each picture."""


def fill_usage(wire: types_pb2.TokenUsage, usage: Usage) -> None:
    wire.prompt_tokens = usage.prompt
    wire.cached_prompt_tokens = usage.cached_prompt
    wire.completion_tokens = usage.completion
    wire.source = _SOURCES[usage.source]


def _nothing_yet() -> bytes:
    record = usage_pb2.UsageRecord()
    fill_usage(record.usage, NOTHING_USED)
    return record.SerializeToString()


_NOTHING_YET = _nothing_yet()
_MOST_KNOWN = 1024
_TAG_OF_RECORDS = 1 << 3 | 2  # in a UsageBatch: its field 1, with a length


class RecordForm:
    """What all records of one gateway process have in common, and the many of one caller for one model.

    A record is written in parts, one after the other, which is one message by the rules of protobuf: the first is the
    same again and again, and is remembered; the second is the same in all records of a request."""

    def __init__(self, gateway: str, generation: int) -> None:
        self._gateway = gateway
        self._generation = generation
        self._known: dict[tuple[str | int, ...], bytes] = {}

    def write(self, entry: Entry, naming: bytes = b"") -> bytes:
        """A serialized UsageRecord; without an outcome it is the opening one. `naming`: what `naming` gave for it."""
        place = (
            entry.key_id,
            entry.user_id,
            entry.group_id,
            entry.pool,
            entry.model_requested,
            entry.model,
            entry.route,
            entry.stream,
            entry.width,
        )
        usual = self._known.get(place) or self._learn(place, entry)
        so_far = _NOTHING_YET if entry.outcome is None and entry.usage is NOTHING_USED else _so_far(entry)
        return usual + (naming or self.naming(entry)) + so_far

    def naming(self, entry: Entry) -> bytes:
        """Which request it is: a part of all its records."""
        record = usage_pb2.UsageRecord()  # filled field by field, which costs half of what its constructor does
        record.ledger_id = entry.ledger_id
        record.request_id = entry.request_id
        record.started_at_us = micros(entry.started_at)
        return record.SerializeToString()

    def _learn(self, place: tuple[str | int, ...], entry: Entry) -> bytes:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        known = self._known[place] = usage_pb2.UsageRecord(
            gateway=self._gateway,
            generation=self._generation,
            key_id=entry.key_id,
            user_id=entry.user_id,
            group_id=entry.group_id,
            pool=entry.pool,
            model_requested=entry.model_requested,
            model=entry.model,
            dialect="openai",
            route=entry.route,
            stream=entry.stream,
            width=entry.width,
        ).SerializeToString()
        return known


def _so_far(entry: Entry) -> bytes:
    """What became of it."""
    record = usage_pb2.UsageRecord()
    fill_usage(record.usage, entry.usage)
    outcome = entry.outcome
    if outcome is None:
        return record.SerializeToString()
    record.backend_id = entry.backend_id
    record.outcome = OUTCOMES[outcome]
    record.reason = entry.reason
    record.http_status = entry.http_status
    record.queue_ms = entry.queue_ms
    record.duration_ms = entry.duration_ms
    record.attempts = entry.attempts
    if entry.ttft_ms is not None:
        record.ttft_ms = entry.ttft_ms
    if outcome is Outcome.FINISHED and entry.route in _PICTURES:
        record.images = entry.width
    if entry.audio_ms is not None:
        record.audio_ms = entry.audio_ms
    return record.SerializeToString()


def as_lost(opened: bytes) -> bytes:
    """The record of a request whose gateway died before it could settle, from its opening."""
    record = usage_pb2.UsageRecord.FromString(opened)
    record.outcome = types_pb2.OUTCOME_GATEWAY_LOST
    record.reason = ""
    return record.SerializeToString()


def batch(records: list[bytes]) -> bytes:
    """A UsageBatch from serialized records, which are not read for it: each is framed as the field that it becomes."""
    pieces: list[bytes] = []
    for record in records:
        pieces += _framed(len(record)), record
    return b"".join(pieces)


def _framed(length: int) -> bytes:
    """The field's tag, and the length as a varint (https://protobuf.dev/programming-guides/encoding/)."""
    head = bytearray((_TAG_OF_RECORDS,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)
