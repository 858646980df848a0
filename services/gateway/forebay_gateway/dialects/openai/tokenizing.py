"""The request of `POST /v1/tokenize`, by vLLM's names: a chat, or one prompt, whose tokens are counted."""

from __future__ import annotations

from typing import Any

from forebay_gateway.canonical.fields import model_in, parse_object, wrong_type
from forebay_gateway.dialects.openai.chat import demand_messages


def parse_tokenize(raw: bytes) -> tuple[str, dict[str, Any]]:
    """The model and the body. Raises BadField."""
    body = parse_object(raw, "`model` and `messages`, or `model` and `prompt`")
    model = model_in(body)
    if "prompt" not in body:
        demand_messages(body)
    elif not isinstance(body["prompt"], str):
        raise wrong_type("prompt", "a string", body["prompt"])
    return model, body
