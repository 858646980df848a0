"""What the parts of OpenAI's chat messages hold, for those who say it in a provider's words. Pure.

A chat's messages are objects already; all else is checked here, and every complaint names the place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from forebay_gateway.canonical.data_url import BASE64_DATA_URL
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import wrong_type
from forebay_gateway.refused import BadField


@dataclass(frozen=True, slots=True)
class Media:
    """A picture or a document."""

    media_type: str
    base64: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: Json
    signature: str | None = None
    """Gemini's, that it wants to see again."""


Part = str | Media


def parts_of(content: Any, where: str) -> list[Part]:
    """A text, or the parts that it may have instead; empty texts are left out. Raises BadField."""
    if content is None:
        return []
    if isinstance(content, str):
        return [content] if content else []
    if not isinstance(content, list):
        raise wrong_type(where, "a string or a list of parts", content)
    parts = [_part(part, f"{where}[{place}]") for place, part in enumerate(content)]
    return [part for part in parts if part]


def text_of(content: Any, where: str) -> str:
    """Of content that has nothing but text. Raises BadField."""
    texts = []
    for part in parts_of(content, where):
        if isinstance(part, Media):
            raise BadField(f"`{where}` can only have text here.", param=where, code="invalid_value")
        texts.append(part)
    return "\n".join(texts)


def tool_calls_of(message: Mapping[str, Any], where: str) -> list[ToolCall]:
    """Raises BadField."""
    if message.get("function_call"):
        raise BadField(
            f"`{where}.function_call` is of an older form that this engine does not know: send `tool_calls`.",
            param=f"{where}.function_call",
        )
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise wrong_type(f"{where}.tool_calls", "a list of objects", calls)
    return [_tool_call(call, f"{where}.tool_calls[{place}]") for place, call in enumerate(calls)]


def messages_of(fields: Mapping[str, Any]) -> list[tuple[str, Json]]:
    """(place, message)."""
    return [(f"messages[{place}]", message) for place, message in enumerate(fields["messages"])]


def functions_of(fields: Mapping[str, Any]) -> list[Json]:
    """What is said of each function that the model may call. Raises BadField."""
    if fields.get("functions"):
        raise BadField(
            "`functions` is of an older form that this engine does not know: send `tools`.", param="functions"
        )
    tools = fields.get("tools") or []
    if not isinstance(tools, list):
        raise wrong_type("tools", "a list of objects", tools)
    functions = []
    for place, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadField(
                f"`tools[{place}]` is no function with a name; the engine that has this model takes no others.",
                param=f"tools[{place}]",
                code="invalid_value",
            )
        functions.append(function)
    return functions


def choice_of_tool(fields: Mapping[str, Any]) -> tuple[str, str]:
    """`auto`, `none`, `required`, or `named` and the name. Raises BadField."""
    choice = fields.get("tool_choice")
    if choice is None:
        return "auto", ""
    if choice in ("auto", "none", "required"):
        return choice, ""
    function = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        return "named", function["name"]
    raise BadField(
        "`tool_choice` can be auto, none, required or one function by its name.",
        param="tool_choice",
        code="invalid_value",
    )


def wanted_schema(fields: Mapping[str, Any]) -> Json | None:
    """The schema that the answer must keep to; an empty one for any object. None: any text will do. Raises BadField."""
    wanted = fields.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return {}
    described = wanted.get("json_schema") if isinstance(wanted, dict) and kind == "json_schema" else None
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict) or not schema:
        raise BadField(
            "`response_format` can be of type text, json_object, or json_schema with a `json_schema.schema`.",
            param="response_format",
            code="invalid_value",
        )
    return schema


def stops_of(fields: Mapping[str, Any]) -> list[str]:
    """Raises BadField."""
    stop = fields.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
        raise wrong_type("stop", "a string or a list of strings", stop)
    return stops


def demand_absent(fields: Mapping[str, Any], *names: str) -> None:
    """What would change the answer is refused rather than left out. Raises BadField."""
    for name in names:
        value = fields.get(name)
        if value is not None and (name == "seed" or value not in (False, 0, [], {})):
            raise BadField(
                f"`{name}` is something that the engine which has this model cannot do: leave it out.",
                param=name,
                code="unsupported_parameter",
            )


def _part(part: Any, where: str) -> Part:
    kind = part.get("type") if isinstance(part, dict) else None
    match kind:
        case "text" | "refusal" if isinstance(part.get(kind), str):
            text: str = part[kind]
            return text
        case "image_url":
            told = part.get("image_url")
            return _media(told.get("url") if isinstance(told, dict) else told, f"{where}.image_url")
        case "file":
            told = part.get("file")
            return _media(told.get("file_data") if isinstance(told, dict) else None, f"{where}.file.file_data")
        case _:
            raise BadField(
                f"`{where}` is no part that the engine which has this model can read: it reads text, image_url and file.",
                param=where,
                code="invalid_value",
            )


def _media(url: Any, where: str) -> Media:
    found = BASE64_DATA_URL.match(url) if isinstance(url, str) else None
    if found is None:
        raise BadField(f"`{where}` must be a base64 data: URL.", param=where, code="invalid_value")
    return Media(found[1], url[found.end() :])


def _tool_call(call: Any, where: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadField(f"`{where}` must be a call of a function with its name.", param=where, code="invalid_value")
    id = call.get("id")
    return ToolCall(id if isinstance(id, str) else "", function["name"], _arguments(function), _signature(call))


def _arguments(function: Json) -> Json:
    """An object; arguments that are none go on as the model wrote them."""
    given = function.get("arguments")
    if not given:
        return {}
    try:
        parsed = orjson.loads(given) if isinstance(given, str) else given
    except orjson.JSONDecodeError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"arguments": given}


def _signature(call: Json) -> str | None:
    # Where Google's own OpenAI-compatible API has it: https://ai.google.dev/gemini-api/docs/thought-signatures
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else None
