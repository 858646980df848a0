"""What a model must be able to do to answer a chat, in the words in which engines tell what theirs can. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PARTS = {"image_url": "vision", "input_image": "vision", "image": "vision", "input_audio": "audio"}


def needs_of(fields: Mapping[str, Any]) -> frozenset[str]:
    """`fields`: of OpenAI's chat, or of another form, which needs nothing."""
    needs = {"tools"} if fields.get("tools") else set()
    messages = fields.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind in _PARTS:
                needs.add(_PARTS[kind])
    return frozenset(needs)
