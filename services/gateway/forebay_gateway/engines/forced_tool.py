"""`tool_choice` for an engine that does not take it (Ollama): a tool that must be called, or none that may. Pure.

What such an engine can be held to is a schema. So it is asked for JSON: the arguments of the tool, or of one of several.
What it says is told as the call."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import orjson

from forebay_gateway.canonical.answer_stream import AnswerStream
from forebay_gateway.canonical.speech import Said, Whole, dumped
from forebay_gateway.engines.local_speech import OllamaSpeech

Json = dict[str, Any]


def tools_to_force(fields: Mapping[str, Any]) -> list[Json] | None:
    """The functions of which one must be called, or none of which may be. None: it is left to the model."""
    if not fields.get("tools") or fields.get("tool_choice") in (None, "auto"):
        return None
    choice, tools = fields.get("tool_choice"), fields.get("tools")
    functions = [_function_of(tool) for tool in tools] if isinstance(tools, list) else []
    named = _function_of(choice).get("name")
    return [f for f in functions if isinstance(f.get("name"), str) and (choice == "required" or f["name"] == named)]


class ForcedToolSpeech(OllamaSpeech):
    def __init__(self, asked: Said, functions: list[Json]) -> None:
        """`functions`: those of which one must be called; none if no tool may be."""
        super().__init__(asked)
        self._functions = functions

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes:
        plain = super().body(streamed=streamed, ask_usage=ask_usage)
        assert isinstance(plain, bytes), "a form has no tools"
        body = orjson.loads(plain)
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            body.pop(name, None)
        if not self._functions:
            return dumped(body)
        schema = _call_schema(self._functions)
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "call", "schema": schema}}
        body["messages"] = [{"role": "system", "content": _instruction(self._functions, schema)}, *body["messages"]]
        return dumped(body)

    def stream(self, *, folds: bool, estimated_prompt: int) -> AnswerStream:
        stream = super().stream(folds=folds, estimated_prompt=estimated_prompt)
        if self._functions:
            stream.reword = _Calling(self._functions).reword
        return stream

    def whole(self, raw: bytes) -> Whole:
        if not self._functions:
            return super().whole(raw)
        try:
            told = orjson.loads(raw)
            for choice in told["choices"]:
                self._reword_choice(choice)
        except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
            return super().whole(raw)  # which says what is wrong with it
        return super().whole(orjson.dumps(told))

    def _for(self, asked: Said) -> ForcedToolSpeech:
        return ForcedToolSpeech(asked, self._functions)

    def _reword_choice(self, choice: Json) -> None:
        message = choice["message"]
        call = _call_of(message.get("content") or "", self._functions)
        message["content"], message["tool_calls"] = None, [call]
        if choice.get("finish_reason") == "stop":
            choice["finish_reason"] = "tool_calls"


class _Calling:
    """Of one stream: the arguments of the only tool go on piece by piece, a call of one of several when it is whole."""

    def __init__(self, functions: list[Json]) -> None:
        self._functions = functions
        self._said: dict[int, str] = {}
        """Of each choice that has said something."""

    def reword(self, chunk: Json) -> None:
        for choice in chunk.get("choices") or ():
            delta, index = choice.get("delta") or {}, choice.get("index", 0)
            piece = delta.pop("content", None) or ""
            calls = [self._piece(index, piece)] if len(self._functions) == 1 and piece else []
            self._said[index] = self._said.get(index, "") + piece
            if choice.get("finish_reason"):
                if len(self._functions) > 1:
                    calls = [{"index": 0, **_call_of(self._said[index], self._functions)}]
                if choice["finish_reason"] == "stop":
                    choice["finish_reason"] = "tool_calls"
            if calls:
                delta["tool_calls"] = calls
            choice["delta"] = delta

    def _piece(self, index: int, piece: str) -> Json:
        if self._said.get(index):
            return {"index": 0, "function": {"arguments": piece}}
        call = {"index": 0, "id": _new_id(), "type": "function"}
        return {**call, "function": {"name": self._functions[0]["name"], "arguments": piece}}


def _call_schema(functions: list[Json]) -> Json:
    if len(functions) == 1:
        return _arguments_of(functions[0])
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {"name": {"const": function["name"]}, "arguments": _arguments_of(function)},
                "required": ["name", "arguments"],
            }
            for function in functions
        ]
    }


def _instruction(functions: list[Json], schema: Json) -> str:
    told = [f"{f['name']}: {f.get('description') or 'no description'}" for f in functions]
    which = f"the function {functions[0]['name']}" if len(functions) == 1 else "one of these functions"
    kept = orjson.dumps(schema).decode()
    return f"Call {which}. {' '.join(told)} Answer with JSON alone that keeps to this schema: {kept}"


def _call_of(said: str, functions: list[Json]) -> Json:
    """Of several, the one that was named; if what was said is cut off, the first one with what there is."""
    name, arguments = functions[0]["name"], said
    if len(functions) > 1:
        try:
            call = orjson.loads(said)
            name, arguments = str(call["name"]), orjson.dumps(call["arguments"]).decode()
        except (orjson.JSONDecodeError, LookupError, TypeError):
            pass
    return {"id": _new_id(), "type": "function", "function": {"name": name, "arguments": arguments}}


def _arguments_of(function: Json) -> Json:
    parameters = function.get("parameters")
    return {"type": "object", **parameters} if isinstance(parameters, dict) else {"type": "object"}


def _function_of(tool: Any) -> Json:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function if isinstance(function, dict) else {}


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"
