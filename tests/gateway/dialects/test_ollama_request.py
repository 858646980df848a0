"""Ollama's requests: what other engines get for them, what Ollama's own get, and what is refused with which words."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.forms import CHAT, COMPLETION, EMBEDDING
from forebay_gateway.dialects.ollama.embedding_request import parse_embed, parse_legacy_embeddings
from forebay_gateway.dialects.ollama.loading import Loading
from forebay_gateway.dialects.ollama.native import NothingToSay
from forebay_gateway.dialects.ollama.request import parse_generate, parse_ollama_chat
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.refused import BadField

Parser = Callable[[bytes], Asked | Loading]

HELLO = [{"role": "user", "content": "hello"}]
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()


def chat(raw: bytes) -> Asked | Loading:
    return parse_ollama_chat(raw, lambda: 0.0)


def generate(raw: bytes) -> Asked | Loading:
    return parse_generate(raw, lambda: 0.0)


def embed(raw: bytes) -> Asked | Loading:
    return parse_embed(raw, lambda: 0.0)


PARSERS: list[Parser] = [chat, generate, embed, parse_legacy_embeddings]


def asked(parse: Parser = chat, **body: Any) -> Asked:
    usual: dict[str, Any] = {"messages": HELLO} if parse is chat else {}
    parsed = parse(orjson.dumps({"model": "m", **usual, **body}))
    assert isinstance(parsed, Asked)
    return parsed


def loading(parse: Parser = chat, **body: Any) -> Loading:
    parsed = parse(orjson.dumps({"model": "m", **body}))
    assert isinstance(parsed, Loading)
    return parsed


def refused(parse: Parser = chat, **body: Any) -> BadField:
    with pytest.raises(BadField) as caught:
        asked(parse, **body)
    return caught.value


def fields_of(parse: Parser = chat, **body: Any) -> dict[str, Any]:
    """What other engines get, but for the model and the conversation."""
    told = asked(parse, **body).fields
    return {name: value for name, value in told.items() if name not in ("model", "messages", "prompt")}


def messages_of(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = asked(messages=list(messages)).fields["messages"]
    return told


def native(parsed: Asked, *, streamed: bool = True) -> Any:
    speech = parsed.speech(EngineKind.OLLAMA)
    body = speech.body(streamed=streamed, ask_usage=True)
    assert isinstance(body, bytes)
    return orjson.loads(body)


# --- what every request has -------------------------------------------------------------------------------------------


def test_a_plain_chat_is_streamed_and_needs_one_slot() -> None:
    parsed = asked()
    assert (parsed.form, parsed.model, parsed.stream, parsed.width, parsed.choices) == (CHAT, "m", True, 1, 1)
    assert (parsed.max_output_tokens, parsed.include_usage, parsed.raw) == (0, True, b"")
    assert parsed.fields == {"model": "m", "messages": HELLO}


@pytest.mark.parametrize(("told", "meant"), [(None, True), (True, True), (False, False)])
def test_only_a_false_ends_streaming(told: bool | None, meant: bool) -> None:
    assert asked(stream=told).stream is meant
    assert asked(generate, prompt="p", stream=told).stream is meant


def test_the_model_may_be_called_name() -> None:
    parsed = chat(orjson.dumps({"name": "m", "messages": HELLO}))
    assert isinstance(parsed, Asked)
    assert parsed.model == "m"
    assert native(parsed) == {"model": "m", "messages": HELLO, "stream": True}


@pytest.mark.parametrize("parse", PARSERS)
def test_a_request_without_a_model_is_told_so_in_ollamas_words(parse: Parser) -> None:
    for body in ({}, {"model": ""}, {"model": None, "name": ""}):
        with pytest.raises(BadField, match=r"^model is required$"):
            parse(orjson.dumps(body))
    with pytest.raises(BadField, match=r"^missing request body$"):
        parse(b" ")


def test_nulls_empty_texts_and_empty_lists_are_as_if_not_there() -> None:
    empty: dict[str, Any] = {
        "options": None,
        "format": "",
        "think": None,
        "keep_alive": None,
        "tools": [],
        "logprobs": None,
    }
    assert fields_of(**empty) == {}
    assert fields_of(generate, prompt="p", suffix="", system="", template="", context=None, images=[], **empty) == {}
    assert messages_of({"role": "user", "content": "x", "images": None, "tool_calls": [], "thinking": ""}) == [
        {"role": "user", "content": "x"}
    ]


# --- how to generate --------------------------------------------------------------------------------------------------


def test_options_have_their_names_in_the_other_dialect_and_those_of_ollamas_runner_have_none() -> None:
    options = {
        "num_predict": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40.0,
        "min_p": 0.1,
        "seed": -1,
        "stop": ["a", ""],
        "repeat_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "num_ctx": 4096,
        "mirostat": 2,
        "typical_p": None,
    }
    told = fields_of(options=options)
    assert told == {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "seed": -1,
        "stop": ["a"],
        "repetition_penalty": 1.1,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
    }
    assert isinstance(told["top_k"], int)
    assert asked(options=options).max_output_tokens == 7
    assert native(asked(options=options))["options"] == options


@pytest.mark.parametrize("limit", [-1, -2, 0])
def test_a_limit_below_one_is_none(limit: int) -> None:
    parsed = asked(options={"num_predict": limit})
    assert parsed.max_output_tokens == 0
    assert "max_tokens" not in parsed.fields


def test_a_single_stop_is_a_list_of_one() -> None:
    assert fields_of(options={"stop": "x"}) == {"stop": ["x"]}
    assert fields_of(options={"stop": ""}) == {}


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": 1.5}, "top_k"),
        ({"seed": 1e300}, "seed"),
        ({"seed": True}, "seed"),
        ({"num_predict": 1 << 40}, "options.num_predict"),
        ({"stop": [1]}, "stop"),
        ([], "options"),
    ],
)
def test_a_wrong_option_is_named(options: Any, param: str) -> None:
    assert refused(options=options).param == param


def test_a_format_becomes_a_response_format() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert fields_of(format="json") == {"response_format": {"type": "json_object"}}
    assert fields_of(format=schema) == {
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    }
    assert "invalid format" in refused(format="xml").message


def test_thinking_is_switched_or_has_a_degree() -> None:
    assert fields_of(think=True) == {"chat_template_kwargs": {"enable_thinking": True}}
    assert fields_of(think=False) == {"chat_template_kwargs": {"enable_thinking": False}}
    for word, effort in (("low", "low"), ("medium", "medium"), ("high", "high"), ("max", "high")):
        assert fields_of(think=word) == {
            "reasoning_effort": effort,
            "chat_template_kwargs": {"enable_thinking": True},
        }
    for nonsense in ("extreme", 1, ["low"], {"high": True}):
        assert "invalid think value" in refused(think=nonsense).message


def test_log_probabilities_are_asked_for_only_when_wanted() -> None:
    assert fields_of(logprobs=True, top_logprobs=3) == {"logprobs": True, "top_logprobs": 3}
    assert fields_of(top_logprobs=3) == {}
    for number in (-1, 21):
        assert refused(logprobs=True, top_logprobs=number).message == "top_logprobs must be between 0 and 20"


# --- conversations ----------------------------------------------------------------------------------------------------


def test_roles_are_lower_case() -> None:
    assert messages_of({"role": "USER", "content": "x"})[0]["role"] == "user"


@pytest.mark.parametrize(
    ("begin", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBP", "image/webp"),
        (b"RIFF\0\0\0\0WAVE", "application/octet-stream"),
    ],
)
def test_images_become_parts_before_the_text_by_their_first_bytes(begin: bytes, media_type: str) -> None:
    image = base64.b64encode(begin + bytes(40)).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{image}"}}
    assert messages_of({"role": "user", "content": "what?", "images": [image]}) == [
        {"role": "user", "content": [part, {"type": "text", "text": "what?"}]}
    ]
    assert asked(generate, prompt="what?", images=[image]).fields["messages"] == [
        {"role": "user", "content": [part, {"type": "text", "text": "what?"}]}
    ]


def test_an_image_without_text_stands_alone_and_what_is_no_base64_is_the_engines_to_judge() -> None:
    (message,) = messages_of({"role": "user", "content": "", "images": ["§"]})
    assert [part["type"] for part in message["content"]] == ["image_url"]


def test_thoughts_of_earlier_turns_are_kept() -> None:
    assert messages_of({"role": "assistant", "content": "yes", "thinking": "hm"}) == [
        {"role": "assistant", "content": "yes", "reasoning_content": "hm"}
    ]


def call(name: str, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": {"town": "Graz"}}, **more}


def test_calls_get_ids_and_results_name_the_call_that_they_answer() -> None:
    told = messages_of(
        {"role": "assistant", "content": "", "tool_calls": [call("a"), call("b"), call("a")]},
        {"role": "tool", "content": "of b", "tool_name": "b"},
        {"role": "tool", "content": "of the first a", "tool_name": "a"},
        {"role": "tool", "content": "of what is left"},
        {"role": "tool", "content": "of nothing"},
    )
    ids = [made["id"] for made in told[0]["tool_calls"]]
    assert [m["tool_call_id"] for m in told[1:4]] == [ids[1], ids[0], ids[2]]
    assert told[4]["tool_call_id"] not in ids
    assert len(set(ids)) == 3
    for made in told[0]["tool_calls"]:
        assert made["id"].startswith("call_")
        assert made["id"][5:].isalnum()
        assert made["id"] == made["id"].lower()
        assert len(made["id"]) == 13
        assert made["type"] == "function"
        assert made["function"]["arguments"] == '{"town":"Graz"}'


def test_ids_that_the_client_gave_are_kept() -> None:
    told = messages_of(
        {"role": "assistant", "tool_calls": [call("a", id="call_1"), call("a", id="call_2")]},
        {"role": "tool", "content": "x", "tool_call_id": "call_2"},
        {"role": "tool", "content": "y", "tool_name": "a"},
    )
    assert [made["id"] for made in told[0]["tool_calls"]] == ["call_1", "call_2"]
    assert [m["tool_call_id"] for m in told[1:]] == ["call_2", "call_1"]


def test_ids_are_the_same_when_the_conversation_comes_again() -> None:
    turns: list[dict[str, Any]] = [{"role": "assistant", "tool_calls": [call("a")]}, {"role": "tool", "content": "x"}]
    assert messages_of(*turns) == messages_of(*turns, {"role": "user", "content": "and?"})[:2]


def test_arguments_that_are_a_text_already_stay_so_and_none_are_an_empty_object() -> None:
    told = messages_of(
        {"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": '{"b":1}'}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "a"}}]},
    )
    assert [m["tool_calls"][0]["function"]["arguments"] for m in told] == ['{"b":1}', "{}"]


def test_tools_pass_as_they_are() -> None:
    tools = [{"type": "function", "function": {"name": "a", "parameters": {"type": ["object"]}}}]
    assert fields_of(tools=tools) == {"tools": tools}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ("x", "messages"),
        ([1], "messages[0]"),
        ([{"role": 1}], "role"),
        ([{"content": ["x"]}], "content"),
        ([{"images": [1]}], "images"),
        ([{"tool_calls": [{}]}], "messages[0].tool_calls[0].function"),
    ],
)
def test_a_wrong_message_is_named(messages: Any, param: str) -> None:
    assert refused(messages=messages).param == param


# --- generate ---------------------------------------------------------------------------------------------------------


def test_a_prompt_becomes_a_conversation() -> None:
    parsed = asked(generate, prompt="p", system="s", template="t", context=[1])
    assert parsed.form is CHAT
    assert parsed.fields == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}],
    }


def test_a_raw_prompt_becomes_a_completion() -> None:
    parsed = asked(generate, prompt="p", raw=True, think=True, logprobs=True, options={"num_predict": 3})
    assert parsed.form is COMPLETION
    assert parsed.fields == {"model": "m", "prompt": "p", "max_tokens": 3, "logprobs": 1}
    for more in ({"template": "t"}, {"system": "s"}, {"context": [1]}):
        assert "raw mode does not support" in refused(generate, prompt="p", raw=True, **more).message


@pytest.mark.parametrize(("param", "more"), [("suffix", {"suffix": "s"}), ("images", {"raw": True, "images": [PNG]})])
def test_what_only_ollama_can_do_is_refused_by_name_on_other_engines(param: str, more: dict[str, Any]) -> None:
    parsed = asked(generate, prompt="p", **more)
    assert native(parsed).items() >= more.items()
    for kind in EngineKind:
        if kind is not EngineKind.OLLAMA:
            with pytest.raises(BadField) as caught:
                parsed.speech(kind).body(streamed=True, ask_usage=True)
            assert caught.value.param == param
            assert f"`{param}`" in caught.value.message


# --- loading ----------------------------------------------------------------------------------------------------------


def test_an_empty_conversation_loads_the_model_and_says_so() -> None:
    for nothing in ({"messages": None}, {"messages": list[Any]()}, {}):
        told = loading(stream=True, **nothing)
        assert (told.model, told.path, told.is_unload) == ("m", "/api/chat", False)
        assert told.answer("2026-01-01T00:00:00Z") == {
            "model": "m",
            "created_at": "2026-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "load",
        }


def test_an_empty_prompt_that_is_to_be_kept_for_no_time_unloads_it() -> None:
    for zero in (0, 0.0, "0", "0s", "0h0m", "-0ms"):
        told = loading(generate, prompt="", keep_alive=zero, suffix="")
        assert told.is_unload
        assert told.answer("t") == {
            "model": "m",
            "created_at": "t",
            "response": "",
            "done": True,
            "done_reason": "unload",
        }
        body = {"model": "m:latest", "prompt": "", "keep_alive": zero, "suffix": ""}
        assert orjson.loads(told.native_body("m:latest")) == body


@pytest.mark.parametrize("forever", [None, "", -1, "-1s", 300, 0.5, "5m", "1h30m", "1.5h", ".5s", "10µs"])
def test_any_other_time_loads_it(forever: Any) -> None:
    assert not loading(generate, keep_alive=forever).is_unload


@pytest.mark.parametrize("nonsense", [True, False, "5", "m", "5 m", "٣m", [], {}])
def test_a_time_that_is_none_is_refused(nonsense: Any) -> None:
    for parse in PARSERS:
        with pytest.raises(BadField) as caught:
            parse(orjson.dumps({"model": "m", "keep_alive": nonsense}))
        assert caught.value.param == "keep_alive"


# --- embeddings -------------------------------------------------------------------------------------------------------


def test_texts_to_embed_are_one_batch() -> None:
    parsed = asked(embed, input=["a", ""], dimensions=64, options={"num_ctx": 1}, truncate=True)
    assert (parsed.form, parsed.stream, parsed.width, parsed.choices) == (EMBEDDING, False, 1, 2)
    assert parsed.fields == {
        "model": "m",
        "input": ["a", ""],
        "dimensions": 64,
        "truncate_prompt_tokens": -1,
    }
    assert asked(embed, input="a", dimensions=0, truncate=None).fields == {"model": "m", "input": ["a"]}
    assert native(parsed)["options"] == {"num_ctx": 1}
    assert "stream" not in native(parsed)


@pytest.mark.parametrize("nothing", [None, "", []])
def test_no_texts_have_no_vectors(nothing: Any) -> None:
    assert loading(embed, input=nothing).answer("t") == {"model": "m", "embeddings": []}


@pytest.mark.parametrize("nonsense", [1, True, {}, [1], ["a", None], [[1]]])
def test_only_texts_are_embedded(nonsense: Any) -> None:
    assert refused(embed, input=nonsense).message == "invalid input type"


def test_the_older_request_has_one_prompt() -> None:
    parsed = asked(parse_legacy_embeddings, prompt="a")
    assert parsed.fields == {"model": "m", "input": ["a"]}
    assert loading(parse_legacy_embeddings, prompt="").answer("t") == {"embedding": []}
    assert native(parsed) == {"model": "m", "prompt": "a"}


# --- whatever comes ---------------------------------------------------------------------------------------------------

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_MESSAGE = st.dictionaries(
    st.sampled_from(["role", "content", "images", "thinking", "tool_calls", "tool_name", "tool_call_id", "name"]),
    st.sampled_from(["user", "tool", "assistant", "", None]) | st.lists(_VALUES, max_size=2) | _VALUES,
)
_BODY = st.fixed_dictionaries(
    {"model": st.just("m") | _VALUES},
    optional={
        "messages": st.lists(_MESSAGE, max_size=3) | _VALUES,
        "prompt": st.text(max_size=5) | _VALUES,
        "input": st.lists(st.text(max_size=5), max_size=3) | _VALUES,
        "options": st.dictionaries(st.sampled_from(["num_predict", "stop", "seed", "top_p", "num_ctx"]), _VALUES),
        **dict.fromkeys(
            ("stream", "keep_alive", "format", "think", "tools", "raw", "suffix", "images", "logprobs", "top_logprobs"),
            _VALUES,
        ),
    },
)


PROVIDERS = (EngineKind.ANTHROPIC, EngineKind.COHERE, EngineKind.GEMINI)


@pytest.mark.parametrize("parse", PARSERS)
@given(body=_BODY)
def test_whatever_comes_is_asked_or_loaded_or_refused(parse: Parser, body: dict[str, Any]) -> None:
    try:
        parsed = parse(orjson.dumps(body))
    except BadField:
        return
    if isinstance(parsed, Loading):
        orjson.dumps(parsed.answer("t"))
        orjson.loads(parsed.native_body("other"))
        return
    for kind in EngineKind:
        speech = parsed.speech(kind)
        if isinstance(speech, NothingToSay):
            continue
        try:
            told = speech.body(streamed=parsed.stream, ask_usage=True)
        except BadField:
            assert kind in PROVIDERS  # which have no words for much
            continue
        assert isinstance(told, bytes)
        assert kind is EngineKind.GEMINI or orjson.loads(told)["model"] == parsed.model
    parsed.form.prefix_hashes("m", "someone", parsed.fields)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("raw", [b"[]", b"1", b"{", b"\xff"])
def test_what_is_no_object_is_refused(parse: Parser, raw: bytes) -> None:
    with pytest.raises(BadField):
        parse(raw)


@pytest.mark.parametrize("kind", [EngineKind.OLLAMA, EngineKind.VLLM])
def test_what_is_too_deep_to_be_written_again_is_refused(kind: EngineKind) -> None:
    deep = b'{"x":' + b"[" * 300 + b"]" * 300 + b"}"
    parsed = chat(b'{"model":"m","messages":[{"content":"hello"}],"format":' + deep + b"}")
    assert isinstance(parsed, Asked)
    with pytest.raises(BadField, match="too deeply"):
        parsed.speech(kind).body(streamed=True, ask_usage=True)


def test_arguments_that_are_too_deep_to_be_written_are_refused() -> None:
    arguments = b"[" * 300 + b"]" * 300
    call = b'{"function":{"name":"f","arguments":' + arguments + b"}}"
    with pytest.raises(BadField, match="too deeply"):
        chat(b'{"model":"m","messages":[{"tool_calls":[' + call + b"]}]}")
