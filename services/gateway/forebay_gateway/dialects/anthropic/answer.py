"""From OpenAI's chat answers to Anthropic's messages. Pure. Answers that are streamed: `stream.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.anthropic.message import new_message, new_tool_use_id, thought_in, usage_of, why_stopped
from forebay_gateway.dialects.anthropic.stream import MessagesWriter


@dataclass(slots=True)
class MessagesTranslation:
    model: str
    """As the client called it."""

    def rename(self, model: str) -> None:
        self.model = model

    def whole(self, answer: Json) -> Json:
        choice: Json = next(iter(answer.get("choices") or ()), {})
        content = list(_blocks(choice.get("message") or {}))
        has_tool_use = any(block["type"] == "tool_use" for block in content)
        message = new_message(self.model, usage_of(answer.get("usage")))
        return {**message, "content": content, **why_stopped(choice, has_tool_use=has_tool_use)}

    def writer(self, estimated_prompt: int) -> MessagesWriter:
        return MessagesWriter(self.model, estimated_prompt)


def _blocks(message: Json) -> Iterator[Json]:
    thought, text = thought_in(message), message.get("content")
    if thought and isinstance(thought, str):
        # Only Anthropic signs thoughts, so that only Anthropic could check them.
        yield {"type": "thinking", "thinking": thought, "signature": ""}
    if text and isinstance(text, str):
        yield {"type": "text", "text": text}
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        yield {
            "type": "tool_use",
            "id": call.get("id") or new_tool_use_id(),
            "name": function.get("name") or "",
            "input": _input(function.get("arguments")),
        }


def _input(arguments: Any) -> Json:
    """Must be an object; arguments that are none are handed on as the model wrote them."""
    if not arguments:
        return {}
    try:
        parsed = orjson.loads(arguments) if isinstance(arguments, str) else arguments
    except orjson.JSONDecodeError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"arguments": arguments}
