"""What a request asks the answer to be, beyond its length. All of it is read from the body, so that any client library can
ask for it; what is asked first in this list comes first, where a request asks for several:

    thoughts     `reasoning_effort` but none and minimal, `chat_template_kwargs.enable_thinking`, Ollama's `think`:
                 a few, before whatever else the answer is
    calls        of `tools`, when `tool_choice` is "required" or names one, or when the last user message has the word
                 "tool" (with `tool_choice` absent or "auto"). One call, of the named or first tool; one of each when
                 that message has the word "tools", unless `parallel_tool_calls` is false or a tool is named. None with
                 "none", none after a tool's result, and on "auto" none for an echo. Not in /api/generate
    a document   `response_format` json_object or json_schema, Ollama's `format`, or a system message with the words "JSON
                 schema: " and then one: JSON that satisfies the schema. When a user message has the words "answer
                 wrongly", "answer in prose" or "answer fenced" it is other JSON, mere words, or the same in a code fence,
                 for as long as the conversation has no answer yet; with "twice", no two answers, with "always", for ever
    results      when the last messages are tools' own: text that contains theirs
    an echo      when the last user message is `repeat: <text>`: that text, exactly
    images       in any message: «I see 1 image» or how many, before the results or the usual words
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fakes.engine_messages import Message, count_images, last_user_text, tool_results
from tests.fakes.engine_schema import instance

ECHO = "repeat: "
THINKER = "thinker"
"""In its name: a model that thinks unless `enable_thinking` is false, whatever the effort."""
_TOOL = re.compile(r"\btools?\b", re.IGNORECASE)
_TOOLS = re.compile(r"\btools\b", re.IGNORECASE)
_BADLY = re.compile(r"\banswer (wrongly|in prose|fenced)(?: (twice|always))?", re.IGNORECASE)
_TOLD_SCHEMA = "JSON schema: "
_JSON_OBJECT = {"type": "object", "properties": {"answer": {"type": "string"}}}


class BadWish(Exception):
    """It is contradictory or cannot be understood."""


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: str
    """JSON text."""


@dataclass(frozen=True, slots=True)
class Wishes:
    thinks: bool = False
    calls: tuple[Call, ...] = ()
    document: str | None = None
    """JSON text."""
    results: tuple[str, ...] = ()
    echo: str | None = None
    images: int = 0


def openai_wishes(body: Mapping[str, Any]) -> Wishes:
    """Of /v1/chat/completions. Raises BadWish, BadMessage and BadSchema."""
    template = _object(body.get("chat_template_kwargs"))
    switch = template.get("enable_thinking")
    thinks = body.get("reasoning_effort") not in (None, "none", "minimal") or switch is True
    if THINKER in str(body.get("model")):
        thinks = switch is not False
    return _wishes(body["messages"], body, thinks=thinks, schema=_openai_schema(body.get("response_format")))


def completion_wishes(prompt: str) -> Wishes:
    """Of one prompt of /v1/completions: an echo, or nothing."""
    return Wishes(echo=prompt.removeprefix(ECHO) if prompt.startswith(ECHO) else None)


def ollama_wishes(body: Mapping[str, Any]) -> Wishes:
    """Of /api/chat and /api/generate, as above. A prompt with its images is one message of the user's."""
    thinks = body.get("think") not in (None, False)
    schema = _ollama_schema(body.get("format"))
    messages = body.get("messages")
    if messages is not None:
        return _wishes(messages, body, thinks=thinks, schema=schema)
    prompt = {"role": "user", "content": body.get("prompt"), "images": body.get("images")}
    return _wishes([prompt], {}, thinks=thinks, schema=schema)


def _wishes(messages: Sequence[Message], body: Mapping[str, Any], *, thinks: bool, schema: Any) -> Wishes:
    """`body` for its tools."""
    text = last_user_text(messages)
    results = tuple(tool_results(messages))
    echo = text.removeprefix(ECHO) if text.startswith(ECHO) else None
    return Wishes(
        thinks=thinks,
        calls=() if results else _calls(body, text, is_echo=echo is not None),
        document=_document(messages, _told_schema(messages) if schema is None else schema),
        results=results,
        echo=echo,
        images=count_images(messages),
    )


def _document(messages: Sequence[Message], schema: Any) -> str | None:
    """None: any text will do."""
    if schema is None:
        return None
    document = json.dumps(instance(schema), ensure_ascii=False)
    asked = "\n".join(str(message.get("content")) for message in messages if message.get("role") == "user")
    answers = sum(message.get("role") == "assistant" for message in messages) + asked.count("You answered:")
    badly = _BADLY.search(asked)
    times = {"twice": 2, "always": answers + 1}.get((badly[2] or "").lower(), 1) if badly else 0
    if badly is None or answers >= times:
        return document
    return {"wrongly": '{"wrong": true}', "fenced": f"```json\n{document}\n```"}.get(
        badly[1].lower(), "I would rather talk."
    )


def _told_schema(messages: Sequence[Message]) -> Any:
    for message in messages:
        content = message.get("content")
        if message.get("role") == "system" and isinstance(content, str) and _TOLD_SCHEMA in content:
            schema, _ = json.JSONDecoder().raw_decode(content.partition(_TOLD_SCHEMA)[2])
            return schema
    return None


def _calls(body: Mapping[str, Any], text: str, *, is_echo: bool) -> tuple[Call, ...]:
    tools = [_call_of(tool) for tool in body.get("tools") or ()]
    choice = body.get("tool_choice") or "auto"
    if not tools or choice == "none":
        return ()
    if isinstance(choice, dict):
        named = _object(choice.get("function")).get("name")
        called = tuple(call for call in tools if call.name == named)[:1]
        if not called:
            raise BadWish(f"The tool specified in `tool_choice` does not match any of the specified `tools`: {named}")
        return called
    if choice not in ("auto", "required"):
        raise BadWish(f"Invalid value for `tool_choice`: {choice}")
    if choice == "auto" and (is_echo or not _TOOL.search(text)):
        return ()
    wants_each = _TOOLS.search(text) and body.get("parallel_tool_calls") is not False
    return tuple(tools) if wants_each else (tools[0],)


def _call_of(tool: Any) -> Call:
    function = _object(_object(tool).get("function"))
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise BadWish("each of 'tools' must be a function with a name")
    schema = {"type": "object"} | _object(function.get("parameters"))
    return Call(name, json.dumps(instance(schema), ensure_ascii=False))


def _openai_schema(given: Any) -> Any:
    """None: any text will do."""
    match _object(given).get("type"):
        case "json_object":
            return _JSON_OBJECT
        case "json_schema":
            described = _object(given.get("json_schema"))
            if "schema" not in described:
                raise BadWish("'response_format.json_schema.schema' is required")
            return described["schema"]
        case _:
            return None


def _ollama_schema(given: Any) -> Any:
    if not given:
        return None
    if given == "json":
        return _JSON_OBJECT
    if isinstance(given, dict):
        return given
    raise BadWish(f'invalid format: {json.dumps(given)}; expected "json" or a valid JSON Schema object')


def _object(given: Any) -> dict[str, Any]:
    return given if isinstance(given, dict) else {}
