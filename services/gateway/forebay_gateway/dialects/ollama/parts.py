"""The objects that Ollama's answers are made of, streamed or whole: alike but for where the text stands in them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from forebay_gateway.canonical.dialect import Json


class Part(NamedTuple):
    """What one object adds to an answer."""

    text: str = ""
    thinking: str = ""
    tool_calls: Sequence[Json] = ()


@dataclass(frozen=True, slots=True)
class AnswerForm:
    path: str
    text: str
    """The name of the field with the text."""
    in_message: bool
    """Text, thinking and tool calls are in an assistant's `message`; else beside everything else."""

    def say(self, part: Part) -> Json:
        said: Json = {self.text: part.text}
        if part.thinking:
            said["thinking"] = part.thinking
        if part.tool_calls:
            said["tool_calls"] = list(part.tool_calls)
        return {"message": {"role": "assistant", **said}} if self.in_message else said

    def hear(self, told: Json) -> Part:
        """What an engine's object says; nothing where it says nonsense."""
        said = told.get("message") if self.in_message else told
        if not isinstance(said, dict):
            return Part()
        calls = said.get("tool_calls")
        return Part(text_in(said, self.text), text_in(said, "thinking"), calls if isinstance(calls, list) else ())

    def is_answer(self, told: Json) -> bool:
        return isinstance(told.get("message"), dict) if self.in_message else isinstance(told.get(self.text), str)


CHAT_ANSWER = AnswerForm("/api/chat", "content", in_message=True)
GENERATED = AnswerForm("/api/generate", "response", in_message=False)


def text_in(said: Json, name: str) -> str:
    value = said.get(name)
    return value if isinstance(value, str) else ""


def as_line(told: Json) -> bytes:
    """Of a stream. Its clients take no blank lines, and no comments either."""
    return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)


def as_timestamp(seconds: float) -> str:
    """`seconds`: since the epoch. RFC 3339, with a fraction and a Z, as Ollama writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


def without_zeros(counts: dict[str, Any]) -> Json:
    """Ollama leaves out the counts and durations that are zero."""
    return {name: count for name, count in counts.items() if count}
