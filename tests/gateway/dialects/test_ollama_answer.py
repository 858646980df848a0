"""Answers of other engines, as Ollama's clients get them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import ollama
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.asked import Asked
from forebay_gateway.dialects.ollama.answer import AnswerTranslation
from forebay_gateway.dialects.ollama.embedding_request import parse_embed, parse_legacy_embeddings
from forebay_gateway.dialects.ollama.errors import OLLAMA
from forebay_gateway.dialects.ollama.parts import CHAT_ANSWER, GENERATED, AnswerForm
from forebay_gateway.dialects.ollama.request import parse_generate, parse_ollama_chat
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.refused import EngineFailed

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
T0 = 1_767_225_600.0
"""The first moment of 2026."""


class Ticking:
    """A clock on which half a second passes between any two looks at it."""

    def __init__(self) -> None:
        self._now = T0 - 0.5

    def __call__(self) -> float:
        self._now += 0.5
        return self._now


def chunk(text: str | None = None, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    said = {**({} if text is None else {"content": text}), **delta}
    return {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


def calls(*fragments: dict[str, Any]) -> dict[str, Any]:
    return chunk(tool_calls=list(fragments))


def fragment(index: int, arguments: str, name: str | None = None, call_id: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {"index": index, "id": call_id, "type": "function", "function": function}


def translated(*chunks: dict[str, Any], form: AnswerForm = CHAT_ANSWER, usage: Any = USAGE) -> list[dict[str, Any]]:
    writer = AnswerTranslation("m", form, Ticking()).writer(5)
    out = b"".join([writer.write(each) for each in chunks]) + writer.end(usage)
    return objects_in(out)


def objects_in(out: bytes) -> list[dict[str, Any]]:
    assert out.endswith(b"\n")
    return [orjson.loads(line) for line in out[:-1].split(b"\n")]


def whole(message: dict[str, Any], finish: str = "stop", form: AnswerForm = CHAT_ANSWER, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish, **more}
    answer = {"id": "chatcmpl-1", "choices": [choice], "usage": USAGE}
    return AnswerTranslation("m", form, Ticking()).whole(answer)


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_chat_is_told_line_by_line_and_the_last_one_tells_what_it_took() -> None:
    begin = chunk("", role="assistant")
    writer = AnswerTranslation("m", CHAT_ANSWER, Ticking()).writer(5)
    assert writer.write(begin) == b""
    assert (
        writer.write(chunk("Grüße"))
        == (
            '{"model":"m","created_at":"2026-01-01T00:00:01.000000Z",'
            '"message":{"role":"assistant","content":"Grüße"},"done":false}\n'
        ).encode()
    )
    assert writer.write(chunk(finish="stop")) == b""
    assert writer.end(USAGE) == (
        b'{"model":"m","created_at":"2026-01-01T00:00:02.000000Z","message":{"role":"assistant","content":""},'
        b'"done":true,"done_reason":"stop","total_duration":1500000000,"prompt_eval_count":5,'
        b'"prompt_eval_duration":500000000,"eval_count":3,"eval_duration":1000000000}\n'
    )


def test_generated_text_is_a_response() -> None:
    first, last = translated(chunk("a", reasoning="b"), chunk(finish="length"), form=GENERATED)
    assert {name: first[name] for name in ("response", "thinking", "done")} == {
        "response": "a",
        "thinking": "b",
        "done": False,
    }
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "length")
    assert "message" not in last


def test_a_completion_is_generated_text_too() -> None:
    pieces = [
        {"choices": [{"index": 0, "text": text, "finish_reason": end}]} for text, end in (("a", None), ("b", "stop"))
    ]
    told = translated(*pieces, form=GENERATED)
    assert [each["response"] for each in told] == ["a", "b", ""]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_thinking(name: str) -> None:
    first, second, _ = translated(chunk(**{name: "hm"}), chunk("yes"), chunk(finish="stop"))
    assert first["message"] == {"role": "assistant", "content": "", "thinking": "hm"}
    assert second["message"] == {"role": "assistant", "content": "yes"}


def test_what_is_zero_is_not_told() -> None:
    (last,) = translated(chunk(finish="stop"), usage={"prompt_tokens": 5, "completion_tokens": 0})
    assert "eval_count" not in last
    assert last["prompt_eval_count"] == 5


def test_a_call_in_fragments_is_told_whole_before_the_end() -> None:
    called, last = translated(
        calls(fragment(0, "", "weather", "call_abc")),
        calls(fragment(0, '{"to')),
        calls(fragment(0, 'wn":"Graz"}'), fragment(1, "", "time")),
        calls(fragment(1, "")),
        chunk(finish="tool_calls"),
    )
    first, second = called["message"]["tool_calls"]
    assert called["message"]["content"] == ""
    assert not called["done"]
    assert first == {"id": "call_abc", "function": {"index": 0, "name": "weather", "arguments": {"town": "Graz"}}}
    assert second["function"] == {"index": 1, "name": "time", "arguments": {}}
    assert second["id"].startswith("call_")
    assert len(second["id"]) == 13
    assert last["done_reason"] == "stop"
    assert "tool_calls" not in last["message"]


@pytest.mark.parametrize("text", ['{"a":', "[1]", '"a"', '{"a":' + "[" * 300 + "]" * 300 + "}"])
def test_arguments_that_are_no_object_are_told_as_a_text(text: str) -> None:
    called, _ = translated(calls(fragment(0, text, "f")), chunk(finish="tool_calls"))
    assert called["message"]["tool_calls"][0]["function"]["arguments"] == {"arguments": text}


def test_half_a_call_is_not_told_when_the_answer_ended_at_its_length() -> None:
    called, last = translated(
        calls(fragment(0, "{}", "f")), calls(fragment(1, '{"path":"/ho', "delete")), chunk(finish="length")
    )
    assert [each["function"]["name"] for each in called["message"]["tool_calls"]] == ["f"]
    assert last["done_reason"] == "length"


def test_calls_are_told_apart_although_an_engine_numbers_them_alike_or_not_at_all() -> None:
    alike = [fragment(0, '{"n":1}', "f", "a"), fragment(0, '{"n":2}', "f", "b")]
    unnumbered = [{"function": {"name": "f", "arguments": f'{{"n":{n}}}'}} for n in (1, 2)]
    for given_calls in (alike, unnumbered):
        called, _ = translated(calls(given_calls[0]), calls(given_calls[1]), chunk(finish="tool_calls"))
        assert [each["function"]["arguments"] for each in called["message"]["tool_calls"]] == [{"n": 1}, {"n": 2}]


def test_log_probabilities_are_a_list_beside_the_message() -> None:
    top = [{"token": "a", "logprob": -0.5, "bytes": [97]}, {"token": "b", "logprob": -1, "bytes": None}]
    entry = {**top[0], "top_logprobs": top, "sampling_logprob": 1}
    choice = {"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [entry, {"token": 1}], "refusal": None}}
    first, _ = translated({"choices": [choice]})
    assert first["logprobs"] == [{**top[0], "top_logprobs": [top[0], {"token": "b", "logprob": -1}]}]


def test_log_probabilities_of_a_completion_too() -> None:
    told = {
        "tokens": ["a", "ü"],
        "token_logprobs": [None, -0.5],
        "top_logprobs": [None, {"ü": -0.5}],
        "text_offset": [0, 1],
    }
    first, _ = translated({"choices": [{"index": 0, "text": "aü", "logprobs": told}]}, form=GENERATED)
    entry = {"token": "ü", "logprob": -0.5, "bytes": [195, 188]}
    assert first["logprobs"] == [{**entry, "top_logprobs": [entry]}]


# --- whole answers ----------------------------------------------------------------------------------------------------


def test_a_whole_chat_is_one_object_that_is_done() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    told = whole({"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call, call]})
    function = {"name": "f", "arguments": {"a": 1}}
    assert told == {
        "model": "m",
        "created_at": "2026-01-01T00:00:01.000000Z",
        "message": {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [
                {"id": "x", "function": {"index": 0, **function}},
                {"id": "x", "function": {"index": 1, **function}},
            ],
        },
        "done": True,
        "done_reason": "stop",
        "total_duration": 500_000_000,
        "prompt_eval_count": 5,
        "eval_count": 3,
        "eval_duration": 500_000_000,
    }


def test_a_whole_completion_is_a_response() -> None:
    answer = {"choices": [{"index": 0, "text": "a", "finish_reason": "length"}], "usage": USAGE}
    told = AnswerTranslation("m", GENERATED, Ticking()).whole(answer)
    assert (told["response"], told["done"], told["done_reason"]) == ("a", True, "length")


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [1]}, {"choices": [{"message": 1}], "usage": 2}])
def test_an_engine_that_says_nothing_said_nothing(answer: dict[str, Any]) -> None:
    told = AnswerTranslation("m", CHAT_ANSWER, Ticking()).whole(answer)
    assert told["message"] == {"role": "assistant", "content": ""}
    assert told["done_reason"] == "stop"


def embedded(parsed: Any, *vectors: Any) -> Any:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    answer = {"object": "list", "data": data[::-1], "usage": {"prompt_tokens": 4, "total_tokens": 4}}
    return orjson.loads(parsed.speech(EngineKind.VLLM).whole(orjson.dumps(answer)).body)


def test_vectors_have_length_one_and_the_order_of_their_texts() -> None:
    parsed = parse_embed(b'{"model":"m","input":["a","b","c"]}', Ticking())
    told = embedded(parsed, [3, 4], [0, 0], "AAAA")
    assert told == {
        "model": "m",
        "embeddings": [[0.6, 0.8], [0, 0], []],
        "total_duration": 500_000_000,
        "prompt_eval_count": 4,
    }


def test_the_older_answer_has_the_vector_as_it_is() -> None:
    assert embedded(parse_legacy_embeddings(b'{"model":"m","prompt":"a"}'), [3, 4]) == {"embedding": [3, 4]}


# --- whatever an engine says ------------------------------------------------------------------------------------------

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_DELTA = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": _TEXT | st.none(),
        "reasoning_content": _TEXT | st.none(),
        "tool_calls": st.lists(
            st.builds(fragment, st.integers(0, 2), _TEXT, st.sampled_from([None, "f"]), st.sampled_from([None, "a"])),
            max_size=2,
        ),
    },
)
_CHUNK = st.builds(
    lambda delta, finish: {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]},
    _DELTA,
    st.sampled_from([None, None, None, "stop", "length", "tool_calls"]),
) | st.sampled_from([{"choices": []}, {"choices": [{"index": 0, "delta": None, "logprobs": 1}]}, {}])


@given(chunks=st.lists(_CHUNK, max_size=12), form=st.sampled_from([CHAT_ANSWER, GENERATED]))
def test_whatever_comes_is_told_in_lines_of_which_the_last_is_done(
    chunks: list[dict[str, Any]], form: AnswerForm
) -> None:
    writer = AnswerTranslation("m", form, Ticking()).writer(5)
    written = [writer.write(each) for each in chunks]
    assert all(out == b"" or (out.endswith(b"\n") and out.count(b"\n") == 1) for out in written)
    told = objects_in(b"".join(written) + writer.end(USAGE))
    assert [each["done"] for each in told] == [False] * (len(told) - 1) + [True]
    heard = [form.hear(each) for each in told]
    deltas = [choice.get("delta") or {} for each in chunks for choice in each.get("choices", ())]
    assert "".join(part.text for part in heard) == "".join(delta.get("content") or "" for delta in deltas)
    assert "".join(part.thinking for part in heard) == "".join(delta.get("reasoning_content") or "" for delta in deltas)
    for part in heard:
        for call in part.tool_calls:
            assert isinstance(call["function"]["arguments"], dict)


# --- the official client ----------------------------------------------------------------------------------------------

Engine = Callable[[dict[str, Any]], list[dict[str, Any]] | dict[str, Any]]
_PARSERS = {
    "/api/chat": lambda raw: parse_ollama_chat(raw, Ticking()),
    "/api/generate": lambda raw: parse_generate(raw, Ticking()),
    "/api/embed": lambda raw: parse_embed(raw, Ticking()),
    "/api/embeddings": parse_legacy_embeddings,
}


def client_of(engine: Engine, *, breaks: bool = False) -> ollama.Client:
    """A client of a gateway whose engine speaks OpenAI's dialect: chunks for those who stream, an object for others."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked = _PARSERS[request.url.path](request.content)
        assert isinstance(asked, Asked)
        speech = asked.speech(EngineKind.VLLM)
        body = speech.body(streamed=asked.stream, ask_usage=True)
        assert isinstance(body, bytes)
        said = engine(orjson.loads(body))
        if isinstance(said, dict):
            return httpx.Response(200, content=speech.whole(orjson.dumps(said)).body)
        return httpx.Response(200, headers={"content-type": OLLAMA.stream_type}, content=b"".join(stream(asked, said)))

    def stream(asked: Asked, said: list[dict[str, Any]]) -> Iterator[bytes]:
        relayed = asked.speech(EngineKind.VLLM).stream(folds=False, estimated_prompt=9)
        for each in said:
            yield relayed.feed(b"data: " + orjson.dumps(each) + b"\n\n")
        if breaks:
            yield OLLAMA.render(EngineFailed(), "req-1").event
        else:
            relayed.feed(b"data: [DONE]\n\n")
            yield relayed.tail(9)

    return ollama.Client(host="http://gateway", transport=httpx.MockTransport(answer))


