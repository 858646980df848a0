"""Tools that must be called, on an engine that leaves `tool_choice` aside."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forebay_gateway.asked import Asked
from forebay_gateway.dialects.openai.chat import parse_chat
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.forced_tool import ForcedToolSpeech, tools_to_force
from forebay_gateway.engines.local_speech import OllamaSpeech, TemplateSpeech

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": CITY}}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def asked(**fields: Any) -> Asked:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello."}], "tools": [WEATHER, CLOCK], **fields}
    return parse_chat(json.dumps(body).encode())


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def body_for_ollama(request: Asked) -> Any:
    speech = request.speech(EngineKind.OLLAMA)
    assert isinstance(speech, ForcedToolSpeech)
    return json.loads(speech.body(streamed=False, ask_usage=True))


def chunk(content: str | None, finish: str | None = None) -> bytes:
    delta = {} if content is None else {"content": content}
    return (
        b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"
    )


def streamed(request: Asked, *pieces: bytes) -> list[Any]:
    stream = request.speech(EngineKind.OLLAMA).stream(folds=False, estimated_prompt=1)
    out = b"".join(stream.feed(piece) for piece in pieces)
    assert stream.error is None
    return [json.loads(event.removeprefix("data: ")) for event in out.decode().split("\n\n") if event]


def test_the_arguments_of_a_named_tool_are_asked_for_as_json() -> None:
    body = body_for_ollama(asked(tool_choice=named("weather"), parallel_tool_calls=False))
    assert body["response_format"]["json_schema"]["schema"] == CITY
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(body)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "weather: The weather." in body["messages"][0]["content"]


def test_what_the_engine_says_is_told_as_the_call_piece_by_piece() -> None:
    told = streamed(
        asked(tool_choice=named("weather"), stream=True), chunk('{"ci'), chunk('ty": 1}'), chunk(None, "stop")
    )
    first, second, last = [choice for event in told for choice in event["choices"]]
    (call,) = first["delta"]["tool_calls"]
    assert (call["function"], call["index"], call["type"]) == ({"name": "weather", "arguments": '{"ci'}, 0, "function")
    assert call["id"].startswith("call_")
    assert second["delta"] == {"tool_calls": [{"index": 0, "function": {"arguments": 'ty": 1}'}}]}
    assert last == {"index": 0, "delta": {}, "finish_reason": "tool_calls"}


def test_of_several_the_engine_names_one_and_the_call_is_told_when_it_is_whole() -> None:
    request = asked(tool_choice="required", stream=True)
    schema = body_for_ollama(request)["response_format"]["json_schema"]["schema"]
    assert [one["properties"]["name"]["const"] for one in schema["anyOf"]] == ["weather", "clock"]
    told = streamed(request, chunk('{"name": "clock", '), chunk('"arguments": {"a": 1}}'), chunk(None, "stop"))
    calls = [call for event in told for choice in event["choices"] for call in choice["delta"].get("tool_calls", [])]
    assert [call["function"] for call in calls] == [{"name": "clock", "arguments": '{"a":1}'}]
    assert told[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_call_that_is_cut_off_keeps_its_finish_reason() -> None:
    told = streamed(asked(tool_choice=named("weather"), stream=True), chunk('{"ci'), chunk(None, "length"))
    assert told[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("said", "call"), [('{"city": "Rome"}', ("weather", '{"city": "Rome"}')), ("", ("weather", ""))]
)
def test_a_whole_answer_is_the_call(said: str, call: tuple[str, str]) -> None:
    message = {"role": "assistant", "content": said}
    answer = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    speech = asked(tool_choice=named("weather")).speech(EngineKind.OLLAMA)
    (choice,) = json.loads(speech.whole(json.dumps(answer).encode()).body)["choices"]
    (told,) = choice["message"]["tool_calls"]
    assert (told["function"]["name"], told["function"]["arguments"]) == call
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")


def test_tools_that_are_forbidden_are_not_told_at_all() -> None:
    body = body_for_ollama(asked(tool_choice="none"))
    assert not {"tools", "tool_choice", "response_format"} & set(body)


def test_what_is_left_to_the_model_and_what_other_engines_can_do_themselves_passes() -> None:
    assert tools_to_force({"tools": [WEATHER], "tool_choice": "auto"}) is None
    assert tools_to_force({"tools": [WEATHER]}) is None
    assert tools_to_force({"tool_choice": "required"}) is None
    assert type(asked(tool_choice="auto").speech(EngineKind.OLLAMA)) is OllamaSpeech
    assert type(asked(tool_choice="required").speech(EngineKind.VLLM)) is TemplateSpeech
