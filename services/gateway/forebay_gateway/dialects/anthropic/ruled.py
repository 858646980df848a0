"""What a rule does to a request in Anthropic's own words. Pure.

A rule's fields are those of OpenAI's chat. Anthropic refuses every field that it does not know, so those that have no place
there are left out. A Claude thinks only when it is asked to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.rules.model_rules import Rule, filled, merged
from forebay_gateway.rules.ruled_fields import is_beyond

_NAMES = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop_sequences",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
}
_LEAST_BUDGET = 1024


def ruled_body(body: Json, rule: Rule) -> Json:
    out = merged(filled(body, _in_anthropics_words(rule.defaults)), _in_anthropics_words(rule.pinned))
    if rule.max_output_tokens is not None and is_beyond(out.get("max_tokens"), rule.max_output_tokens):
        out["max_tokens"] = rule.max_output_tokens
    template = rule.pinned.get("chat_template_kwargs")
    if isinstance(template, dict) and template.get("enable_thinking") is False:
        out.pop("thinking", None)
    return _within_limit(out)


def _in_anthropics_words(fields: Mapping[str, Any]) -> Json:
    told = {_NAMES[name]: value for name, value in fields.items() if name in _NAMES}
    if isinstance(told.get("stop_sequences"), str):
        told["stop_sequences"] = [told["stop_sequences"]]
    return told


def _within_limit(body: Json) -> Json:
    """Anthropic refuses a budget for thoughts that leaves no token for the answer."""
    thinking, limit = body.get("thinking"), body.get("max_tokens")
    if not isinstance(thinking, dict) or not isinstance(limit, int):
        return body
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int) or budget < limit:
        return body
    if limit <= _LEAST_BUDGET:
        return {name: value for name, value in body.items() if name != "thinking"}
    return {**body, "thinking": {**thinking, "budget_tokens": limit - 1}}
