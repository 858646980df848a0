"""Anthropic's Messages request, checked, and as the chat request that engines get. Pure.

Fields that Anthropic does not know travel on, as in OpenAI's own requests; the engine judges them."""

from __future__ import annotations

from typing import Any

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import count_in, flag_in, model_in, parse_object, wrong_type
from forebay_gateway.canonical.forms import CHAT
from forebay_gateway.dialects.anthropic.answer import MessagesTranslation
from forebay_gateway.dialects.anthropic.checked import object_at, text_at
from forebay_gateway.dialects.anthropic.conversation import chat_messages
from forebay_gateway.dialects.anthropic.effort import format_fields, thinking_fields
from forebay_gateway.dialects.anthropic.native import MessagesSpeech
from forebay_gateway.dialects.anthropic.tools import tool_fields
from forebay_gateway.dialects.anthropic.untranslated import Untranslated
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.refused import BadField

_TRANSLATED = {
    "max_tokens",
    "mcp_servers",
    "messages",
    "metadata",
    "model",
    "output_config",
    "output_format",
    "stop_sequences",
    "stream",
    "system",
    "thinking",
    "tool_choice",
    "tools",
}
_MEANT_FOR_ANTHROPIC = {
    "anthropic_beta",
    "anthropic_version",
    "betas",
    "cache_control",
    "container",
    "context_management",
    "diagnostics",
    "inference_geo",
    "service_tier",
    "speed",
    "user_profile_id",
    "workspace_id",
}
_OF_OTHER_ANSWERS = {"best_of", "max_completion_tokens", "n", "stream_options"}
"""A message is one answer and says itself what it used."""
_NOT_PASSED = _TRANSLATED | _MEANT_FOR_ANTHROPIC | _OF_OTHER_ANSWERS


def parse_messages(raw: bytes) -> Asked:
    """What only Anthropic understands is no error here: whoever chooses engines looks at `untranslated`. Raises BadField."""
    body = parse_object(raw, "`model`, `max_tokens` and `messages`")
    untranslated = Untranslated()
    model, stream, max_tokens = model_in(body), flag_in(body, "stream"), _max_tokens(body)
    fields: dict[str, Any] = {
        "model": model,
        "messages": chat_messages(body, untranslated),
        "max_tokens": max_tokens,
        **{name: value for name, value in body.items() if name not in _NOT_PASSED},
        **_sampling(body),
        **tool_fields(body, untranslated),
        **untranslated.fields_of(thinking_fields, body),
        **untranslated.fields_of(format_fields, body),
    }
    if stream:
        fields["stream"] = True
    asked = Asked(
        form=CHAT,
        model=model,
        stream=stream,
        width=1,
        choices=1,
        samples=1,
        max_output_tokens=max_tokens,
        include_usage=True,
        fields=fields,
        raw=b"",
        translation=MessagesTranslation(model),
        continues=True,
    )
    asked.untranslated = untranslated.first
    asked.native = {EngineKind.ANTHROPIC: MessagesSpeech(asked, body)}
    return asked


def _max_tokens(body: Json) -> int:
    most = count_in(body, "max_tokens")
    if most is None:
        raise BadField(
            "`max_tokens` is missing: say how many tokens the answer may have at most.",
            param="max_tokens",
            code="missing_required_parameter",
        )
    return most


def _sampling(body: Json) -> Json:
    """`temperature`, `top_p` and `top_k` are called the same and only checked."""
    for name in ("temperature", "top_p", "top_k"):
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise wrong_type(name, "a number", value)
    fields: Json = {}
    stop = body.get("stop_sequences")
    if stop is not None and not (isinstance(stop, list) and all(isinstance(text, str) for text in stop)):
        raise wrong_type("stop_sequences", "a list of strings", stop)
    if stop:
        fields["stop"] = stop
    metadata = object_at(body, "metadata") if body.get("metadata") is not None else {}
    if metadata.get("user_id") is not None:
        fields["user"] = text_at(metadata, "user_id", "metadata")
    return fields
