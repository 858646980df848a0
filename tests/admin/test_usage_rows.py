"""Records become rows, and what cannot be one becomes poison with its reason; the others do not suffer."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from forebay.ledger_id import new_ledger_id
from forebay.wire.v1 import types_pb2, usage_pb2
from forebay_admin.ledger.usage_rows import parse_batch, record_from

NOW = datetime(2027, 1, 15, 23, 59, 59, 999_000, tzinfo=UTC)


def record(at: datetime = NOW, **changed: Any) -> usage_pb2.UsageRecord:
    fields: dict[str, Any] = {
        "ledger_id": new_ledger_id(at.timestamp()),
        "request_id": "r1",
        "gateway": "gateway-1",
        "outcome": types_pb2.OUTCOME_FINISHED,
        "started_at_us": round(at.timestamp() * 1_000_000),
        "duration_ms": 1200,
        "usage": types_pb2.TokenUsage(prompt_tokens=17, completion_tokens=5, source=types_pb2.USAGE_SOURCE_ENGINE),
    }
    return usage_pb2.UsageRecord(**{**fields, **changed})


def batch(*records: usage_pb2.UsageRecord) -> bytes:
    return usage_pb2.UsageBatch(records=records).SerializeToString()


def test_a_record_is_a_row_and_the_row_that_record_again() -> None:
    one = record(ttft_ms=0, width=3, attempts=2, stream=True, reason="quota_spent")
    parsed = parse_batch("forebay.usage.gateway-1", batch(one), NOW)
    assert not parsed.poison
    assert record_from(parsed.rows[0]) == one


def test_an_unknown_time_to_first_token_stays_unknown() -> None:
    assert parse_batch("s", batch(record()), NOW).rows[0].ttft_ms is None


def test_the_day_is_that_of_the_id_on_either_side_of_midnight() -> None:
    before, after = record(NOW), record(NOW + timedelta(milliseconds=1))
    days = [row.day for row in parse_batch("s", batch(before, after), NOW + timedelta(hours=3)).rows]
    assert days == [date(2027, 1, 15), date(2027, 1, 16)]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"ledger_id": b""}, "UUIDv7"),
        ({"ledger_id": bytes(16)}, "UUIDv7"),
        ({"ledger_id": new_ledger_id((NOW + timedelta(days=2, hours=1)).timestamp())}, "days from now"),
        ({"outcome": types_pb2.OUTCOME_UNSPECIFIED}, "outcome"),
        ({"outcome": 77}, "outcome"),
        ({"request_id": "a\0b"}, "NUL"),
        ({"duration_ms": 2**63}, "duration_ms"),
        ({"attempts": 2**31}, "attempts"),
        ({"started_at_us": 2**62}, "not a time"),
    ],
)
def test_poison_is_named_and_the_rest_of_its_batch_lives(changed: dict[str, Any], why: str) -> None:
    good, bad = record(), record(**changed)
    parsed = parse_batch("forebay.usage.gateway-1", batch(bad, good), NOW)
    assert [row.ledger_id.bytes for row in parsed.rows] == [good.ledger_id]
    assert [letter.payload for letter in parsed.poison] == [bad.SerializeToString()]
    assert why in parsed.poison[0].why


def _records(payload: bytes) -> list[bytes]:
    try:
        return [one.SerializeToString() for one in usage_pb2.UsageBatch.FromString(payload).records]
    except DecodeError:
        return []


@given(st.binary(max_size=300))
def test_no_payload_whatever_stops_the_reader(payload: bytes) -> None:
    parsed = parse_batch("forebay.usage.gateway-1", payload, NOW)
    assert all(letter.why and letter.payload in (payload, *_records(payload)) for letter in parsed.poison)


@given(
    st.lists(
        st.builds(
            record,
            ledger_id=st.binary(max_size=20),
            outcome=st.integers(0, 9),
            started_at_us=st.integers(-(2**63), 2**63 - 1),
            generation=st.integers(0, 2**64 - 1),
            model=st.text(max_size=20),
        ),
        max_size=5,
    )
)
def test_each_record_is_either_a_row_or_poison(records: list[usage_pb2.UsageRecord]) -> None:
    parsed = parse_batch("s", batch(*records), NOW)
    assert len(parsed.rows) + len(parsed.poison) == len(records)
