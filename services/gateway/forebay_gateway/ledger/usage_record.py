"""Between the gateway's own accounting and the UsageRecord that travels to the ledger."""

from __future__ import annotations

from forebay.clock import micros
from forebay.wire.v1 import types_pb2, usage_pb2
from forebay_gateway.accounting import Entry, Outcome, Usage, UsageSource
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


def usage_to_wire(usage: Usage) -> types_pb2.TokenUsage:
    return types_pb2.TokenUsage(
        prompt_tokens=usage.prompt,
        cached_prompt_tokens=usage.cached_prompt,
        completion_tokens=usage.completion,
        source=_SOURCES[usage.source],
    )


class RecordForm:
    """What all records of one gateway process have in common."""

    def __init__(self, gateway: str, generation: int) -> None:
        self._gateway = gateway
        self._generation = generation

    def write(self, entry: Entry) -> bytes:
        """A serialized UsageRecord; without an outcome it is the opening one."""
        record = usage_pb2.UsageRecord(
            ledger_id=entry.ledger_id,
            request_id=entry.request_id,
            gateway=self._gateway,
            generation=self._generation,
            key_id=entry.key_id,
            user_id=entry.user_id,
            group_id=entry.group_id,
            pool=entry.pool,
            model_requested=entry.model_requested,
            model=entry.model,
            backend_id=entry.backend_id,
            dialect="openai",
            route=entry.route,
            stream=entry.stream,
            width=entry.width,
            outcome=OUTCOMES[entry.outcome] if entry.outcome else types_pb2.OUTCOME_UNSPECIFIED,
            reason=entry.reason,
            http_status=entry.http_status,
            started_at_us=micros(entry.started_at),
            queue_ms=entry.queue_ms,
            ttft_ms=entry.ttft_ms,
            duration_ms=entry.duration_ms,
            usage=usage_to_wire(entry.usage),
            attempts=entry.attempts,
            images=entry.width if entry.outcome is Outcome.FINISHED and entry.route in _PICTURES else None,
            audio_ms=entry.audio_ms,
        )
        return record.SerializeToString()


def as_lost(opened: bytes) -> bytes:
    """The record of a request whose gateway died before it could settle, from its opening."""
    record = usage_pb2.UsageRecord.FromString(opened)
    record.outcome = types_pb2.OUTCOME_GATEWAY_LOST
    record.reason = ""
    return record.SerializeToString()


def batch(records: list[bytes]) -> bytes:
    """A UsageBatch from serialized records."""
    whole = usage_pb2.UsageBatch()
    for record in records:
        whole.records.add().ParseFromString(record)
    return whole.SerializeToString()
