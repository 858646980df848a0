"""Requests and answers that pass between Ollama's clients and Ollama's engines in their own words."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import httpx
import ollama
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.accounting import Usage, UsageSource
from forebay_gateway.asked import Asked
from forebay_gateway.canonical.speech import NoAnswer, Speech
from forebay_gateway.dialects.ollama.embedding_request import parse_embed, parse_legacy_embeddings
from forebay_gateway.dialects.ollama.native_stream import LONGEST_LINE, OllamaStream
from forebay_gateway.dialects.ollama.parts import CHAT_ANSWER, GENERATED
from forebay_gateway.dialects.ollama.request import parse_generate, parse_ollama_chat
from forebay_gateway.engine_kind import EngineKind

HELLO = [{"role": "user", "content": "hello"}]
COUNTS: dict[str, Any] = {"total_duration": 9, "prompt_eval_count": 5, "eval_count": 2, "eval_duration": 7}


def line(text: str = "", **more: Any) -> bytes:
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    told = {"model": "m:latest", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": False, **more}
    return orjson.dumps(told) + b"\n"


LAST = line(done=True, done_reason="stop", **COUNTS)
ANSWER = line("a", new="kept") + line("", message={"thinking": "hm"}) + line("ü") + LAST


def relayed(model: str = "m:latest", *, folds: bool = False) -> OllamaStream:
    return OllamaStream(model, CHAT_ANSWER, folds=folds)


def native(parsed: Any, model_at_engines: str = "m:latest") -> Speech:
    assert isinstance(parsed, Asked)
    parsed.model_at_engines = model_at_engines
    return parsed.speech(EngineKind.OLLAMA)


def chat(**body: Any) -> Speech:
    return native(parse_ollama_chat(orjson.dumps({"model": "m", "messages": HELLO, **body}), lambda: 0.0))


def objects_in(out: bytes) -> list[dict[str, Any]]:
    assert out.endswith(b"\n")
    return [orjson.loads(each) for each in out[:-1].split(b"\n")]


# --- requests ---------------------------------------------------------------------------------------------------------


def test_the_clients_words_pass_and_only_the_model_and_the_streaming_are_set() -> None:
    more = {"keep_alive": "5m", "options": {"num_ctx": 4096, "new": [1.0]}, "think": "max", "new": {"a": None}}
    speech = chat(stream=None, **more)
    assert (speech.path, speech.comes_in_pieces) == ("/api/chat", True)
    for streamed in (True, False):
        body = speech.body(streamed=streamed, ask_usage=True)
        assert isinstance(body, bytes)
        told = orjson.loads(body)
        assert told == {"model": "m:latest", "messages": HELLO, **more, "stream": streamed}


def test_generate_and_embeddings_have_their_own_addresses() -> None:
    generate = native(parse_generate(b'{"model":"m","prompt":"p"}', lambda: 0.0))
    embed = native(parse_embed(b'{"model":"m","input":"a"}', lambda: 0.0))
    legacy = native(parse_legacy_embeddings(b'{"model":"m","prompt":"a"}'))
    assert [each.path for each in (generate, embed, legacy)] == ["/api/generate", "/api/embed", "/api/embeddings"]
    assert [each.comes_in_pieces for each in (generate, embed, legacy)] == [True, False, False]
    assert embed.body(streamed=False, ask_usage=False) == b'{"model":"m:latest","input":"a"}'


# --- streams ----------------------------------------------------------------------------------------------------------


def test_lines_pass_as_they_came_and_the_last_waits() -> None:
    stream = relayed()
    assert stream.feed(ANSWER) == ANSWER.removesuffix(LAST)
    assert stream.is_done
    assert stream.counted == 3
    assert stream.feed(line("more")) == b""
    assert stream.tail(99) == LAST
    assert stream.usage(99) == Usage(5, 0, 2, UsageSource.ENGINE)


def test_the_model_has_the_name_that_the_client_used_and_nothing_else_changes() -> None:
    stream = relayed("M")
    odd = b'{"model":"m:latest","created_at" : 1.0e0, "message":{"content":"\\"model\\":\\"m:latest\\""}}\n'
    late = b'{"done":false,"message":{},"model":"m:latest"}\n'
    out = stream.feed(odd + late + LAST) + stream.tail(9)
    assert out.startswith(odd.replace(b"m:latest", b"M", 1))
    assert objects_in(out)[1] == {"done": False, "message": {}, "model": "M"}
    assert [each["model"] for each in objects_in(out)] == ["M"] * 3


@given(
    cuts=st.lists(st.integers(0, len(ANSWER) + 3), max_size=12),
    model=st.sampled_from(["m", "m:latest"]),
    end=st.sampled_from([b"\n", b"\r\n", b"\n\n \n"]),
)
def test_however_the_bytes_are_cut_the_same_come_out(cuts: list[int], model: str, end: bytes) -> None:
    told = ANSWER.replace(b"\n", end)
    stream = relayed(model)
    places = [0, *sorted(cuts), len(told)]
    out = b"".join([stream.feed(told[begin:stop]) for begin, stop in pairwise(places)])
    assert stream.error is None
    assert stream.is_done
    named = ANSWER.replace(b'{"model":"m:latest"', b'{"model":"%b"' % model.encode())
    assert out + stream.tail(9) == named
    assert stream.counted == 3


def test_a_last_line_without_its_end_is_taken_at_the_end() -> None:
    stream = relayed()
    stream.feed(line("a") + LAST.rstrip())
    assert not stream.is_done
    assert stream.end() == b""
    assert stream.is_done
    assert stream.tail(9) == LAST


@pytest.mark.parametrize("begun", [b"", line("a")])
def test_an_error_line_is_an_error_before_and_in_the_middle(begun: bytes) -> None:
    stream = relayed()
    assert stream.feed(begun + b'{"error":"out of memory"}\n' + LAST) == begun
    assert stream.error is not None
    assert stream.error.message == "out of memory"
    assert stream.has_begun is bool(begun)
    assert not stream.is_done


def test_an_error_that_is_an_object_is_understood() -> None:
    stream = relayed()
    stream.feed(b'{"error":{"message":"no","code":400}}\n')
    assert stream.error is not None
    assert (stream.error.message, stream.error.body) == ("no", {"message": "no", "code": 400})


@pytest.mark.parametrize("rest", [b"", b'{"model":"m:lat', line("b").rstrip()])
def test_an_end_in_the_middle_is_an_error(rest: bytes) -> None:
    stream = relayed()
    stream.feed(line("a") + rest)
    stream.end()
    assert stream.error is not None
    assert stream.error.message == "The engine ended its answer in the middle."
    assert stream.usage(7) == Usage(7, 0, stream.counted, UsageSource.COUNTED)


@pytest.mark.parametrize("nonsense", [b"data: {}\n", b"[1]\n", b"1\n", b"\xff\n"])
def test_what_is_no_object_is_an_error(nonsense: bytes) -> None:
    stream = relayed()
    assert stream.feed(line("a") + nonsense) == line("a")
    assert stream.error is not None
    assert "not a JSON object" in stream.error.message


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_without_end_is_an_error(end: bytes) -> None:
    stream = relayed()
    assert stream.feed(line("a") + b" " * (LONGEST_LINE + 1) + end) == line("a")
    assert stream.error is not None
    assert "16 MB" in stream.error.message


def test_a_prompt_that_is_not_counted_was_cached() -> None:
    stream = relayed()
    stream.feed(line(done=True, eval_count=2))
    assert stream.usage(99) == Usage(0, 0, 2, UsageSource.ENGINE)


def test_an_engine_that_counts_nothing_is_counted_for() -> None:
    stream = relayed()
    stream.feed(line("a") + line(done=True, eval_count="2", prompt_eval_count=-1))
    assert stream.usage(99) == Usage(99, 0, 1, UsageSource.COUNTED)


def test_a_cut_answer_ends_at_its_length() -> None:
    stream = relayed("M")
    assert not stream.can_be_cut
    stream.feed(line("a") + line("b"))
    assert stream.can_be_cut
    assert stream.cut(7) == b""
    assert stream.is_cut
    assert stream.is_done
    assert not stream.can_be_cut
    assert objects_in(stream.tail(7)) == [
        {
            "model": "M",
            "created_at": "2026-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "length",
            "prompt_eval_count": 7,
            "eval_count": 2,
        }
    ]
    assert stream.usage(7) == Usage(7, 0, 2, UsageSource.COUNTED)


# --- whole answers ----------------------------------------------------------------------------------------------------


def test_a_stream_is_folded_as_ollama_itself_would() -> None:
    stream = relayed("M", folds=True)
    call = {"function": {"name": "f", "arguments": {}}}
    odds = [{"token": "a", "logprob": -1}]
    told = line("a", logprobs=odds, new=1) + line("b", logprobs=odds, message={"thinking": "h", "tool_calls": [call]})
    assert stream.feed(told + line("c", message={"thinking": "m", "tool_calls": [call]}) + LAST) == b""
    assert stream.counted == 3
    assert orjson.loads(stream.fold(9)) == {
        "model": "M",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": "abc", "thinking": "hm", "tool_calls": [call, call]},
        "done": True,
        "done_reason": "stop",
        "logprobs": odds + odds,
        "new": 1,
        **COUNTS,
    }


def test_generated_text_is_folded_and_may_be_cut_before() -> None:
    stream = OllamaStream("m", GENERATED, folds=True)
    stream.feed(
        b'{"model":"m","response":"a","done":false}\n{"model":"m","response":"b","thinking":"t","done":false}\n'
    )
    stream.cut(4)
    told = orjson.loads(stream.fold(4))
    assert (told["response"], told["thinking"], told["done"], told["done_reason"]) == ("ab", "t", True, "length")


def test_a_whole_answer_passes_byte_by_byte_but_for_its_model() -> None:
    raw = b'{"model":"m:latest", "message":{"content":"\xc3\xbc","thinking":"h"},"done":true,"eval_count":2}'
    whole = chat().whole(raw)
    assert whole.body == raw.replace(b"m:latest", b"m")
    assert whole.usage == Usage(0, 0, 2, UsageSource.ENGINE)
    assert whole.text_bytes == 3


def test_vectors_pass_byte_by_byte() -> None:
    embed = native(parse_embed(b'{"model":"m","input":"a"}', lambda: 0.0))
    raw = b'{"model":"m","embeddings":[[0.1, 1e-7]],"prompt_eval_count":3}'
    assert embed.whole(raw).body == raw
    assert embed.whole(raw).usage == Usage(3, 0, 0, UsageSource.ENGINE)
    legacy = native(parse_legacy_embeddings(b'{"model":"m","prompt":"a"}'))
    assert legacy.whole(b'{"embedding":[1.0]}').body == b'{"embedding":[1.0]}'
    for speech in (embed, legacy):
        with pytest.raises(NoAnswer):
            speech.whole(b'{"model":"m"}')


@pytest.mark.parametrize("raw", [b"", b"x", b"[]", b"{}", b'{"message":1}', b'{"error":"no"}'])
def test_what_is_no_answer_is_none(raw: bytes) -> None:
    with pytest.raises(NoAnswer) as caught:
        chat().whole(raw)
    assert caught.value.error.message


# --- whatever comes ---------------------------------------------------------------------------------------------------


@given(
    pieces=st.lists(
        st.binary(max_size=12)
        | st.sampled_from([line("a"), LAST, b"\n", b"{}\n", b'{"message":1,"done":1}\n', b'{"model":[],"error":""}\n']),
        max_size=8,
    ),
    folds=st.booleans(),
)
def test_whatever_an_engine_sends_comes_to_an_end_or_an_error(pieces: list[bytes], folds: bool) -> None:
    stream = relayed("M", folds=folds)
    out = b"".join([stream.feed(piece) for piece in pieces]) + stream.end()
    assert stream.is_done is (stream.error is None)
    if stream.is_done:
        out += stream.tail(9)
    for told in objects_in(out) if out else ():
        assert told.get("model", "M") == "M"
    if folds and stream.is_done:
        orjson.loads(stream.fold(9))


# --- the official client ----------------------------------------------------------------------------------------------


def test_the_official_client_hears_an_ollama_engine_through_the_gateway() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        parsed = parse_ollama_chat(request.content, lambda: 0.0)
        speech = native(parsed)
        assert isinstance(parsed, Asked)
        if not parsed.stream:
            return httpx.Response(200, content=speech.whole(LAST).body)
        stream = speech.stream(folds=False, estimated_prompt=9)
        return httpx.Response(200, content=stream.feed(ANSWER) + stream.tail(9))

    client = ollama.Client(host="http://gateway", transport=httpx.MockTransport(answer))
    parts = list(client.chat("m", HELLO, stream=True))
    assert "".join(part.message.content or "" for part in parts) == "aü"
    assert {part.model for part in parts} == {"m"}
    assert parts[-1].eval_count == 2
    assert client.chat("m", HELLO).done
