"""Records and batches of them are what protobuf would have written, however they were put together."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.wire.v1 import types_pb2, usage_pb2
from forebay_gateway.accounting import Entry, Outcome, Usage, UsageSource
from forebay_gateway.ledger import usage_record
from forebay_gateway.ledger.usage_record import RecordForm, as_lost, batch

WORDS = st.sampled_from(["", "a", "b", "ü" * 100])
NUMBERS = st.sampled_from([0, 1, 127, 128, 60_000])
ROUTES = st.sampled_from(["/v1/chat/completions", "/v1/images/generations"])
ENDS: dict[str, Any] = {
    "backend_id": WORDS,
    "outcome": st.sampled_from(list(Outcome)),
    "reason": WORDS,
    "http_status": st.sampled_from([0, 200, 503]),
    "queue_ms": NUMBERS,
    "ttft_ms": st.none() | NUMBERS,
    "duration_ms": NUMBERS,
    "attempts": NUMBERS,
    "audio_ms": st.none() | NUMBERS,
    "usage": st.builds(Usage, NUMBERS, NUMBERS, NUMBERS, st.sampled_from(list(UsageSource))),
}
ENTRIES = st.builds(
    Entry,
    ledger_id=st.sampled_from([b"\x01" * 16, b"\x02" * 16]),
    request_id=WORDS,
    route=ROUTES,
    started_at=st.sampled_from([0.0, 1.5, 1_764_500_000.123456]),
    arrived=st.just(0.0),
    key_id=WORDS,
    user_id=WORDS,
    group_id=WORDS,
    pool=WORDS,
    model_requested=WORDS,
    model=WORDS,
    stream=st.booleans(),
    width=NUMBERS,
)


def plainly(entry: Entry) -> usage_pb2.UsageRecord:
    """As the fields say, one by one."""
    told = asdict(entry)
    usage, outcome, started_at = entry.usage, told.pop("outcome"), told.pop("started_at")
    del told["usage"], told["arrived"]
    return usage_pb2.UsageRecord(
        **told,
        gateway="g",
        generation=7,
        dialect="openai",
        outcome=types_pb2.Outcome.Value(f"OUTCOME_{outcome.name}") if outcome else types_pb2.OUTCOME_UNSPECIFIED,
        started_at_us=round(started_at * 1e6),
        usage=types_pb2.TokenUsage(
            prompt_tokens=usage.prompt,
            cached_prompt_tokens=usage.cached_prompt,
            completion_tokens=usage.completion,
            source=types_pb2.UsageSource.Value(f"USAGE_SOURCE_{usage.source.name}"),
        ),
        images=entry.width if outcome is Outcome.FINISHED and "images" in entry.route else None,
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(ENTRIES, st.fixed_dictionaries(ENDS)), max_size=6))
def test_a_record_says_what_is_known_of_its_request_and_a_batch_has_them_all(
    all_of: list[tuple[Entry, dict[str, Any]]],
) -> None:
    form = RecordForm("g", 7)
    records: list[bytes] = []
    wanted = usage_pb2.UsageBatch()
    for entry, end in all_of:
        opened = form.write(entry)
        assert usage_pb2.UsageRecord.FromString(opened) == plainly(entry)
        lost = usage_pb2.UsageRecord.FromString(as_lost(opened))
        assert (lost.outcome, lost.model, lost.key_id) == (types_pb2.OUTCOME_GATEWAY_LOST, entry.model, entry.key_id)
        for name, value in end.items():
            setattr(entry, name, value)
        records.append(form.write(entry))
        wanted.records.append(plainly(entry))
    assert usage_pb2.UsageBatch.FromString(batch(records)) == wanted


def test_no_more_than_so_many_beginnings_of_records_are_remembered(monkeypatch: Any) -> None:
    monkeypatch.setattr(usage_record, "_MOST_KNOWN", 3)
    form = RecordForm("g", 7)
    for number in range(10):
        entry = Entry(b"\x01" * 16, "r", "/v1/chat/completions", 1.0, 0.0, key_id=str(number))
        assert usage_pb2.UsageRecord.FromString(form.write(entry)).key_id == str(number)
        assert len(form._known) <= 3
