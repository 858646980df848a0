"""What a chat engine says, in a message or in a piece of one, as far as a response has room for it. What is of another
type than it should be is taken for nothing: an answer is worth more than a field of it."""

from __future__ import annotations

from typing import Any

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.responses.items import Part


def text_in(holder: Json, *names: str) -> str:
    """Of the first name that has one; nothing is an empty text."""
    for name in names:
        text = holder.get(name)
        if text and isinstance(text, str):
            return text
    return ""


def object_in(holder: Json, name: str) -> Json:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def objects_in(holder: Json, name: str) -> list[Json]:
    entries = holder.get(name)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def said_in(message: Json, part: Part) -> str:
    return text_in(message, *part.told_as)


def arguments_in(function: Json) -> str:
    """A text; an object is an engine's mistake that costs nothing to forgive."""
    arguments: Any = function.get("arguments")
    return orjson.dumps(arguments).decode() if isinstance(arguments, dict) else text_in(function, "arguments")


def logprobs_in(choice: Json) -> list[Json]:
    if not choice.get("logprobs"):
        return []
    return [
        {**_logprob(entry), "top_logprobs": [_logprob(top) for top in objects_in(entry, "top_logprobs")]}
        for entry in objects_in(object_in(choice, "logprobs"), "content")
    ]


def _logprob(entry: Json) -> Json:
    """Chat's `bytes` may be null."""
    return {"token": entry.get("token"), "logprob": entry.get("logprob"), "bytes": entry.get("bytes") or []}
