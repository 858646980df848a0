"""From a message of a gateway to rows that can be kept: checked, unpacked, redacted, packed again. Pure; on a thread."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from google.protobuf.message import DecodeError

from forebay.wire.v1 import key_terms_pb2, recordings_pb2, types_pb2
from forebay_admin.keys.key_terms import AuditPolicy
from forebay_admin.recordings.redaction import Hook, Redactor
from forebay_admin.recordings.wording import wording

log = logging.getLogger(__name__)

_LONGEST_BODY = 512 * 1024
_LONGEST_WORDS = 256 * 1024
"""A search index takes a megabyte of a text at most."""
_POLICIES = {
    key_terms_pb2.AUDIT_POLICY_METADATA: AuditPolicy.METADATA,
    key_terms_pb2.AUDIT_POLICY_FULL: AuditPolicy.FULL,
    key_terms_pb2.AUDIT_POLICY_SAMPLED: AuditPolicy.SAMPLED,
}
_WITHHELD = "(not kept: a redaction failed)"


class RecordingRow(NamedTuple):
    """A row of the table, but for `words`, which becomes what is searched."""

    at: datetime
    ledger_id: UUID
    request_id: str
    gateway: str
    key_id: str
    user_id: str
    group_id: str
    model_requested: str
    model: str
    route: str
    stream: bool
    policy: str
    outcome: str
    reason: str
    http_status: int
    duration_ms: int
    address: str
    request_bytes: int
    answer_bytes: int
    request_cut: bool
    answer_cut: bool
    request: bytes | None
    answer: bytes | None
    redacted: int
    words: str


@dataclass(frozen=True, slots=True)
class Parsed:
    rows: Sequence[RecordingRow]
    refused: Sequence[str]
    """Why others cannot be kept. Without what they say."""


def parse_batch(payload: bytes, hooks: Sequence[Hook] = ()) -> Parsed:
    try:
        batch = recordings_pb2.RecordingBatch.FromString(payload)
    except DecodeError:
        return Parsed((), ("a message is no RecordingBatch",))
    rows, refused = [], []
    for told in batch.recordings:
        try:
            rows.append(_row(told, hooks))
        except (ValueError, OverflowError, OSError, zlib.error) as error:
            refused.append(f"the recording of {told.request_id[:80]!r} is not one: {type(error).__name__}")
    return Parsed(rows, refused)


def unpack(packed: bytes | None) -> str:
    return _unpacked(packed).decode() if packed else ""


def _row(told: recordings_pb2.Recording, hooks: Sequence[Hook]) -> RecordingRow:
    redactor = Redactor(hooks)
    kept: list[bytes | None] = []
    words: list[str] = []
    for packed in (told.request, told.answer):
        try:
            found = wording(_unpacked(packed), redactor) if packed else None
        except zlib.error:
            raise
        except Exception as error:  # a hook is not ours; what it could not look through nobody keeps
            # Its kind alone: what it says may hold the text.
            log.warning("a text withheld", extra={"action": "redaction_failed", "error": type(error).__name__})
            kept.append(zlib.compress(_WITHHELD.encode()))
            redactor.taken_out += 1
            continue
        kept.append(zlib.compress(found.kept.encode(errors="replace")) if found is not None and found.kept else None)
        words.append(found.words if found is not None else "")
    outcome = types_pb2.Outcome.Name(told.outcome).removeprefix("OUTCOME_").lower() if told.outcome else ""
    return RecordingRow(
        at=datetime.fromtimestamp(told.started_at_us / 1_000_000, UTC),
        ledger_id=UUID(bytes=told.ledger_id),
        request_id=_word(told.request_id),
        gateway=_word(told.gateway),
        key_id=_word(told.key_id),
        user_id=_word(told.user_id),
        group_id=_word(told.group_id),
        model_requested=_word(told.model_requested),
        model=_word(told.model),
        route=_word(told.route),
        stream=told.stream,
        policy=_POLICIES.get(told.policy, AuditPolicy.METADATA).value,
        outcome=outcome,
        reason=_word(told.reason),
        http_status=told.http_status % 1000,
        duration_ms=min(told.duration_ms, 2**62),
        address=_word(told.address),
        request_bytes=min(told.request_bytes, 2**62),
        answer_bytes=min(told.answer_bytes, 2**62),
        request_cut=told.request_cut,
        answer_cut=told.answer_cut,
        request=kept[0],
        answer=kept[1],
        redacted=redactor.taken_out,
        words="\n".join(text[:_LONGEST_WORDS] for text in words),
    )


def _word(text: str) -> str:
    return text.replace("\0", "")[:1024]


def _unpacked(packed: bytes) -> bytes:
    """Raises zlib.error, ValueError for what becomes too large."""
    unpacker = zlib.decompressobj()
    body = unpacker.decompress(packed, 4 * _LONGEST_BODY)
    if unpacker.unconsumed_tail:
        raise zlib.error("larger than any recording")
    return body
