"""Cohere's answers and events, read into OpenAI's words."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.canonical.answer_stream import AnswerStream
from forebay_gateway.engines.cohere_reading import CohereReading, completion_of, embeddings_of, failure_of, usage_of

USAGE = {"billed_units": {"input_tokens": 3.0}, "tokens": {"input_tokens": 71.0, "output_tokens": 5.0}}


def read(*events: dict[str, Any]) -> tuple[CohereReading, list[dict[str, Any]]]:
    reading = CohereReading(1_700_000_000, "m")
    return reading, [chunk for event in events for chunk in reading.read(event)]


def said(kind: str, text: str) -> dict[str, Any]:
    return {"type": "content-delta", "index": 0, "delta": {"message": {"content": {kind: text}}}}


def call(kind: str, told: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": f"tool-call-{kind}", "index": index, "delta": {"message": {"tool_calls": told}}}


START = {"type": "message-start", "id": "abc", "delta": {"message": {"role": "assistant", "content": []}}}
END = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}}


def test_text_and_thoughts_come_piece_by_piece_and_usage_at_the_end() -> None:
    opened = {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}}
    reading, chunks = read(START, opened, said("thinking", "Hm."), said("text", "Hi"), {"type": "content-end"}, END)
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:-1]] == [
        {"role": "assistant", "reasoning_content": "Hm."},
        {"content": "Hi"},
        {},
    ]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["prompt_tokens"] == 71
    assert chunks[-1]["usage"]["completion_tokens"] == 5
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks} == {("abc", 1_700_000_000, "m")}
    assert reading.is_done


def test_a_plan_is_a_thought_and_calls_are_numbered_from_nought_with_arguments_that_are_json() -> None:
    _, chunks = read(
        START,
        {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will"}}},
        call("start", {"id": "c1", "type": "function", "function": {"name": "a", "arguments": ""}}, 1),
        call("delta", {"function": {"arguments": '{"x"'}}, 1),
        call("delta", {"function": {"arguments": ":1}"}}, 1),
        call("end", {}, 1),
        call("start", {"id": "c2", "type": "function", "function": {"name": "b"}}, 2),
        call("end", {}, 2),
        {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}},
    )
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["reasoning_content"] == "I will"
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert [c["index"] for c in calls] == [0, 0, 0, 1, 1]
    assert "".join(c["function"].get("arguments", "") for c in calls[:3]) == '{"x":1}'
    assert calls[-1]["function"] == {"arguments": "{}"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_message_that_ends_in_an_error_is_an_error(has_begun: bool) -> None:
    stream = AnswerStream("m", 1, wants_usage=True)
    stream.reading = CohereReading(1, "m")
    ended = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "it broke down"}}
    for event in [START, *([said("text", "Hi")] if has_begun else []), ended]:
        stream.feed(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    assert stream.error is not None
    assert stream.error.message == "it broke down"
    assert (stream.has_begun, stream.is_done) == (has_begun, False)


def test_events_that_are_new_or_make_no_sense_say_nothing() -> None:
    odd: list[dict[str, Any]] = [
        {"type": "citation-start"},
        {"type": "debug"},
        {"type": "content-delta", "delta": None},
        {"type": None},
    ]
    assert read(START, *odd, call("delta", {"function": {"arguments": "x"}}, 9), said("text", ""))[1] == []


def test_a_whole_answer() -> None:
    message = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Hi"}],
        "tool_plan": " I will.",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "a", "arguments": "{}"}}],
    }
    told = completion_of({"id": "abc", "message": message, "finish_reason": "TOOL_CALL", "usage": USAGE}, 7, "m")
    assert told["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Hi",
        "reasoning_content": "Hm. I will.",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "a", "arguments": "{}"}}],
    }
    assert (told["choices"][0]["finish_reason"], told["usage"]["total_tokens"]) == ("tool_calls", 76)
    assert completion_of({"message": {}}, 7, "m")["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize(
    ("finish", "ours"), [("COMPLETE", "stop"), ("STOP_SEQUENCE", "stop"), ("MAX_TOKENS", "length"), ("NEW", "stop")]
)
def test_why_it_finished(finish: str, ours: str) -> None:
    assert completion_of({"message": {}, "finish_reason": finish}, 1, "m")["choices"][0]["finish_reason"] == ours


def test_failures_usage_and_vectors() -> None:
    assert failure_of({"finish_reason": "TIMEOUT"}) == "It ended its answer with TIMEOUT."
    assert failure_of({"finish_reason": "COMPLETE"}) == ""
    assert usage_of({}) is None
    billed = usage_of({"billed_units": {"input_tokens": 3.0, "output_tokens": True}, "cached_tokens": 2.0})
    assert billed is not None
    assert (billed["prompt_tokens"], billed["completion_tokens"]) == (3, 0)
    assert billed["prompt_tokens_details"] == {"cached_tokens": 2}
    told = embeddings_of({"embeddings": {"float": [[0.5]]}, "meta": {"billed_units": {"input_tokens": 4.0}}}, "e")
    assert told["data"] == [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    assert told["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


# As it came from the wire, and what becomes of it.

_EVENTS = (
    '{"type":"message-start","id":"c9","delta":{"message":{"role":"assistant","content":[],"tool_calls":[]}}}',
    '{"type":"tool-plan-delta","delta":{"message":{"tool_plan":"Grüße, 世界 🎉"}}}',
    '{"type":"tool-call-start","index":0,"delta":{"message":{"tool_calls":'
    '{"id":"w1","type":"function","function":{"name":"weather","arguments":""}}}}}',
    '{"type":"tool-call-delta","index":0,"delta":{"message":{"tool_calls":{"function":{"arguments":"{\\"a\\": 1}"}}}}}',
    '{"type":"tool-call-end","index":0}',
    '{"type":"message-end","delta":{"finish_reason":"TOOL_CALL","usage":'
    '{"billed_units":{"input_tokens":3,"output_tokens":5},"tokens":{"input_tokens":71.0,"output_tokens":5.0}}}}',
)
STREAM = "".join(f"event: {json.loads(data)['type']}\ndata: {data}\n\n" for data in _EVENTS).encode()
_HEAD = '{"id":"c9","object":"chat.completion.chunk","created":7,"model":"m","choices":['
_CHUNKS = (
    '{"index":0,"delta":{"role":"assistant","reasoning_content":"Grüße, 世界 🎉","reasoning":"Grüße, 世界 🎉"},'
    '"finish_reason":null}]}',
    '{"index":0,"delta":{"tool_calls":[{"index":0,"id":"w1","type":"function",'
    '"function":{"name":"weather","arguments":""}}]},"finish_reason":null}]}',
    '{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\": 1}"}}]},"finish_reason":null}]}',
    '{"index":0,"delta":{},"finish_reason":"tool_calls"}]}',
    '],"usage":{"prompt_tokens":71,"completion_tokens":5,"total_tokens":76,'
    '"prompt_tokens_details":{"cached_tokens":0}}}',
)
GOLDEN = "".join(f"data: {_HEAD}{chunk}\n\n" for chunk in _CHUNKS) + "data: [DONE]\n\n"


def relayed(*pieces: bytes) -> tuple[AnswerStream, str]:
    stream = AnswerStream("m", 1, wants_usage=True)
    stream.reading = CohereReading(7, "m")
    out = b"".join([stream.feed(piece) for piece in pieces]) + stream.end()
    return stream, (out + (stream.tail(1) if stream.is_done else b"")).decode()


def test_a_stream_as_it_came_and_as_it_goes() -> None:
    assert relayed(STREAM)[1] == GOLDEN


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_it_is_the_same_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    assert relayed(*(STREAM[a:b] for a, b in itertools.pairwise([0, *sorted(cuts), len(STREAM)])))[1] == GOLDEN


def test_it_is_the_same_byte_by_byte_and_with_other_line_ends() -> None:
    assert relayed(*(STREAM[i : i + 1] for i in range(len(STREAM))))[1] == GOLDEN
    assert relayed(STREAM.replace(b"\n", b"\r\n"))[1] == GOLDEN


def test_wherever_a_stream_ends_too_early_that_is_an_error_and_never_a_clean_end() -> None:
    ends = [i for i in range(1, len(STREAM)) if STREAM[i - 2 : i] == b"\n\n"]
    assert len(ends) == 5
    for end in ends:
        stream, told = relayed(STREAM[:end])
        assert stream.error is not None
        assert (stream.is_done, "[DONE]" in told) == (False, False)
