"""What is looked at and done to Anthropic's own answer whose form its client cares for. Pure."""

from __future__ import annotations

from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.structured import Answer, Mending, unfenced

ENDED_IN_WORDS = ("end_turn", "stop_sequence")


def answer_in(message: Json) -> Answer:
    text = "".join(_text_of(block) for block in message["content"])
    return Answer(text, message.get("stop_reason") in ENDED_IN_WORDS)


def mended_message(message: Json, mending: Mending) -> Json:
    """Its usage is that of all times that it was asked for."""
    mended = dict(message)
    if mending.unfences:
        mended["content"] = [_unfenced_block(block) for block in message["content"]]
    usage = message.get("usage")
    if mending.before is not None and isinstance(usage, dict):
        used = mending.before.usage
        more = {
            "input_tokens": used.prompt - used.cached_prompt,
            "output_tokens": used.completion,
            "cache_read_input_tokens": used.cached_prompt,
        }
        mended["usage"] = {**usage, **{name: (usage.get(name) or 0) + count for name, count in more.items() if count}}
    return mended


def _text_of(block: Any) -> str:
    text = block.get("text") if isinstance(block, dict) and block.get("type") == "text" else None
    return text if isinstance(text, str) else ""


def _unfenced_block(block: Any) -> Any:
    text = _text_of(block)
    return {**block, "text": unfenced(text)} if text else block
