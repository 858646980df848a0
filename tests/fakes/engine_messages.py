"""What the messages of a chat say and show: texts, results of tools, images. OpenAI's shape and Ollama's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]


class BadMessage(Exception):
    """A message shows what cannot be read."""


def text_of(content: Any) -> str:
    """A text, or the text parts of a message, one a line."""
    if isinstance(content, list):
        return "\n".join(text_of(part.get("text")) for part in content if isinstance(part, dict) and "text" in part)
    return content if isinstance(content, str) else ""


def last_user_text(messages: Sequence[Message]) -> str:
    return next((text_of(said.get("content")) for said in reversed(messages) if said.get("role") == "user"), "")


def tool_results(messages: Sequence[Message]) -> list[str]:
    """Of the tool messages at the very end of the chat, in their order."""
    results: list[str] = []
    for message in reversed(messages):
        if message.get("role") != "tool":
            break
        results.insert(0, text_of(message.get("content")))
    return results


def count_images(messages: Sequence[Message]) -> int:
    """Raises BadMessage for one that is no address and no base64."""
    return sum(1 for message in messages for _ in _images(message))


def _images(message: Message) -> Iterator[None]:
    for encoded in message.get("images") or ():
        _check_base64(encoded)
        yield
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and part.get("type") == "image_url":
            given = part.get("image_url")
            _check_image_url(given.get("url") if isinstance(given, dict) else given)
            yield


def _check_image_url(url: Any) -> None:
    if not isinstance(url, str) or not url.startswith(("data:", "http://", "https://")):
        raise BadMessage("The URL must be either a HTTP or data URL.")
    if url.startswith("data:"):
        head, comma, encoded = url.partition(",")
        if not comma or not head.endswith(";base64"):
            raise BadMessage("Only base64 data URLs are supported for now.")
        _check_base64(encoded)


def _check_base64(encoded: Any) -> None:
    try:
        base64.b64decode(encoded, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise BadMessage(f"illegal base64 data of an image: {error}") from error
