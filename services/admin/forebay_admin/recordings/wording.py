"""What a request or an answer says, whichever dialect it is in: the text that is kept, and the words that it is found by.
Pure.

JSON is kept as it came, redacted text by text. Of a stream of events only what it came to is kept: a word that is cut
into pieces would slip through any redaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Redact = Callable[[str], str]

_DEEPEST = 60
_LONGEST_WORD = 400
"""Longer ones are bytes in base64 and the like, by which nobody looks."""
_TOLD_APART = ("text", "thoughts", "calls")


@dataclass(frozen=True, slots=True)
class Wording:
    kept: str
    words: str


def wording(body: bytes, redact: Redact) -> Wording:
    """Raises what `redact` raises."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        if error.start < len(body) - 4:  # not merely cut within a letter
            return Wording("", "")
        text = body[: error.start].decode()
    text = text.replace("\0", "")
    found = _parsed(text)
    if found is None and (events := list(_events(text))):
        found = _folded(events)
    if found is None:
        clean = redact(text)
        return Wording(clean, _findable(clean))
    words: list[str] = []
    clean_json = _cleaned(found, redact, words, 0)
    return Wording(json.dumps(clean_json, ensure_ascii=False), " ".join(words))


def _parsed(text: str) -> Any:
    """None: it is no JSON object or list."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


def _events(text: str) -> Iterator[dict[str, Any]]:
    """Of server-sent events, or of lines of JSON; what was cut is left out."""
    for line in text.splitlines():
        line = line.removeprefix("data:").strip()
        if line.startswith("{"):
            found = _parsed(line)
            if isinstance(found, dict):
                yield found


def _folded(events: list[dict[str, Any]]) -> dict[str, Any]:
    told = {name: "" for name in _TOLD_APART}
    errors = []
    for event in events:
        for name, piece in _pieces(event):
            told[name] += piece
        if event.get("error"):
            errors.append(event["error"])
    return {**{name: text for name, text in told.items() if text}, **({"errors": errors} if errors else {})}


def _pieces(event: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(one of _TOLD_APART, a piece of it), in OpenAI's, Anthropic's and Ollama's ways of telling."""
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            yield from _of_message(choice.get("delta"))
            yield from _text("text", choice.get("text"))
    delta = event.get("delta")
    if isinstance(delta, dict):
        yield from _text("text", delta.get("text"))
        yield from _text("thoughts", delta.get("thinking"))
        yield from _text("calls", delta.get("partial_json"))
    elif isinstance(delta, str):
        kind = str(event.get("type", ""))
        yield from _text("calls" if "arguments" in kind else "thoughts" if "reasoning" in kind else "text", delta)
    yield from _of_message(event.get("message"))
    yield from _text("text", event.get("response"))
    yield from _text("thoughts", event.get("thinking"))


def _of_message(message: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(message, dict):
        return
    yield from _text("text", message.get("content"))
    yield from _text(
        "thoughts", message.get("reasoning_content") or message.get("reasoning") or message.get("thinking")
    )
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield from _text("calls", function.get("name"))
            arguments = function.get("arguments")
            yield from _text(
                "calls", arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            )


def _text(name: str, piece: Any) -> Iterator[tuple[str, str]]:
    if isinstance(piece, str) and piece:
        yield name, piece


def _cleaned(found: Any, redact: Redact, words: list[str], depth: int) -> Any:
    if depth > _DEEPEST:
        return None
    if isinstance(found, str):
        clean = redact(found.replace("\0", ""))
        words.append(_findable(clean))
        return clean
    if isinstance(found, list):
        return [_cleaned(item, redact, words, depth + 1) for item in found]
    if isinstance(found, dict):
        return {
            redact(name.replace("\0", "")): _cleaned(item, redact, words, depth + 1) for name, item in found.items()
        }
    return found


def _findable(text: str) -> str:
    return " ".join(word for word in text.split() if len(word) <= _LONGEST_WORD)
