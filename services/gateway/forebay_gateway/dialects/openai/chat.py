"""OpenAI's chat completion request."""

from __future__ import annotations

from typing import Any

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.fields import (
    MOST_CHOICES,
    count_in,
    flag_in,
    include_usage_in,
    model_of,
    models_in,
    parse_object,
    wrong_type,
)
from forebay_gateway.canonical.forms import CHAT
from forebay_gateway.refused import BadField


def parse_chat(raw: bytes) -> Asked:
    """Raises BadField."""
    body = parse_object(raw, "`model` and `messages`")
    has_list = "models" in body
    model, instead = models_in(body) if has_list else (model_of(body.get("model")), ())
    stream = "stream" in body and flag_in(body, "stream")
    choices = ("n" in body and count_in(body, "n", most=MOST_CHOICES)) or 1
    max_output_tokens = ("max_completion_tokens" in body and count_in(body, "max_completion_tokens")) or 0
    if "max_tokens" in body and not max_output_tokens:
        max_output_tokens = count_in(body, "max_tokens") or 0
    include_usage = ("stream_options" in body or "usage" in body) and include_usage_in(body)
    demand_messages(body)
    return Asked(
        CHAT,
        model,
        stream,
        choices,
        choices,
        choices,
        max_output_tokens,
        include_usage,
        body,
        b"" if has_list else raw,
        instead=instead,
    )


def demand_messages(body: dict[str, Any]) -> None:
    """Raises BadField."""
    messages = body.get("messages")
    if messages is None:
        raise BadField(
            "`messages` is missing: send the conversation as a list of {role, content} objects.",
            param="messages",
            code="missing_required_parameter",
        )
    if type(messages) is not list:
        raise wrong_type("messages", "a list of objects", messages)
    if not messages:
        raise BadField("`messages` is empty: it needs at least one message.", param="messages", code="invalid_value")
    for place, message in enumerate(messages):
        if type(message) is not dict:
            raise wrong_type(f"messages[{place}]", "an object with `role` and `content`", message)
