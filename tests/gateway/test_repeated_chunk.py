"""A chunk that is known from one before passes as if it had been read as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_gateway.canonical.answer_stream import DONE, AnswerStream
from forebay_gateway.canonical.forms import CHAT, COMPLETION, Form
from forebay_gateway.canonical.repeated_chunk import RepeatedChunk


def tight(told: dict[str, Any]) -> bytes:
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()


def roomy(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode()


def chat(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}


def vllm(text: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", **chat(content=text)}


def llamacpp(text: str) -> dict[str, Any]:
    """Its texts come first, and its moments move on."""
    choice = {"finish_reason": None, "index": 0, "delta": {"content": text}}
    return {
        "choices": [choice],
        "created": len(text) % 3,
        "id": "chatcmpl-1",
        "model": "m",
        "timings": {"predicted_n": 1},
    }


def openai(text: str) -> dict[str, Any]:
    return {**vllm(text), "service_tier": "default", "obfuscation": "x" * (9 - len(text) % 9)}


def azure(text: str) -> dict[str, Any]:
    choice = {**chat(content=text)["choices"][0], "content_filter_results": {"hate": {"filtered": False}}}
    return {**vllm(text), "choices": [choice]}


def thinking(text: str) -> dict[str, Any]:
    return {**vllm(text), **chat(content=text, reasoning_content=None if len(text) % 2 else text)}


def probable(text: str) -> dict[str, Any]:
    told = vllm(text)
    told["choices"][0]["logprobs"] = {"content": [{"token": text, "logprob": -0.1}]}
    return told


def counting(text: str) -> dict[str, Any]:
    return {**vllm(text), "usage": {"prompt_tokens": 3, "completion_tokens": len(text)}}


def completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": None}
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


SHAPES = (vllm, llamacpp, openai, azure, thinking, probable, counting, completion)
LINE_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(["", " word", "é", '"', "\\", "\n", "\x7f", " ", "content", '"content":"x"', "a", "bb", "🙂"]),
        st.text(max_size=6),
    ),
    min_size=1,
    max_size=25,
)
CUTS = st.lists(st.integers(0, 4000), max_size=8)


def follow(events: list[bytes], model: str, form: Form, cuts: list[int]) -> list[Any]:
    """All that is learnt of a stream, piece by piece: events one by one, or cut anywhere."""
    stream = AnswerStream(model, 1, wants_usage=True, form=form)
    whole = b"".join(events)
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    pieces = [whole[begin:end] for begin, end in pairwise(places)] if cuts else events
    seen: list[Any] = []
    for piece in pieces:
        seen.append((stream.feed(piece), stream.counted, stream.has_begun, stream.is_done, stream.error))
        seen.append(stream.can_be_cut)
    seen.append((stream.end(), stream.error, stream.usage(9)))
    seen.append(stream.cut(9) if stream.can_be_cut else stream.tail(9) if stream.is_done else b"")
    return seen


@settings(max_examples=30, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    written=st.sampled_from([tight, roomy]),
    line_end=st.sampled_from(LINE_ENDS),
    texts=TEXTS,
    model=st.sampled_from(["m", "another"]),
    odd=st.sampled_from(
        [b"", b"data: {}", b'data: {"error":{"message":"no"}}', b'data: \xff{"content":"', b": waiting"]
    ),
    cuts=CUTS,
)
def test_it_makes_no_difference_to_what_a_client_gets_and_what_is_learnt(
    shape: Callable[[str], dict[str, Any]],
    written: Callable[[dict[str, Any]], bytes],
    line_end: bytes,
    texts: list[str],
    model: str,
    odd: bytes,
    cuts: list[int],
) -> None:
    form = COMPLETION if shape is completion else CHAT
    events = [b"data: " + written(shape(text)) + line_end for text in texts]
    events.insert(len(events) // 2, odd + line_end if odd else b"")
    last = shape("x")
    last["choices"][0]["finish_reason"] = "stop"
    events = [event for event in (*events, b"data: " + written(last) + line_end, DONE) if event]
    told = follow(events, model, form, cuts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RepeatedChunk, "told", lambda self, raw: None)
        assert follow(events, model, form, cuts) == told


@pytest.mark.parametrize("model", ["m", "another"])
@pytest.mark.parametrize("written", [tight, roomy])
def test_all_but_the_first_of_many_chunks_are_not_parsed(
    model: str, written: Callable[[dict[str, Any]], bytes]
) -> None:
    chunks = RepeatedChunk("content")
    first, second = (b"data: " + written(vllm(text)) + b"\n\n" for text in ("one", " two"))
    assert chunks.told(first) is None
    chunks.learn(first, "one", first.replace(b'"m"', f'"{model}"'.encode()))
    assert chunks.told(second) == second.replace(b'"m"', f'"{model}"'.encode())


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", "a\x7fb", "", "a\u2028b", "a\u00a0b"])
def test_a_text_that_could_be_written_otherwise_is_looked_into(text: str) -> None:
    chunks = RepeatedChunk("content")
    first = b"data: " + tight(vllm("one")) + b"\n\n"
    chunks.learn(first, "one", first)
    assert chunks.told(b"data: " + tight(vllm(text)) + b"\n\n") is None
    assert chunks.told(first.replace(b"one", text.encode())) is None
    assert chunks.told(first.replace(b"one", b"\xff\xfe")) is None


def test_nothing_more_is_learnt_of_an_engine_whose_chunks_differ_in_more() -> None:
    chunks = RepeatedChunk("content")
    for number in range(9):
        told = b"data: " + tight({**vllm("one"), "number": number}) + b"\n\n"
        assert chunks.told(told) is None
        chunks.learn(told, "one", told)
    assert chunks.told(b"data: " + tight({**vllm("two"), "number": 8}) + b"\n\n") is None
    assert chunks.told(b"data: " + tight({**vllm("two"), "number": 7}) + b"\n\n") is not None
