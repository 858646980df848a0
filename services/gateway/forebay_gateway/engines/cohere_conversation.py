"""OpenAI's messages as Cohere's (v2), which are nearly the same. Pure.

What a model says before it calls tools is its plan there, and comes back as the thoughts that it was told as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.engines.chat_parts import Media, Part, messages_of, parts_of, text_of, tool_calls_of
from forebay_gateway.refused import BadField


def messages_for(fields: Mapping[str, Any]) -> list[Json]:
    """Raises BadField."""
    messages: list[Json] = []
    for where, message in messages_of(fields):
        place = f"{where}.content"
        match message.get("role"):
            case "system" | "developer":
                messages += _said("system", text_of(message.get("content"), place))
            case "user":
                parts = parts_of(message.get("content"), place)
                if any(isinstance(part, Media) for part in parts):
                    messages.append({"role": "user", "content": [_block(part, place) for part in parts]})
                else:
                    messages += _said("user", text_of(message.get("content"), place))
            case "assistant":
                messages += _spoken(message, where)
            case "tool":
                messages.append(_result(message, where))
            case role:
                raise BadField(
                    f"`{where}.role` is {str(role)[:64]}; it can be system, developer, user, assistant or tool.",
                    param=f"{where}.role",
                    code="invalid_value",
                )
    if not messages:
        raise BadField("`messages` say nothing: send at least one with a text.", param="messages")
    if all(message["role"] == "system" for message in messages):
        # A chat that has only a system message asks by that.
        messages[-1]["role"] = "user"
    return messages


def _said(role: str, text: str) -> list[Json]:
    """Empty texts are refused there, and say nothing."""
    return [{"role": role, "content": text}] if text else []


def _spoken(message: Json, where: str) -> list[Json]:
    text = text_of(message.get("content"), f"{where}.content")
    calls = tool_calls_of(message, where)
    if not calls:
        return _said("assistant", text)
    told = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()},
        }
        for call in calls
    ]
    thoughts = message.get("reasoning_content")
    plan = text or (thoughts if isinstance(thoughts, str) else "")
    return [{"role": "assistant", "tool_calls": told, **({"tool_plan": plan} if plan else {})}]


def _result(message: Json, where: str) -> Json:
    id = message.get("tool_call_id")
    if not isinstance(id, str):
        raise BadField(
            f"`{where}.tool_call_id` is missing: say which call this answers.", param=f"{where}.tool_call_id"
        )
    return {"role": "tool", "tool_call_id": id, "content": text_of(message.get("content"), f"{where}.content")}


def _block(part: Part, where: str) -> Json:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not part.media_type.startswith("image/"):
        raise BadField(f"`{where}` has a file that this model cannot read: it reads texts and pictures.", param=where)
    return {"type": "image_url", "image_url": {"url": f"data:{part.media_type};base64,{part.base64}"}}
