"""OpenAI's messages as Gemini's system instruction and contents: the user's and the model's by turns. Pure.

What functions gave is a turn of its own, directly behind the one with the calls, in which each is told by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.engines.chat_parts import (
    Media,
    Part,
    ToolCall,
    messages_of,
    parts_of,
    text_of,
    tool_calls_of,
)
from forebay_gateway.refused import BadField

UNSIGNED = "skip_thought_signature_validator"
"""What Google says to send in place of a signature that was never given or was lost on the way, since newer models refuse
calls without one: https://ai.google.dev/gemini-api/docs/thought-signatures"""
_BEGINNING = "(The conversation begins with your own words.)"


def system_and_contents(fields: Mapping[str, Any], *, signs: bool) -> tuple[str, list[Json]]:
    """`signs`: whether the model refuses calls in the history that are not signed. Raises BadField."""
    told: list[str] = []
    contents: list[Json] = []
    names: dict[str, str] = {}
    """Of functions, by the id of their call."""
    for where, message in messages_of(fields):
        place = f"{where}.content"
        match message.get("role"):
            case "system" | "developer":
                told.append(text_of(message.get("content"), place))
            case "user":
                _add(contents, "user", [_shown(part) for part in parts_of(message.get("content"), place)])
            case "assistant":
                calls = tool_calls_of(message, where)
                names |= {call.id: call.name for call in calls}
                text = text_of(message.get("content"), place)
                _add(contents, "model", [*([{"text": text}] if text else []), *_called(calls, signs)])
            case "tool":
                _add(contents, "user", _result(message, where, names))
            case role:
                raise BadField(
                    f"`{where}.role` is {str(role)[:64]}; it can be system, developer, user, assistant or tool.",
                    param=f"{where}.role",
                    code="invalid_value",
                )
    system = "\n\n".join(filter(None, told))
    if not contents:
        if not system:
            raise BadField("`messages` say nothing: send at least one with a text.", param="messages")
        return "", [{"role": "user", "parts": [{"text": system}]}]  # a chat that has only a system message asks by that
    if contents[0]["role"] != "user":
        contents.insert(0, {"role": "user", "parts": [{"text": _BEGINNING}]})
    return system, contents


def _add(contents: list[Json], role: str, parts: list[Json]) -> None:
    """To the last turn, if that is the same one's and of the same sort."""
    if not parts:
        return
    last = contents[-1] if contents else None
    if last is not None and last["role"] == role and _has_results(last["parts"]) == _has_results(parts):
        last["parts"] += parts
    else:
        contents.append({"role": role, "parts": parts})


def _has_results(parts: list[Json]) -> bool:
    return any("functionResponse" in part for part in parts)


def _called(calls: list[ToolCall], signs: bool) -> list[Json]:
    parts: list[Json] = []
    for call in calls:
        part: Json = {"functionCall": {**_id(call.id), "name": call.name, "args": call.arguments}}
        # Of calls made at once only the first is signed.
        signature = call.signature or (UNSIGNED if signs and not parts else None)
        parts.append({**part, "thoughtSignature": signature} if signature else part)
    return parts


def _result(message: Json, where: str, names: Mapping[str, str]) -> list[Json]:
    id = message.get("tool_call_id")
    name = names.get(id) if isinstance(id, str) else None
    if name is None or not isinstance(id, str):
        raise BadField(
            f"`{where}.tool_call_id` is that of no call before it.", param=f"{where}.tool_call_id", code="invalid_value"
        )
    parts = parts_of(message.get("content"), f"{where}.content")
    said = "\n".join(part for part in parts if isinstance(part, str))
    shown = [_shown(part) for part in parts if isinstance(part, Media)]
    return [{"functionResponse": {**_id(id), "name": name, "response": {"output": said}}}, *shown]


def _shown(part: Part) -> Json:
    if isinstance(part, str):
        return {"text": part}
    return {"inlineData": {"mimeType": part.media_type, "data": part.base64}}


def _id(id: str) -> Json:
    return {"id": id} if id else {}
