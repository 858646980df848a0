"""Answers that a request wishes for: calls, thoughts, documents, echoes, images, log probabilities, on each of the wires."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Answer, BadOrder, Pace, answer, order_chat, order_ollama
from tests.fakes.engine_wishes import Call

OPENAI = "/v1/chat/completions"
PICTURE = base64.b64encode(b"not really a picture").decode()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
ARGUMENTS = '{"city": "text", "days": 1}'
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
CLOCK = {"type": "function", "function": {"name": "clock"}}
TOOLS = [WEATHER, CLOCK]


def user(text: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "fake-model", "messages": [{"role": "user", "content": text}], **fields}


def made(body: dict[str, Any], answer_tokens: int = 2) -> Answer:
    return answer(order_chat(body), Pace(answer_tokens=answer_tokens), context_tokens=4096)


@pytest.mark.parametrize(
    ("text", "answers", "said"),
    [
        ("answer wrongly", 0, '{"wrong": true}'),
        ("answer wrongly", 1, ARGUMENTS),
        ("answer wrongly twice", 1, '{"wrong": true}'),
        ("answer wrongly always", 5, '{"wrong": true}'),
        ("answer in prose", 0, "I would rather talk."),
        ("answer fenced", 0, f"```json\n{ARGUMENTS}\n```"),
    ],
)
def test_a_document_is_wrong_as_often_as_a_request_wishes(text: str, answers: int, said: str) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    body = user(text, response_format=form)
    body["messages"] += [{"role": "assistant", "content": "?"}, {"role": "user", "content": "Again."}] * answers
    assert made(body).text == said
    told = [{"role": "system", "content": f"Keep to this JSON schema: {json.dumps(SCHEMA)}"}, *body["messages"]]
    assert made(user(text) | {"messages": told}).text == said


@pytest.fixture
async def quick() -> AsyncIterator[FakeEngine]:
    """Two tokens an answer, and they cost no time."""
    async with FakeEngine(pace=Pace(tokens_per_s=1e6, ttft_s=0, answer_tokens=2)) as engine:
        yield engine


async def whole(session: aiohttp.ClientSession, engine: FakeEngine, path: str, body: dict[str, Any]) -> Any:
    async with session.post(engine.url + path, json=body | {"stream": False}) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def streamed(
    session: aiohttp.ClientSession, engine: FakeEngine, path: str, body: dict[str, Any]
) -> list[dict[str, Any]]:
    async with session.post(engine.url + path, json=body | {"stream": True}) as response:
        assert response.status == 200, await response.text()
        lines = [line.removeprefix("data: ") for line in (await response.text()).splitlines() if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def choices(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event["choices"][0] for event in events if event["choices"]]


def joined(events: list[dict[str, Any]], field: str) -> str:
    return "".join(choice["delta"].get(field) or "" for choice in choices(events))


# Which calls


@pytest.mark.parametrize(
    ("text", "fields", "called"),
    [
        ("use a Tool", {}, ["weather"]),
        ("use a tool", {"tool_choice": "auto"}, ["weather"]),
        ("use the tools", {}, ["weather", "clock"]),
        ("use the tools", {"parallel_tool_calls": False}, ["weather"]),
        ("use the tools", {"tool_choice": "none"}, []),
        ("open the toolbox", {}, []),
        ("hello", {}, []),
        ("hello", {"tool_choice": "required"}, ["weather"]),
        ("two tools", {"tool_choice": "required"}, ["weather", "clock"]),
        ("two tools", {"tool_choice": {"type": "function", "function": {"name": "clock"}}}, ["clock"]),
        ("repeat: a tool", {}, []),
        ("repeat: a tool", {"tool_choice": "required"}, ["weather"]),
        ("a tool", {"response_format": {"type": "json_object"}}, ["weather"]),
        ("a tool", {"tools": []}, []),
        ([{"type": "text", "text": "a tool"}], {}, ["weather"]),
    ],
)
def test_calls_are_made_when_the_request_says_so(text: Any, fields: dict[str, Any], called: list[str]) -> None:
    assert [call.name for call in made(user(text, tools=TOOLS) | fields).calls] == called


def test_arguments_satisfy_the_parameters_of_the_tool_and_each_piece_of_them_is_a_token() -> None:
    answered = made(user("tools", tools=TOOLS))
    assert answered.calls == [Call("weather", ARGUMENTS), Call("clock", "{}")]
    assert (answered.tokens, answered.finish, answered.text) == (1 + 7 + 1 + 1, "stop", "")


def test_after_a_tools_result_comes_text_that_contains_it() -> None:
    body = user("a tool", tools=TOOLS, tool_choice="required")
    body["messages"] += [
        {"role": "assistant", "tool_calls": [{"id": "call_1", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny, 21 °C"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "noon"}]},
    ]
    answered = made(body)
    assert (answered.calls, answered.text) == ([], "The tool said: sunny, 21 °C noon")


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function"}]},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "nobody"}}},
        {"tools": TOOLS, "tool_choice": "maybe"},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "colour"}}}},
    ],
)
def test_wishes_that_cannot_be_understood_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadOrder):
        order_chat(user("hello", **fields))


# Calls on the wires


async def test_openai_streams_a_call_as_its_opening_and_pieces_of_its_arguments(
    quick: FakeEngine, session: aiohttp.ClientSession
) -> None:
    body = user("tools", tools=TOOLS, stream_options={"include_usage": True})
    events = await streamed(session, quick, OPENAI, body)
    parts = [part for choice in choices(events) for part in choice["delta"].get("tool_calls", ())]
    opening, *pieces = [part for part in parts if part["index"] == 0]
    assert opening["id"].startswith("call_")
    assert (opening["type"], opening["function"]) == ("function", {"name": "weather", "arguments": ""})
    assert [piece.keys() for piece in pieces] == [{"index", "function"}] * 7
    assert "".join(piece["function"]["arguments"] for piece in pieces) == ARGUMENTS
    assert [part["function"].get("name") for part in parts if part["index"] == 1] == ["clock", None]
    assert choices(events)[-1] == {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    assert events[-1]["usage"]["completion_tokens"] == 10


async def test_openai_tells_whole_calls_beside_no_content(quick: FakeEngine, session: aiohttp.ClientSession) -> None:
    answered = await whole(session, quick, OPENAI, user("tools", tools=TOOLS, n=2))
    for choice in answered["choices"]:
        assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
        weather, clock = choice["message"]["tool_calls"]
        assert (weather["type"], weather["function"]) == ("function", {"name": "weather", "arguments": ARGUMENTS})
        assert clock["function"] == {"name": "clock", "arguments": "{}"}
    ids = [call["id"] for choice in answered["choices"] for call in choice["message"]["tool_calls"]]
    assert len(set(ids)) == 4


async def test_a_call_that_the_limit_cuts_ends_with_length(quick: FakeEngine, session: aiohttp.ClientSession) -> None:
    cut = user("tool", tools=TOOLS, max_tokens=4, options={"num_predict": 4})
    (choice,) = (await whole(session, quick, OPENAI, cut))["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == ARGUMENTS[:12]
    assert "tool_calls" not in (await whole(session, quick, "/api/chat", cut))["message"]


async def test_ollama_tells_each_call_whole_with_an_object_as_arguments(
    quick: FakeEngine, session: aiohttp.ClientSession
) -> None:
    *parts, last = await streamed(session, quick, "/api/chat", user("tools", tools=TOOLS))
    calls = [call for part in parts for call in part["message"]["tool_calls"]]
    assert len(parts) == 2
    assert [call["function"] for call in calls] == [
        {"index": 0, "name": "weather", "arguments": {"city": "text", "days": 1}},
        {"index": 1, "name": "clock", "arguments": {}},
    ]
    assert (last["done_reason"], last["eval_count"]) == ("stop", 10)
    answered = await whole(session, quick, "/api/chat", user("tools", tools=TOOLS))
    assert [call["function"] for call in answered["message"]["tool_calls"]] == [call["function"] for call in calls]
    assert (answered["message"]["content"], answered["done_reason"]) == ("", "stop")


async def test_ollamas_generate_knows_no_tools(quick: FakeEngine, session: aiohttp.ClientSession) -> None:
    body = {"model": "fake-model", "prompt": "a tool", "tools": TOOLS}
    assert (await whole(session, quick, "/api/generate", body))["response"] == "word0 word1"


# Thoughts


@pytest.mark.parametrize(
    ("fields", "thinks"),
    [
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "minimal"}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": None}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
    ],
)
def test_thoughts_come_before_the_words_and_count(fields: dict[str, Any], thinks: bool) -> None:
    answered = made(user("hello", **fields))
    assert answered.thoughts == ("Let me think." if thinks else "")
    assert (answered.text, answered.tokens) == ("word0 word1", 6 if thinks else 2)


@pytest.mark.parametrize(("think", "thinks"), [(True, True), ("high", True), (False, False), (None, False)])
def test_ollama_thinks_when_told_to(think: Any, thinks: bool) -> None:
    order = order_ollama({"model": "fake-model", "prompt": "hello", "think": think})
    assert order.wishes.thinks is thinks


@pytest.mark.parametrize(("flavour", "field"), [(Flavour.VLLM, "reasoning_content"), (Flavour.OLLAMA, "reasoning")])
async def test_openai_tells_thoughts_in_the_field_of_the_flavour(
    session: aiohttp.ClientSession, flavour: Flavour, field: str
) -> None:
    async with FakeEngine(flavour=flavour, pace=Pace(1e6, 0, 2)) as engine:
        events = await streamed(session, engine, OPENAI, user("hello", reasoning_effort="high"))
        (choice,) = (await whole(session, engine, OPENAI, user("hello", reasoning_effort="high")))["choices"]
    assert (joined(events, field), joined(events, "content")) == ("Let me think.", "word0 word1")
    assert (choice["message"][field], choice["message"]["content"]) == ("Let me think.", "word0 word1")


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_ollama_tells_thoughts_as_thinking(quick: FakeEngine, session: aiohttp.ClientSession, path: str) -> None:
    body = user("hello", prompt="hello", think=True)
    if path == "/api/generate":
        del body["messages"]
    events = await streamed(session, quick, path, body)
    said = [event.get("message", event) for event in events]
    assert "".join(part.get("thinking", "") for part in said) == "Let me think."
    assert events[-1]["eval_count"] == 6
    answered = await whole(session, quick, path, body)
    assert answered.get("message", answered)["thinking"] == "Let me think."


# Documents and echoes


@pytest.mark.parametrize(
    ("format_of_it", "document"),
    [
        ({"type": "json_object"}, {"answer": "text"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}, {"city": "text", "days": 1}),
    ],
)
async def test_openai_answers_with_a_document_in_pieces(
    quick: FakeEngine, session: aiohttp.ClientSession, format_of_it: Any, document: Any
) -> None:
    body = user("hello", response_format=format_of_it)
    events = await streamed(session, quick, OPENAI, body)
    assert json.loads(joined(events, "content")) == document
    assert len(events) > 5
    (choice,) = (await whole(session, quick, OPENAI, body))["choices"]
    assert json.loads(choice["message"]["content"]) == document


@pytest.mark.parametrize(("format_of_it", "document"), [("json", '{"answer": "text"}'), (SCHEMA, ARGUMENTS)])
async def test_ollama_answers_with_a_document(
    quick: FakeEngine, session: aiohttp.ClientSession, format_of_it: Any, document: str
) -> None:
    body = {"model": "fake-model", "prompt": "hello", "format": format_of_it}
    assert (await whole(session, quick, "/api/generate", body))["response"] == document
    chat = user("hello", format=format_of_it)
    parts = await streamed(session, quick, "/api/chat", chat)
    assert "".join(part["message"]["content"] for part in parts) == document


ECHO = 'né 你好 👩‍👩‍👧 "\\" \n  end '


async def test_an_echo_is_exact_to_the_byte_on_every_wire(quick: FakeEngine, session: aiohttp.ClientSession) -> None:
    body = user(f"repeat: {ECHO}")
    (choice,) = (await whole(session, quick, OPENAI, body))["choices"]
    assert choice["message"]["content"] == ECHO
    assert joined(await streamed(session, quick, OPENAI, body), "content") == ECHO
    parts = await streamed(session, quick, "/api/chat", body)
    assert "".join(part["message"]["content"] for part in parts) == ECHO
    prompt = {"model": "fake-model", "prompt": f"repeat: {ECHO}"}
    assert (await whole(session, quick, "/api/generate", prompt))["response"] == ECHO


async def test_characters_are_sent_as_themselves_and_not_as_escapes(
    quick: FakeEngine, session: aiohttp.ClientSession
) -> None:
    for stream in (False, True):
        async with session.post(quick.url + OPENAI, json=user("repeat: é👧", stream=stream)) as response:
            assert "é👧".encode() in await response.read()


async def test_half_a_character_does_not_break_the_engine(quick: FakeEngine, session: aiohttp.ClientSession) -> None:
    for stream in (False, True):
        body = user("repeat: a\ud83db", stream=stream, logprobs=True)
        async with session.post(quick.url + OPENAI, data=json.dumps(body)) as response:
            assert b'a?b"' in await response.read()


async def test_an_empty_echo_is_one_token_without_text(quick: FakeEngine, session: aiohttp.ClientSession) -> None:
    body = user("repeat: ", stream_options={"include_usage": True})
    events = await streamed(session, quick, OPENAI, body)
    assert [choice["delta"] for choice in choices(events)] == [{"role": "assistant", "content": ""}, {}]
    assert events[-1]["usage"]["completion_tokens"] == 1


def test_an_echo_ends_at_the_limit_and_does_not_go_on_beyond_its_end() -> None:
    assert made(user("repeat: one two three", max_tokens=2)).text == "one two "
    assert made(user("repeat: one", max_tokens=50, ignore_eos=True)).text == "one"


def test_the_last_message_of_the_user_counts_and_no_other() -> None:
    body = user("repeat: old")
    body["messages"] += [{"role": "assistant", "content": "old"}, {"role": "user", "content": "say repeat: new"}]
    assert made(body).text == "word0 word1"


# Images


@pytest.mark.parametrize("url", [f"data:image/png;base64,{PICTURE}", "https://example.com/cat.png"])
def test_openai_images_are_seen(url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    look = {"type": "text", "text": "look"}
    assert made(user([look, part])).text == "I see 1 image. word0 word1"
    assert made(user([part, part])).text == "I see 2 images. word0 word1"


async def test_ollama_images_are_seen(quick: FakeEngine, session: aiohttp.ClientSession) -> None:
    chat = {"model": "fake-model", "messages": [{"role": "user", "content": "look", "images": [PICTURE]}]}
    prompt = {"model": "fake-model", "prompt": "look", "images": [PICTURE, PICTURE]}
    assert (await whole(session, quick, "/api/chat", chat))["message"]["content"].startswith("I see 1 image.")
    assert (await whole(session, quick, "/api/generate", prompt))["response"].startswith("I see 2 images.")


@pytest.mark.parametrize("url", ["data:image/png;base64,%%%", "data:image/png,plain", "ftp://example.com/x", "", None])
async def test_what_is_no_image_is_a_bad_request(
    quick: FakeEngine, session: aiohttp.ClientSession, url: str | None
) -> None:
    body = user([{"type": "image_url", "image_url": {"url": url}}])
    async with session.post(quick.url + OPENAI, json=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


# Log probabilities, stops, usage


async def test_openai_tells_a_log_probability_for_each_token_that_is_shown(
    quick: FakeEngine, session: aiohttp.ClientSession
) -> None:
    body = user("repeat: héllo!", logprobs=True, top_logprobs=2, reasoning_effort="low")
    (choice,) = (await whole(session, quick, OPENAI, body))["choices"]
    first, second = choice["logprobs"]["content"]
    assert (first["token"], first["logprob"], bytes(first["bytes"]).decode()) == ("héll", -0.5, "héll")
    assert [likely["token"] for likely in first["top_logprobs"]] == ["héll", "other1"]
    assert second["token"] == "o!"
    told = [c["logprobs"]["content"] for c in choices(await streamed(session, quick, OPENAI, body)) if "logprobs" in c]
    assert told == [[first], [second]]


async def test_ollama_tells_log_probabilities_in_each_chunk_or_all_together(
    quick: FakeEngine, session: aiohttp.ClientSession
) -> None:
    body = user("repeat: hello", logprobs=True)
    parts = await streamed(session, quick, "/api/chat", body)
    assert [[told["token"] for told in part.get("logprobs", ())] for part in parts] == [["hell"], ["o"], []]
    assert [told["token"] for told in (await whole(session, quick, "/api/chat", body))["logprobs"]] == ["hell", "o"]


async def test_without_the_wish_there_are_no_log_probabilities(
    quick: FakeEngine, session: aiohttp.ClientSession
) -> None:
    (choice,) = (await whole(session, quick, OPENAI, user("hello", top_logprobs=2)))["choices"]
    assert "logprobs" not in choice


@pytest.mark.parametrize(("flavour", "tells"), [(Flavour.VLLM, True), (Flavour.LLAMA_CPP, False)])
async def test_vllm_tells_which_string_stopped_it(
    session: aiohttp.ClientSession, flavour: Flavour, tells: bool
) -> None:
    async with FakeEngine(flavour=flavour, pace=Pace(1e6, 0, 2)) as engine:
        body = user("repeat: one two three", stop=["three", "two"])
        events = await streamed(session, engine, OPENAI, body)
        (choice,) = (await whole(session, engine, OPENAI, body))["choices"]
    assert joined(events, "content") == choice["message"]["content"] == "one "
    assert choices(events)[-1]["finish_reason"] == choice["finish_reason"] == "stop"
    expected = {"stop_reason": "two"} if tells else {}
    for closing in (choices(events)[-1], choice):
        assert {name: closing[name] for name in closing if name == "stop_reason"} == expected


async def test_ollama_stops_before_a_stop_string(quick: FakeEngine, session: aiohttp.ClientSession) -> None:
    body = user("repeat: one two three", options={"stop": ["two"]})
    answered = await whole(session, quick, "/api/chat", body)
    assert (answered["message"]["content"], answered["done_reason"]) == ("one ", "stop")


async def test_usage_tells_of_cached_tokens_when_the_request_says_how_many(
    quick: FakeEngine, session: aiohttp.ClientSession
) -> None:
    told = {"cached_tokens": 3}
    fields: dict[str, Any] = {"fake_cached_tokens": 3, "stream_options": {"include_usage": True}}
    assert (await whole(session, quick, OPENAI, user("hi", **fields)))["usage"]["prompt_tokens_details"] == told
    last = (await streamed(session, quick, OPENAI, user("hi", **fields)))[-1]
    assert last["usage"]["prompt_tokens_details"] == told
    for path, more in (("/v1/completions", {"prompt": "hi"}), ("/v1/embeddings", {"input": "hi"})):
        answered = await whole(session, quick, path, {"model": "fake-model", **more, **fields})
        assert answered["usage"]["prompt_tokens_details"] == told
    assert "prompt_tokens_details" not in (await whole(session, quick, OPENAI, user("hi")))["usage"]
