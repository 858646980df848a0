"""OpenAI's messages as Anthropic's system text and turns, which are the user's and the assistant's by turns. Pure.

What tools gave belongs into the user's next turn, before anything else there. Thoughts of earlier answers are left out: only
Anthropic signs them, and it refuses those without its signature."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.engines.chat_parts import Media, Part, ToolCall, messages_of, parts_of, text_of, tool_calls_of
from forebay_gateway.refused import BadField

_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_BEGINNING = "(The conversation begins with your own words.)"


def system_and_turns(fields: Mapping[str, Any]) -> tuple[str, list[Json]]:
    """Raises BadField."""
    told: list[str] = []
    turns: list[Json] = []
    for where, message in messages_of(fields):
        place = f"{where}.content"
        match message.get("role"):
            case "system" | "developer":
                told.append(text_of(message.get("content"), place))
            case "user":
                _add(turns, "user", _blocks(parts_of(message.get("content"), place)))
            case "assistant":
                _add(turns, "assistant", _spoken(message, where))
            case "tool":
                _add(turns, "user", [_result(message, where)])
            case role:
                raise BadField(
                    f"`{where}.role` is {str(role)[:64]}; it can be system, developer, user, assistant or tool.",
                    param=f"{where}.role",
                    code="invalid_value",
                )
    system = "\n\n".join(filter(str.strip, told))
    return _with_a_users_turn(system, turns)


def _with_a_users_turn(system: str, turns: list[Json]) -> tuple[str, list[Json]]:
    """It must be the first one. A chat that has only a system message asks by that."""
    if not turns:
        if not system:
            raise BadField("`messages` say nothing: send at least one with a text.", param="messages")
        return "", [{"role": "user", "content": [_text(system)]}]
    if turns[0]["role"] != "user":
        turns.insert(0, {"role": "user", "content": [_text(_BEGINNING)]})
    last = turns[-1]
    if last["role"] == "assistant" and last["content"][-1]["type"] == "text":
        # It is gone on with; Anthropic refuses blanks at its end.
        last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return system, turns


def _add(turns: list[Json], role: str, blocks: list[Json]) -> None:
    """To the last turn, if that is the same one's."""
    if not blocks:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _spoken(message: Json, where: str) -> list[Json]:
    text = text_of(message.get("content"), f"{where}.content")
    return [
        *([_text(text)] if text.strip() else []),
        *(_tool_use(call) for call in tool_calls_of(message, where)),
    ]


def _tool_use(call: ToolCall) -> Json:
    return {"type": "tool_use", "id": _id(call.id), "name": call.name, "input": call.arguments}


def _result(message: Json, where: str) -> Json:
    id = message.get("tool_call_id")
    if not isinstance(id, str):
        raise BadField(
            f"`{where}.tool_call_id` is missing: say which call this answers.", param=f"{where}.tool_call_id"
        )
    blocks = _blocks(parts_of(message.get("content"), f"{where}.content"))
    return {"type": "tool_result", "tool_use_id": _id(id), **({"content": blocks} if blocks else {})}


def _blocks(parts: list[Part]) -> list[Json]:
    """Texts of blanks alone are refused there, and say nothing."""
    return [_block(part) for part in parts if isinstance(part, Media) or part.strip()]


def _block(part: Part) -> Json:
    if isinstance(part, str):
        return _text(part)
    kind = "image" if part.media_type.startswith("image/") else "document"
    return {"type": kind, "source": {"type": "base64", "media_type": part.media_type, "data": part.base64}}


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


def _id(id: str) -> str:
    """The same for the same; others than Anthropic's are made of what it takes."""
    return _NOT_IN_IDS.sub("_", id) or "_"