def test_the_official_client_chats_streamed() -> None:
    seen: list[dict[str, Any]] = []

    def engine(body: dict[str, Any]) -> list[dict[str, Any]]:
        seen.append(body)
        end = [calls(fragment(0, "{}", "f")), chunk(finish="stop"), {"choices": [], "usage": USAGE}]
        return [chunk("", role="assistant"), chunk("a"), chunk("b"), *end]

    parts = list(client_of(engine).chat("m", [{"role": "user", "content": "hello"}], stream=True, options={"seed": 1}))
    assert "".join(part.message.content or "" for part in parts) == "ab"
    assert [call.function.name for part in parts for call in part.message.tool_calls or ()] == ["f"]
    assert (parts[-1].done, parts[-1].prompt_eval_count, parts[-1].eval_count) == (True, 5, 3)
    assert parts[-1].eval_duration
    assert seen == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "hello"}],
            "seed": 1,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_the_official_client_chats_with_tools_whole() -> None:
    def weather(town: str) -> str:
        """Tells the weather.

        Args:
          town: its name
        """
        return town

    def engine(body: dict[str, Any]) -> dict[str, Any]:
        assert body["tools"][0]["function"]["name"] == "weather"
        assert "stream" not in body
        call = {"id": "x", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Graz"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": USAGE}

    told = client_of(engine).chat("m", [{"role": "user", "content": "?"}], tools=[weather], think=True)
    assert told.message.tool_calls is not None
    assert told.message.tool_calls[0].function.arguments == {"town": "Graz"}
    assert told.done_reason == "stop"


