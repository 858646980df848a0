"""What a whole answer and a streamed one have in common in Anthropic's dialect: envelope, usage, why it stopped. Pure."""

from __future__ import annotations

import secrets
from typing import Any

from forebay_gateway.canonical.answer_stream import read_usage
from forebay_gateway.canonical.dialect import Json

_STOP_REASONS = {"length": "max_tokens", "content_filter": "refusal", "tool_calls": "tool_use"}


def new_message(model: str, usage: Json) -> Json:
    """Nothing in it yet."""
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def new_tool_use_id() -> str:
    return f"toolu_{secrets.token_hex(12)}"


def usage_of(reported: Any) -> Json:
    """From OpenAI's usage object. Tokens that were read from a cache are input there; here they are counted apart."""
    used = read_usage(reported)
    if used is None:
        return token_usage(0)
    return token_usage(used.prompt - used.cached_prompt, cached=used.cached_prompt, written=used.completion)


def token_usage(read: int, *, cached: int = 0, written: int = 0) -> Json:
    return {
        "input_tokens": read,
        "output_tokens": written,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
    }


def why_stopped(choice: Json, *, has_tool_use: bool) -> Json:
    """`stop_reason` and `stop_sequence`, from the choice that has the finish reason."""
    finish = str(choice.get("finish_reason"))
    if has_tool_use and finish not in _STOP_REASONS:
        finish = "tool_calls"  # engines say `stop` too when the client demanded a certain tool
    # vLLM tells the matched sequence as `stop_reason`, SGLang as `matched_stop`; a number is a token of the model's own.
    matched = choice.get("stop_reason") or choice.get("matched_stop")
    if finish == "stop" and isinstance(matched, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": matched}
    return {"stop_reason": _STOP_REASONS.get(finish, "end_turn"), "stop_sequence": None}


def thought_in(spoken: Json) -> Any:
    """Of a message or a delta; engines call it one or the other, and some both."""
    return spoken.get("reasoning_content") or spoken.get("reasoning")
