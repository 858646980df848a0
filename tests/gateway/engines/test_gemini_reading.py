"""Gemini's answers in OpenAI's words, streamed and whole, however the bytes are cut."""

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
from forebay_gateway.dialects.openai.embedding import parse_embedding
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.errors import Blame, EngineTrouble, in_stream

Json = dict[str, Any]
USAGE = {
    "promptTokenCount": 12,
    "cachedContentTokenCount": 5,
    "candidatesTokenCount": 6,
    "thoughtsTokenCount": 3,
    "totalTokenCount": 21,
}
AS_OPENAI = {
    "prompt_tokens": 12,
    "completion_tokens": 9,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
CALL = {"functionCall": {"id": "fc1", "name": "weather", "args": {"city": "Rome"}}, "thoughtSignature": "c2ln"}
TOOL_CALL = {
    "id": "fc1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
    "extra_content": {"google": {"thought_signature": "c2ln"}},
}


def asked(**fields: Any) -> Asked:
    made = parse_chat(json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}).encode())
    made.arrived_at = 1_700_000_000
    return made


def answer(*candidates: Json, **more: Any) -> Json:
    return {"candidates": list(candidates), "modelVersion": "gemini-x", "responseId": "r1", **more}


def candidate(*parts: Json, finish: str | None = None, index: int = 0) -> Json:
    told: Json = {"content": {"role": "model", "parts": list(parts)}}
    return told | ({"finishReason": finish} if finish else {}) | ({"index": index} if index else {})


def event(told: Json) -> bytes:
    return b"data: " + json.dumps(told, ensure_ascii=False).encode() + b"\r\n\r\n"


STREAM = b"".join(
    [
        event(answer(candidate({"text": "Hm.", "thought": True}), usageMetadata={"promptTokenCount": 12})),
        event(
            answer(candidate({"text": "Grüße, "}), usageMetadata={"promptTokenCount": 12, "candidatesTokenCount": 2})
        ),
        event(answer(candidate({"text": "世界"}, CALL))),
        event(answer(candidate({"text": ""}, finish="STOP"), usageMetadata=USAGE)),
    ]
)


def stream_of(request: Asked, *, folds: bool = False) -> AnswerStream:
    stream = request.speech(EngineKind.GEMINI).stream(folds=folds, estimated_prompt=99)
    assert isinstance(stream, AnswerStream)
    return stream


def relayed(*pieces: bytes, n: int = 1) -> tuple[AnswerStream, list[Any]]:
    stream = stream_of(asked(stream=True, n=n, stream_options={"include_usage": True}))
    out = b"".join(stream.feed(piece) for piece in pieces)
    out += stream.end()
    if stream.is_done:
        out += stream.tail(99)
    return stream, [orjson.loads(e[6:]) for e in out.split(b"\n\n") if e and e != b"data: [DONE]"]


def test_pieces_become_chunks_and_the_finish_reason_and_the_usage_come_last() -> None:
    stream, chunks = relayed(STREAM)
    assert stream.is_done
    assert [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]] == [
        {"role": "assistant", "reasoning_content": "Hm.", "reasoning": "Hm."},
        {"content": "Grüße, "},
        {"content": "世界"},
        {"tool_calls": [{"index": 0, **TOOL_CALL}]},
        {},
    ]
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks[-1]["usage"] == AS_OPENAI
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks} == {("r1", "m", 1_700_000_000)}
    assert stream.usage(99) == Usage(prompt=12, cached_prompt=5, completion=9, source=UsageSource.ENGINE)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_it_is_the_same_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    pieces = [STREAM[a:b] for a, b in itertools.pairwise([0, *sorted(cuts), len(STREAM)])]
    assert relayed(*pieces)[1] == relayed(STREAM)[1]


def test_it_is_the_same_byte_by_byte_and_without_the_last_blank_line() -> None:
    whole = relayed(STREAM)[1]
    assert relayed(*(STREAM[i : i + 1] for i in range(len(STREAM))))[1] == whole
    assert relayed(STREAM.removesuffix(b"\r\n"))[1] == whole


def test_wherever_a_stream_ends_too_early_that_is_an_error_and_never_a_clean_end() -> None:
    for end in [i for i in range(len(STREAM)) if STREAM[i - 4 : i] == b"\r\n\r\n"]:
        stream, _ = relayed(STREAM[:end])
        assert not stream.is_done
        assert stream.error is not None
        assert stream.error.message == "The engine ended its answer in the middle."


