"""What of a generation's body the engine hears at all: engines leave aside fields that they do not know, and some refuse a
role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.fakes.engine_flavours import Traits

_OLLAMAS_EFFORTS = ("none", "low", "medium", "high")


class Unheard(Exception):
    """It cannot be served: 400, with this message."""


def heard(path: str, body: Mapping[str, Any], traits: Traits) -> Mapping[str, Any]:
    """In words that all flavours understand. Raises Unheard."""
    messages = body.get("messages")
    roles = [message.get("role") for message in messages or () if isinstance(message, dict)]
    if "developer" in roles and not traits.knows_developers:
        raise Unheard("Unexpected message role.")
    left_aside = {"tool_choice"} if traits.ignores_tool_choice else set()
    if not traits.is_ollamas or not path.startswith("/v1/"):
        return {name: value for name, value in body.items() if name not in left_aside}
    left_aside |= {"max_completion_tokens", "chat_template_kwargs", "best_of", "reasoning_effort"}
    told = {name: value for name, value in body.items() if name not in left_aside}
    effort = body.get("reasoning_effort")
    if effort not in (None, "", *_OLLAMAS_EFFORTS):
        raise Unheard(f'invalid reasoning value: "{effort}" (must be "high", "medium", "low", or "none")')
    if effort == "none":
        return {**told, "chat_template_kwargs": {"enable_thinking": False}}
    return {**told, "reasoning_effort": effort} if effort else told
