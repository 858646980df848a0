"""Bodies that make no sense, at each address that takes JSON: a clear refusal in the address's own dialect, one row, nothing
left running. The engine accepts everything, so that whatever is refused here is refused by the gateway."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forebay.wire.v1 import types_pb2
from tests.compatibility.accepting_engine import demand_rest, open_accepting_house
from tests.compatibility.addresses import (
    CHAT,
    COHERE_RERANK,
    COMPLETION,
    COUNT,
    EMBED,
    EMBEDDING,
    GENERATE,
    IMAGE,
    LEGACY_EMBED,
    MESSAGES,
    MODERATION,
    OF_OLLAMA,
    OLLAMA_CHAT,
    RERANK,
    RESPONSE,
    SCORE,
    SPEECH,
    TAKES_JSON,
    TOKENIZE,
    Address,
    Told,
    demand_no_leak,
    demand_refusal,
    demand_rows,
    told_for,
)
from tests.gateway.house import MODEL

HUGE = 10**30
DEEP = (300, 1_000, 100_000)


def no_objects(address: Address) -> Iterator[bytes]:
    good = address.body()
    yield from (b"", b" \n", b"{", b"{not json}", good[:-1], good + b"}", b"[]", b'"text"', b"17", b"null", b"true")
    yield from (b"\xef\xbb\xbf" + good, b"\xff\xfe" + good, good.replace(b"e", b"\xe9"), b"\0" * 100)
    yield good.replace(b'"hello"', b'"\\ud800"').replace(b'"a"', b'"\\ud800"').replace(b'"a river"', b'"\\ud800"')
    for no_number in (b"NaN", b"Infinity", b"-Infinity", b"1e400", b"01", b"0x10", b"1."):
        yield good[:-1] + b', "temperature": ' + no_number + b"}"
    yield b"[" * 100_000 + b"]" * 100_000
    yield b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield b"model=fake-model&prompt=hello"


def without_what_is_needed(address: Address) -> Iterator[bytes]:
    yield b"{}"
    yield from (address.without("model"), address.body(model=""), address.body(model=None))
    needed = {
        COMPLETION: ("prompt",),
        MESSAGES: ("max_tokens", "messages"),
        SCORE: ("text_1", "text_2"),
        SPEECH: ("input",),
        LEGACY_EMBED: (),  # without a prompt it loads the model
        GENERATE: (),
        OLLAMA_CHAT: (),
        EMBED: (),
    }
    names = needed.get(address, tuple(name for name in address.good if name != "model"))
    for name in names:
        yield from (address.without(name), address.body(**{name: None}), address.body(**{name: {}}))
        if name != "max_tokens" and address is not COHERE_RERANK and name != "query":
            yield from (address.body(**{name: []}), address.body(**{name: 5}))


IN_OTHER_LETTERS = MODEL.upper()
"""To Ollama it is the same model."""


def models_that_there_are_not(address: Address) -> Iterator[tuple[bytes, int]]:
    for name in ("nothing", "../../etc/passwd", IN_OTHER_LETTERS, "fäke", "💧", "x" * 256):
        yield address.body(model=name), 404
    no_names: tuple[Any, ...] = (
        "x" * 10_000,
        "a\0b",
        "\0",
        f"{MODEL}\n",
        "x\r\nx-evil: 1",
        5,
        True,
        [MODEL],
        {"id": MODEL},
    )
    for name in no_names:
        yield address.body(model=name), 400
    yield address.body(Model="another"), 400
    yield address.body(MODEL=MODEL), 400


async def test_what_is_no_json_object_is_refused_at_each_address_in_its_own_dialect(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        seen = []
        for address in TAKES_JSON:
            for body in no_objects(address):
                told = await told_for(house, address, body)
                assert told.status == 400, f"{address} took {body[:200]!r}: {told}"
                demand_refusal(told, address, house)
                seen.append((address, told))
        assert engine.bodies == []
        await demand_rest(house, engine)
        await demand_rows(house, [told for address, told in seen if address.has_row])


async def test_what_a_request_needs_is_asked_for_by_name(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        seen = []
        for address in TAKES_JSON:
            for body in without_what_is_needed(address):
                told = await told_for(house, address, body)
                assert told.status == 400, f"{address} took {body!r}: {told}"
                demand_refusal(told, address, house)
                if address.dialect == "openai":
                    assert json.loads(told.body)["error"]["param"], told
                seen.append((address, told))
        assert engine.bodies == []
        await demand_rest(house, engine)
        await demand_rows(house, [told for address, told in seen if address.has_row])


async def test_a_model_that_there_is_not_is_not_found_and_what_is_no_name_is_bad(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        seen = []
        for address in TAKES_JSON:
            for body, status in models_that_there_are_not(address):
                told = await told_for(house, address, body)
                assert told.status == status, f"{address} took {body[:200]!r}: {told}"
                assert len(demand_refusal(told, address, house)) < 1000
                seen.append((address, told))
        assert engine.bodies == []
        await demand_rest(house, engine)
        await demand_rows(house, [told for address, told in seen if address.has_row])


_WHOLE: tuple[Any, ...] = ("x", True, 1.5, 0, -1, 2**63, 2**64, HUGE, [], {})
_FLAG: tuple[Any, ...] = ("yes", 1, 0, [], {})
_OBJECT: tuple[Any, ...] = ("x", True, 5, ["x"])
_TEXT: tuple[Any, ...] = (True, 5, ["x"], {})
_NUMBER: tuple[Any, ...] = ("x", True, ["x"], {})

REFUSED: tuple[tuple[Address, str, tuple[Any, ...]], ...] = (
    (CHAT, "n", (*_WHOLE, 129)),
    (CHAT, "max_tokens", _WHOLE),
    (CHAT, "max_completion_tokens", _WHOLE),
    (CHAT, "stream", _FLAG),
    (CHAT, "stream_options", (*_OBJECT, [], {"include_usage": 1})),
    (CHAT, "messages", ("x", True, 5, [], {}, ["x"], [None], [[]])),
    (COMPLETION, "n", (*_WHOLE, 129)),
    (COMPLETION, "best_of", (*_WHOLE, 129)),
    (COMPLETION, "max_tokens", ("x", True, 1.5, -1, 2**63, 2**64, HUGE, [], {})),
    (COMPLETION, "stream", _FLAG),
    (COMPLETION, "prompt", (True, 5, {}, [], [None], [1, "x"], [[1], 2], [["x"]], ["x"] * 129)),
    (RESPONSE, "max_output_tokens", _WHOLE),
    (RESPONSE, "stream", _FLAG),
    (RESPONSE, "store", _FLAG),
    (RESPONSE, "background", _FLAG),
    (RESPONSE, "input", (True, 5, {}, [], ["x"], [{}], [{"role": "user"}], [{"role": 5, "content": "x"}])),
    (RESPONSE, "instructions", _TEXT),
    (RESPONSE, "temperature", _NUMBER),
    (RESPONSE, "top_p", _NUMBER),
    (RESPONSE, "top_logprobs", ("x", True, 1.5, -1, 21, HUGE, [])),
    (RESPONSE, "metadata", (*_OBJECT, {"a": 5}, {"a": "x" * 513}, {"x" * 65: "a"})),
    (RESPONSE, "tools", ("x", True, 5, {}, ["x"], [{}], [{"type": "function"}], [{"type": "function", "name": 5}])),
    (RESPONSE, "tool_choice", (True, 5, [], {}, "maybe", {"type": "function"}, {"type": "function", "name": "x"})),
    (RESPONSE, "text", (*_OBJECT, {"format": "x"}, {"format": {}}, {"format": {"type": "json_schema"}})),
    (RESPONSE, "reasoning", (*_OBJECT, {"effort": 5})),
    (RESPONSE, "include", ("x", True, 5, {}, [5])),
    (RESPONSE, "truncation", (*_TEXT, "maybe")),
    (EMBEDDING, "input", (True, 5, {}, [], [None], [1, "x"], [{}], ["x"] * 2049)),
    (EMBEDDING, "dimensions", _WHOLE),
    (EMBEDDING, "encoding_format", (*_TEXT, "int8")),
    (MESSAGES, "max_tokens", _WHOLE),
    (MESSAGES, "stream", _FLAG),
    (MESSAGES, "messages", ("x", True, 5, [], {}, ["x"], [{}], [{"role": "user"}], [{"role": "user", "content": 5}])),
    (MESSAGES, "system", (True, 5, {}, ["x"], [{}], [{"type": "image"}])),
    (MESSAGES, "temperature", _NUMBER),
    (MESSAGES, "top_p", _NUMBER),
    (MESSAGES, "top_k", _NUMBER),
    (MESSAGES, "stop_sequences", ("x", True, 5, {}, [5])),
    (MESSAGES, "metadata", (*_OBJECT, {"user_id": 5})),
    (MESSAGES, "tools", ("x", True, 5, {}, ["x"], [{}], [{"name": "x"}], [{"name": 5, "input_schema": {}}])),
    (MESSAGES, "tool_choice", ("auto", True, 5, [], {}, {"type": "maybe"}, {"type": "any"})),
    (MESSAGES, "thinking", (*_OBJECT, {}, {"type": "maybe"}, {"type": "enabled", "budget_tokens": "x"})),
    (COUNT, "messages", ("x", True, 5, [], {}, ["x"], [{}])),
    (COUNT, "system", (True, 5, {}, ["x"])),
    (OLLAMA_CHAT, "messages", (True, 5, {}, ["x"], [{"role": 5}], [{"content": 5}], [{"tool_calls": ["x"]}])),
    (OLLAMA_CHAT, "tools", (True, 5, {}, "x")),
    (OLLAMA_CHAT, "top_logprobs", ("x", True, 1.5, -1, 21, HUGE, [])),
    *(
        (address, name, values)
        for address in (OLLAMA_CHAT, GENERATE)
        for name, values in (
            ("stream", _FLAG),
            ("options", ("x", True, 5, ["x"], {"temperature": "x"}, {"top_k": 1.5}, {"seed": HUGE}, {"stop": 5})),
            ("options", ({"num_predict": 2**63}, {"num_predict": HUGE}, {"num_predict": 0.5}, {"top_p": [1]})),
            ("format", (True, 5, [], "xml")),
            ("think", (5, [], {}, "much")),
            ("keep_alive", (True, [], {}, "soon", "5", "1" * 100_000, "1." * 50_000)),
        )
    ),
    (GENERATE, "prompt", (True, 5, [], {})),
    (GENERATE, "system", _TEXT),
    (GENERATE, "images", (True, 5, {}, "x", [5])),
    (GENERATE, "raw", _FLAG),
    (EMBED, "input", (True, 5, {}, [5], ["x", None])),
    (EMBED, "dimensions", ("x", True, 1.5, -1, 2**63, HUGE, [])),
    (EMBED, "truncate", _FLAG),
    (LEGACY_EMBED, "prompt", (True, 5, [], {})),
    *((address, "documents", ("x", True, 5, [], {}, [5], [{}], ["x"] * 2049)) for address in (RERANK, COHERE_RERANK)),
    *((address, "top_n", _WHOLE) for address in (RERANK, COHERE_RERANK)),
    *((address, "query", (True, 5, [], {})) for address in (RERANK, COHERE_RERANK)),
    (RERANK, "return_documents", _FLAG),
    (SCORE, "text_1", (True, 5, {}, [], ["a", "b", "c"])),
    (SCORE, "text_2", (True, 5, {}, [], [None])),
    (MODERATION, "input", (True, 5, {}, [], "")),
    (IMAGE, "n", (*_WHOLE, 11)),
    (IMAGE, "prompt", (True, 5, [], {}, "")),
    (IMAGE, "stream", (*_FLAG, True)),
    (SPEECH, "input", (True, 5, [], {}, "")),
    (TOKENIZE, "messages", ("x", True, 5, [], {}, ["x"])),
    (TOKENIZE, "prompt", (True, 5, [], {}, None)),
)
"""What the gateway relies on, by address and field: each value is refused by name."""


async def test_fields_that_the_gateway_relies_on_are_refused_by_name_when_they_are_wrong(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        seen = []
        for address, name, values in REFUSED:
            for value in values:
                told = await told_for(house, address, address.body(**{name: value}))
                asked = f"{address} {name}={json.dumps(value)[:100]}"
                assert told.status == 400, f"{asked}: {told}"
                message = demand_refusal(told, address, house)
                if address.dialect == "openai":
                    param = json.loads(told.body)["error"]["param"]
                    assert re.match(rf"{re.escape(name)}\b", param), f"{asked}: {told}"
                assert len(message) < 1000, asked
                seen.append((address, told))
        assert engine.bodies == []
        await demand_rest(house, engine)
        await demand_rows(house, [told for address, told in seen if address.has_row])


_ANY_NUMBER: tuple[Any, ...] = (-1, 0, 2**63, 2**64, HUGE, 1.5, -0.0, "5", None)
_ANYTHING: tuple[Any, ...] = (None, True, 5, "x", [], {}, [[]], {"type": "x"})

PASSED_ON: tuple[tuple[Address, tuple[str, ...], tuple[Any, ...]], ...] = (
    (CHAT, ("temperature", "top_p", "top_k", "seed", "top_logprobs"), _ANY_NUMBER),
    (CHAT, ("tools", "stop", "tool_choice", "response_format", "metadata", "logit_bias", "functions"), _ANYTHING),
    (COMPLETION, ("temperature", "top_p", "seed", "logprobs"), _ANY_NUMBER),
    (COMPLETION, ("stop", "suffix", "echo", "logit_bias"), _ANYTHING),
    (RESPONSE, ("temperature", "top_p", "seed"), (-1, 0, 2**63, 1.5e300, None)),
    (RESPONSE, ("user", "safety_identifier", "tools", "metadata", "include"), (None,)),
    (MESSAGES, ("temperature", "top_p", "top_k"), (-1, 0, 2**63, HUGE, 1.5, None)),
    (MESSAGES, ("tools", "stop_sequences", "system"), ([], None)),
    (MESSAGES, ("cache_control", "container", "service_tier", "min_p"), _ANYTHING),
    (COUNT, ("max_tokens", "temperature", "tools"), (None, 0)),
    (OLLAMA_CHAT, ("options",), (None, {}, "", {"num_ctx": HUGE}, {"num_predict": -2}, {"top_k": -1}, {"stop": []})),
    (OLLAMA_CHAT, ("tools", "format", "think", "keep_alive"), (None, "")),
    (OLLAMA_CHAT, ("template", "context", "num_ctx"), _ANYTHING),
    (OLLAMA_CHAT, ("messages",), (None, [], "")),
    (GENERATE, ("options",), (None, {}, {"num_ctx": 2**63}, {"num_predict": 0}, {"temperature": -5})),
    (GENERATE, ("prompt",), (None, "")),
    (EMBED, ("options", "keep_alive"), (None,)),
    (EMBED, ("input",), (None, "", [], [""])),
    (EMBEDDING, ("user", "input_type"), _ANYTHING),
    (RERANK, ("max_tokens_per_doc", "rank_fields"), _ANYTHING),
    (SCORE, ("truncate_prompt_tokens",), _ANYTHING),
    (MODERATION, ("input",), (["a", "b"], [{"type": "text", "text": "a"}], [5], [None])),
    (IMAGE, ("size", "quality", "response_format", "seed"), _ANYTHING),
    (SPEECH, ("voice", "speed", "response_format", "instructions"), _ANYTHING),
    (TOKENIZE, ("add_generation_prompt", "tools"), _ANYTHING),
)
"""What engines judge, each in its own way, or what means nothing."""


@pytest.mark.parametrize("kind", [types_pb2.ENGINE_KIND_VLLM, types_pb2.ENGINE_KIND_LLAMACPP])
async def test_what_only_engines_judge_passes_or_is_refused_clearly_and_never_fails(
    tmp_path: Path, kind: types_pb2.EngineKind.ValueType
) -> None:
    async with open_accepting_house(tmp_path, kind) as (house, engine):
        seen: list[tuple[Address, Told]] = []
        for address, names, values in PASSED_ON:
            for name in names:
                for value in values:
                    told = await told_for(house, address, address.body(**{name: value}))
                    if told.status != 200:
                        asked = f"{address} {name}={value!r}"
                        assert told.status == 400, f"{asked}: {told}"
                        demand_refusal(told, address, house)
                    seen.append((address, told))
        assert sum(told.status == 200 for _, told in seen) > 0.9 * len(seen)
        await demand_rest(house, engine)
        await demand_rows(house, [told for address, told in seen if address.has_row])


async def test_bodies_that_pass_to_ollama_in_its_own_words_are_checked_all_the_same(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path, types_pb2.ENGINE_KIND_OLLAMA) as (house, engine):
        seen = []
        bad = [(address, address.body(**{name: value})) for address, name, values in REFUSED for value in values]
        bad += [(address, body) for address in OF_OLLAMA for body, _ in models_that_there_are_not(address)]
        for address, body in bad:
            if address in OF_OLLAMA and IN_OTHER_LETTERS.encode() not in body:
                told = await told_for(house, address, body)
                assert told.status in (400, 404), f"{address} {body[:200]!r}: {told}"
                demand_refusal(told, address, house)
                seen.append(told)
        assert engine.bodies == []
        for address in OF_OLLAMA:
            told = await told_for(house, address, address.body(options=None, stream=False))
            assert told.status == 200, told
            seen.append(told)
        await demand_rest(house, engine)
        await demand_rows(house, seen)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def nested_objects(depth: int) -> str:
    return '{"type":"object","properties":' * depth + "{}" + "}" * depth


def deep_bodies(address: Address, depth: int) -> Iterator[bytes]:
    """With something nested where it is passed on, and where the gateway has a look at it."""
    lists, objects = nested(depth), nested_objects(depth // 2)
    tool = {"type": "function", "name": "f", "function": {"name": "f", "parameters": "HERE"}}
    tool |= {"parameters": "HERE", "input_schema": "HERE"}
    if address.dialect == "anthropic":
        tool["type"] = "custom"
    content = [{"type": "text", "text": "x", "more": "HERE"}, {"type": "HERE"}]
    places: list[dict[str, Any]] = [
        {"unknown": "HERE"},
        {"tools": [tool]},
        {"metadata": {"a": "HERE"}},
        {"options": {"a": "HERE"}},
        {"messages": [{"role": "user", "content": "HERE"}]},
        {"messages": [{"role": "user", "content": content}]},
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": "HERE"}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "HERE"}}]}]},
        {
            "messages": [
                {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": "HERE"}]}
            ]
        },
        {"input": "HERE"},
        {"prompt": "HERE"},
        {"documents": "HERE"},
        {"format": "HERE"},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": "HERE"}}},
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": "HERE"}}},
    ]
    for place in places:
        body = address.body(**place).decode()
        yield body.replace('"HERE"', objects).encode()
        yield (body[:-1] + ', "stream": true}').replace('"HERE"', lists).encode()


@pytest.mark.parametrize("depth", DEEP)
async def test_however_deep_a_body_is_nested_the_gateway_neither_fails_nor_sends_on_what_is_no_json(
    tmp_path: Path, depth: int
) -> None:
    chats = (CHAT, RESPONSE, MESSAGES, COUNT, OLLAMA_CHAT, TOKENIZE)
    async with open_accepting_house(tmp_path) as (house, engine):
        seen = []
        for address in TAKES_JSON if depth == min(DEEP) else chats:
            for body in deep_bodies(address, depth):
                told = await told_for(house, address, body)
                if told.status != 200 or depth == max(DEEP):
                    assert told.status == 400, f"{address} {body[:200]!r}: {told}"
                    demand_refusal(told, address, house)
                seen.append((address, told))
        await demand_rest(house, engine)
        await demand_rows(house, [told for address, told in seen if address.has_row])


async def test_of_a_key_that_comes_twice_the_last_one_counts_for_the_gateway_and_the_engine_alike(
    tmp_path: Path,
) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        for first, last, status in (("nothing", MODEL, 200), (MODEL, "nothing", 404)):
            body = CHAT.body(model=last).replace(b"{", f'{{"model": "{first}", "n": 200, '.encode(), 1)
            told = await told_for(house, CHAT, body[:-1] + b', "n": 1}')
            assert told.status == status, told
            demand_no_leak(told, house)
        assert [body["model"] for body in engine.bodies] == [MODEL]
        await demand_rest(house, engine)