def test_several_candidates_are_choices_and_their_usage_is_told_once() -> None:
    both = answer(candidate({"text": "a"}), candidate({"text": "b"}, index=1), usageMetadata=USAGE)
    ends = [candidate(finish="STOP"), candidate(finish="MAX_TOKENS", index=1)]
    last = answer(usageMetadata=USAGE)
    stream, chunks = relayed(
        event(both), event(answer(ends[0])), event(answer(ends[1], usageMetadata=USAGE)), event(last), n=2
    )
    assert stream.is_done
    finishes = {c["choices"][0]["index"]: c["choices"][0]["finish_reason"] for c in chunks if c["choices"]}
    assert finishes == {0: "stop", 1: "length"}
    assert chunks[-1]["usage"]["completion_tokens"] == 9
    assert stream.usage(99).completion == 9


def test_a_whole_answer_and_a_folded_stream_are_the_same_completion() -> None:
    parts: list[Json] = [{"text": "Hm.", "thought": True}, {"text": "Grüße, 世界"}, CALL]
    told = answer(candidate(*parts, finish="STOP"), usageMetadata=USAGE)
    whole = asked().speech(EngineKind.GEMINI).whole(json.dumps(told).encode())
    completion = orjson.loads(whole.body)
    (choice,) = completion.pop("choices")
    message = {
        "role": "assistant",
        "content": "Grüße, 世界",
        "reasoning_content": "Hm.",
        "reasoning": "Hm.",
        "tool_calls": [TOOL_CALL],
    }
    assert choice == {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}
    head = {"id": "r1", "object": "chat.completion", "created": 1_700_000_000, "model": "m"}
    assert completion == {**head, "usage": AS_OPENAI}
    assert whole.usage == Usage(prompt=12, cached_prompt=5, completion=9, source=UsageSource.ENGINE)
    stream = stream_of(asked(), folds=True)
    assert stream.feed(STREAM) + stream.end() == b""
    folded = orjson.loads(stream.fold(99))
    assert folded.pop("choices")[0]["message"] == message
    assert folded == completion


@pytest.mark.parametrize(
    ("told", "finish"),
    [("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("MALFORMED_FUNCTION_CALL", "stop")],
)
def test_why_it_stopped(told: str, finish: str) -> None:
    _, chunks = relayed(event(answer(candidate(finish=told))))
    assert chunks[0]["choices"][0]["finish_reason"] == finish


def test_a_question_that_is_blocked_is_an_empty_answer_of_the_filter() -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}
    stream, chunks = relayed(event(blocked))
    assert stream.is_done
    assert chunks[0]["choices"][0]["finish_reason"] == "content_filter"
    whole = orjson.loads(asked().speech(EngineKind.GEMINI).whole(json.dumps(blocked).encode()).body)
    assert whole["choices"][0]["finish_reason"] == "content_filter"


def test_a_call_without_an_id_gets_one_and_calls_are_numbered() -> None:
    nameless = {"functionCall": {"name": "clock"}}
    _, chunks = relayed(event(answer(candidate(nameless, nameless, finish="STOP"))))
    calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks[:2]]
    assert [call["index"] for call in calls] == [0, 1]
    assert len({call["id"] for call in calls if call["id"].startswith("call_")}) == 2
    assert calls[0]["function"]["arguments"] == "{}"


def test_an_error_in_the_stream_is_judged_like_a_status() -> None:
    stream, _ = relayed(event({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}))
    assert stream.error is not None
    judged = in_stream(stream.error.body, stream.error.message)
    assert isinstance(judged, EngineTrouble)
    assert judged.blame is Blame.BUSY


@pytest.mark.parametrize("raw", [b"no", b"[]", b"{}", b'{"error": {"message": "it is so"}}'])
def test_what_is_no_answer(raw: bytes) -> None:
    with pytest.raises(NoAnswer, match=r"not valid JSON|no `candidates`|it is so"):
        asked().speech(EngineKind.GEMINI).whole(raw)


def test_embeddings_are_openais_list_and_their_tokens_are_told_if_gemini_tells_them() -> None:
    speech = parse_embedding(b'{"model": "m", "input": "a"}').speech(EngineKind.GEMINI)
    whole = speech.whole(b'{"embeddings": [{"values": [0.5, 1]}]}')
    assert orjson.loads(whole.body)["data"] == [{"object": "embedding", "index": 0, "embedding": [0.5, 1]}]
    assert whole.usage is None
    told = speech.whole(b'{"embeddings": [{"values": [0.5]}], "usageMetadata": {"promptTokenCount": 4}}')
    assert told.usage is not None
    assert told.usage.prompt == 4
    packed = parse_embedding(b'{"model": "m", "input": "a", "encoding_format": "base64"}').speech(EngineKind.GEMINI)
    assert isinstance(
        orjson.loads(packed.whole(b'{"embeddings": [{"values": [0.5]}]}').body)["data"][0]["embedding"], str
    )
