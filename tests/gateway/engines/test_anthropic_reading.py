"""Anthropic's answers in OpenAI's words, streamed and whole, however the bytes are cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.accounting import Usage, UsageSource
from forebay_gateway.asked import Asked
from forebay_gateway.canonical.answer_stream import AnswerStream
from forebay_gateway.canonical.speech import NoAnswer
from forebay_gateway.dialects.openai.chat import parse_chat
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.errors import Blame, EngineTrouble, in_stream
from forebay_gateway.refused import EngineRefused

Json = dict[str, Any]
USAGE = {
    "input_tokens": 10,
    "cache_read_input_tokens": 5,
    "cache_creation_input_tokens": 2,
    "output_tokens": 9,
    "output_tokens_details": {"thinking_tokens": 4},
}
AS_OPENAI = {
    "prompt_tokens": 17,
    "completion_tokens": 9,
    "total_tokens": 26,
    "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
CONTENT: list[Json] = [
    {"type": "thinking", "thinking": "Hm, so.", "signature": "c2ln"},
    {"type": "text", "text": "Grüße, 世界 🎉"},
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
    {"type": "tool_use", "id": "toolu_2", "name": "clock", "input": {}},
]


def asked(**fields: Any) -> Asked:
    made = parse_chat(json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}).encode())
    made.arrived_at = 1_700_000_000
    return made


def event(kind: str, **told: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **told}, ensure_ascii=False)}\n\n".encode()


def delta(index: int, kind: str, **told: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind, **told})


def start(**usage: Any) -> bytes:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": usage}
    return event("message_start", message=head)


BEGIN = start(input_tokens=10, cache_read_input_tokens=5, cache_creation_input_tokens=2, output_tokens=1)
STREAM = b"".join(
    [
        BEGIN,
        event("ping"),
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""}),
        delta(0, "thinking_delta", thinking="Hm,"),
        delta(0, "thinking_delta", thinking=" so."),
        delta(0, "signature_delta", signature="c2ln"),
        event("content_block_stop", index=0),
        event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
        delta(1, "text_delta", text="Grüße, "),
        delta(1, "text_delta", text="世界 🎉"),
        event("content_block_stop", index=1),
        event("content_block_start", index=2, content_block={**CONTENT[2], "input": {}}),
        delta(2, "input_json_delta", partial_json=""),
        delta(2, "input_json_delta", partial_json='{"city":'),
        delta(2, "input_json_delta", partial_json='"Rome"}'),
        event("content_block_stop", index=2),
        event("content_block_start", index=3, content_block=CONTENT[3]),
        event("content_block_stop", index=3),
        event(
            "message_delta",
            delta={"stop_reason": "tool_use", "stop_sequence": None},
            usage={"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}},
        ),
        event("message_stop"),
    ]
)


def stream_of(request: Asked, *, folds: bool = False) -> AnswerStream:
    stream = request.speech(EngineKind.ANTHROPIC).stream(folds=folds, estimated_prompt=99)
    assert isinstance(stream, AnswerStream)
    return stream


def relayed(*pieces: bytes, ends: bool = False) -> tuple[AnswerStream, list[Any]]:
    stream = stream_of(asked(stream=True, stream_options={"include_usage": True}))
    out = b"".join(stream.feed(piece) for piece in pieces)
    if ends:
        out += stream.end()
    if stream.is_done:
        out += stream.tail(99)
    return stream, [orjson.loads(e[6:]) for e in out.split(b"\n\n") if e and e != b"data: [DONE]"]


def test_events_become_chunks_and_the_finish_reason_and_the_usage_come_last() -> None:
    stream, chunks = relayed(STREAM)
    assert stream.is_done
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert deltas == [
        {"role": "assistant", "reasoning_content": "Hm,", "reasoning": "Hm,"},
        {"reasoning_content": " so.", "reasoning": " so."},
        {"content": "Grüße, "},
        {"content": "世界 🎉"},
        {
            "tool_calls": [
                {"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Rome"}'}}]},
        {
            "tool_calls": [
                {"index": 1, "id": "toolu_2", "type": "function", "function": {"name": "clock", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 9 + ["tool_calls"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == AS_OPENAI
    heads = {(chunk["id"], chunk["model"], chunk["created"], chunk["object"]) for chunk in chunks}
    assert heads == {("msg_1", "m", 1_700_000_000, "chat.completion.chunk")}
    assert stream.usage(99) == Usage(prompt=17, cached_prompt=5, completion=9, source=UsageSource.ENGINE)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_it_is_the_same_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in itertools.pairwise(places)]
    assert relayed(*pieces)[1] == relayed(STREAM)[1]


def test_it_is_the_same_byte_by_byte_and_with_other_line_ends() -> None:
    whole = relayed(STREAM)[1]
    assert relayed(*(STREAM[i : i + 1] for i in range(len(STREAM))))[1] == whole
    assert relayed(STREAM.replace(b"\n", b"\r\n"))[1] == whole


def test_wherever_a_stream_ends_too_early_that_is_an_error_and_never_a_clean_end() -> None:
    ends = [i for i in range(len(STREAM)) if STREAM[i - 2 : i] == b"\n\n"]
    for end in ends[:-1]:
        stream, _ = relayed(STREAM[:end], ends=True)
        assert not stream.is_done
        assert stream.error is not None
        assert stream.error.message == "The engine ended its answer in the middle."


def test_a_whole_answer_and_a_folded_stream_are_the_same_completion() -> None:
    message: Json = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": CONTENT}
    message |= {"stop_reason": "tool_use", "stop_sequence": None, "usage": USAGE}
    whole = asked().speech(EngineKind.ANTHROPIC).whole(json.dumps(message).encode())
    told = orjson.loads(whole.body)
    (choice,) = told.pop("choices")
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "Grüße, 世界 🎉",
            "reasoning_content": "Hm, so.",
            "reasoning": "Hm, so.",
            "tool_calls": [
                {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
                {"id": "toolu_2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
            ],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }
    assert told == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "usage": AS_OPENAI,
    }
    assert whole.usage == Usage(prompt=17, cached_prompt=5, completion=9, source=UsageSource.ENGINE)
    stream = stream_of(asked(), folds=True)
    assert stream.feed(STREAM) == b""
    folded = orjson.loads(stream.fold(99))
    (of_stream,) = folded.pop("choices")
    assert folded == told
    assert of_stream["message"] == choice["message"]


@pytest.mark.parametrize(
    ("told", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
    ],
)
def test_why_it_stopped(told: str, finish: str) -> None:
    stopped = {"stop_reason": told, "stop_sequence": "END" if told == "stop_sequence" else None}
    _, chunks = relayed(BEGIN, event("message_delta", delta=stopped, usage={"output_tokens": 1}), event("message_stop"))
    assert chunks[0]["choices"][0]["finish_reason"] == finish
    assert chunks[0]["choices"][0].get("stop_reason") == stopped["stop_sequence"]


def test_an_overloaded_engine_before_its_first_word_is_busy_and_after_it_an_error() -> None:
    overloaded = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    stream, _ = relayed(BEGIN, event("ping"), overloaded)
    assert not stream.has_begun
    assert stream.error is not None
    judged = in_stream(stream.error.body, stream.error.message)
    assert isinstance(judged, EngineTrouble)
    assert judged.blame is Blame.BUSY
    bad = in_stream({"type": "invalid_request_error", "message": "no"}, "no")
    assert isinstance(bad, EngineRefused)
    stream, chunks = relayed(BEGIN, delta(0, "text_delta", text="a"), overloaded, STREAM)
    assert stream.has_begun
    assert stream.error is not None
    assert len(chunks) == 1


def test_an_answer_that_is_cut_counts_several_tokens_a_piece_and_the_prompt_as_the_engine_told_it() -> None:
    stream, _ = relayed(BEGIN, delta(0, "text_delta", text="x" * 40))
    assert stream.usage(99) == Usage(prompt=17, completion=10, source=UsageSource.COUNTED)
    stream.cut(99)
    assert stream.is_done
    assert stream.usage(99).completion == 10


@pytest.mark.parametrize(
    "raw", [b"no", b"[]", b'{"type": "message"}', b'{"type": "error", "error": {"message": "it is so"}}']
)
def test_what_is_no_message_is_no_answer(raw: bytes) -> None:
    with pytest.raises(NoAnswer, match=r"not valid JSON|no `content`|it is so"):
        asked().speech(EngineKind.ANTHROPIC).whole(raw)
