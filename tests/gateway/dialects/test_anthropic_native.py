"""An Anthropic client in front of Anthropic: its own words go, and Anthropic's own come back."""

from __future__ import annotations

import itertools
import json
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.accounting import Usage, UsageSource
from forebay_gateway.asked import Asked
from forebay_gateway.dialects.anthropic.native import MessagesSpeech
from forebay_gateway.dialects.anthropic.native_stream import MessagesStream
from forebay_gateway.dialects.anthropic.request import parse_messages
from forebay_gateway.engine_kind import EngineKind
from tests.gateway.engines.test_anthropic_reading import BEGIN, CONTENT, STREAM, USAGE, delta, event

MESSAGES = [
    {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}]},
    {"role": "user", "content": "y"},
]


def asked(**fields: Any) -> Asked:
    made = parse_messages(json.dumps({"model": "mine", "max_tokens": 9, "messages": MESSAGES, **fields}).encode())
    made.model_at_engines = "theirs"
    return made


def stream_of(request: Asked, *, folds: bool = False) -> MessagesStream:
    stream = request.speech(EngineKind.ANTHROPIC).stream(folds=folds, estimated_prompt=99)
    assert isinstance(stream, MessagesStream)
    return stream


def relayed(*pieces: bytes) -> tuple[MessagesStream, bytes]:
    stream = stream_of(asked(stream=True))
    out = b"".join(stream.feed(piece) for piece in pieces)
    return stream, out + (stream.tail(99) if stream.is_done else b"")


def test_the_clients_own_body_goes_with_the_models_name_and_whether_to_stream() -> None:
    request = asked(service_tier="auto", thinking={"type": "adaptive", "display": "omitted"})
    speech = request.speech(EngineKind.ANTHROPIC)
    assert isinstance(speech, MessagesSpeech)
    assert json.loads(speech.body(streamed=True, ask_usage=True)) == {
        "model": "theirs",
        "max_tokens": 9,
        "messages": MESSAGES,
        "service_tier": "auto",
        "thinking": {"type": "adaptive", "display": "omitted"},
        "stream": True,
    }
    request.forget_body()
    assert set(json.loads(speech.body(streamed=False, ask_usage=True))) == {"model", "stream"}


def test_events_pass_as_they_came_but_for_the_models_name() -> None:
    stream, out = relayed(STREAM)
    named = STREAM[: len(BEGIN)].replace(b'"claude"', b'"mine"')
    first, rest = out.split(b"\n\n", 1)
    assert json.loads(first.split(b"data: ")[1]) == json.loads(named.split(b"data: ")[1])
    assert rest == STREAM[len(BEGIN) :]
    assert stream.usage(99) == Usage(prompt=17, cached_prompt=5, completion=9, source=UsageSource.ENGINE)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_it_is_the_same_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in itertools.pairwise(places)]
    assert relayed(*pieces)[1] == relayed(STREAM)[1]


def test_nothing_is_said_before_the_answer_begins_so_that_another_engine_may_take_over() -> None:
    stream, out = relayed(BEGIN, event("ping"))
    assert (out, stream.has_begun) == (b"", False)
    stream.feed(event("error", error={"type": "overloaded_error", "message": "Overloaded"}))
    assert stream.error is not None
    assert stream.error.body == {"type": "overloaded_error", "message": "Overloaded"}


def test_a_stream_without_its_last_event_is_an_error() -> None:
    stream, _ = relayed(STREAM.removesuffix(event("message_stop")))
    stream.end()
    assert not stream.is_done
    assert stream.error is not None


def test_a_cut_closes_what_is_open_and_says_that_the_limit_was_reached() -> None:
    begun = (BEGIN, event("content_block_start", index=0, content_block={"type": "text", "text": ""}))
    stream, _ = relayed(*begun, delta(0, "text_delta", text="x" * 12))
    assert stream.can_be_cut
    assert stream.cut(99) == b""
    kinds = [
        json.loads(line[6:])["type"] for line in stream.tail(99).decode().splitlines() if line.startswith("data: ")
    ]
    assert kinds == ["content_block_stop", "message_delta", "message_stop"]
    assert b'"max_tokens"' in stream.tail(99)
    assert stream.usage(99) == Usage(prompt=17, cached_prompt=5, completion=3, source=UsageSource.COUNTED)


def test_a_whole_answer_has_the_clients_name_and_a_folded_stream_is_the_same() -> None:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": CONTENT}
    message = {**head, "stop_reason": "tool_use", "stop_sequence": None, "usage": USAGE}
    whole = asked().speech(EngineKind.ANTHROPIC).whole(json.dumps(message).encode())
    assert orjson.loads(whole.body) == {**message, "model": "mine"}
    assert whole.usage == Usage(prompt=17, cached_prompt=5, completion=9, source=UsageSource.ENGINE)
    stream = stream_of(asked(), folds=True)
    assert stream.feed(STREAM) == b""
    assert orjson.loads(stream.fold(99)) == {**message, "model": "mine"}


def test_a_folded_answer_that_was_cut_in_a_call_is_still_a_message() -> None:
    stream = stream_of(asked(), folds=True)
    stream.feed(BEGIN + event("content_block_start", index=0, content_block={**CONTENT[2], "input": {}}))
    stream.feed(delta(0, "input_json_delta", partial_json='{"ci'))
    stream.cut(99)
    told = orjson.loads(stream.fold(99))
    assert (told["stop_reason"], told["content"][0]["input"]) == ("max_tokens", {})


def test_what_a_server_tool_did_passes_and_folds_with_its_citations() -> None:
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"url": "https://a.example"}]}
    cited = {"type": "web_search_result_location", "url": "https://a.example", "cited_text": "x"}
    pieces = [
        BEGIN,
        event("content_block_start", index=0, content_block=use),
        delta(0, "input_json_delta", partial_json='{"query":"x"}'),
        event("content_block_stop", index=0),
        event("content_block_start", index=1, content_block=found),
        event("content_block_stop", index=1),
        event("content_block_start", index=2, content_block={"type": "text", "text": "", "citations": []}),
        delta(2, "citations_delta", citation=cited),
        delta(2, "text_delta", text="So."),
        event("content_block_stop", index=2),
        event("message_delta", delta={"stop_reason": "pause_turn"}, usage={"output_tokens": 9}),
        event("message_stop"),
    ]
    _, out = relayed(*pieces)
    assert out.endswith(b"".join(pieces[1:]))
    stream = stream_of(asked(), folds=True)
    stream.feed(b"".join(pieces))
    told = orjson.loads(stream.fold(99))
    assert told["stop_reason"] == "pause_turn"
    assert told["content"] == [
        {**use, "input": {"query": "x"}},
        found,
        {"type": "text", "text": "So.", "citations": [cited]},
    ]