def test_the_official_client_generates() -> None:
    def engine(body: dict[str, Any]) -> list[dict[str, Any]] | dict[str, Any]:
        assert body["messages"][0] == {"role": "system", "content": "s"}
        if "stream" in body:
            return [chunk("a"), chunk("b", finish="stop")]
        message = {"role": "assistant", "content": "ab"}
        return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    client = client_of(engine)
    assert "".join(p.response or "" for p in client.generate("m", "p", system="s", stream=True)) == "ab"
    assert client.generate("m", "p", system="s").response == "ab"


def test_the_official_client_embeds() -> None:
    def engine(body: dict[str, Any]) -> dict[str, Any]:
        return {"data": [{"index": n, "embedding": [0.0, 2.0]} for n, _ in enumerate(body["input"])], "usage": USAGE}

    client = client_of(engine)
    assert client.embed("m", ["a", "b"]).embeddings == [[0.0, 1.0], [0.0, 1.0]]
    assert client.embeddings("m", "a").embedding == [0.0, 2.0]


def test_the_official_client_raises_what_breaks_a_stream() -> None:
    parts = client_of(lambda body: [chunk("a")], breaks=True).chat("m", [{"role": "user", "content": "?"}], stream=True)
    assert next(parts).message.content == "a"
    with pytest.raises(ollama.ResponseError, match="The engine failed"):
        next(parts)


def test_a_cut_answer_ends_at_its_length() -> None:
    asked = parse_ollama_chat(json.dumps({"model": "m", "messages": [{"role": "user"}]}).encode(), Ticking())
    assert isinstance(asked, Asked)
    relayed = asked.speech(EngineKind.VLLM).stream(folds=False, estimated_prompt=9)
    out = relayed.feed(b"data: " + orjson.dumps(chunk("a")) + b"\n\n") + relayed.cut(9) + relayed.tail(9)
    first, last = objects_in(out)
    assert first["message"]["content"] == "a"
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "length", 1)
