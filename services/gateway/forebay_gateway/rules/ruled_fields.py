"""What a rule does to a request in OpenAI's dialect. Pure.

Defaults, then the client's own fields, then what is pinned, then limits. A request that nothing is changed about stays the
very object that it was, so that it may pass byte by byte."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from forebay_gateway.canonical.forms import CHAT, COMPLETION, Form
from forebay_gateway.refused import BadField
from forebay_gateway.rules.model_rules import Json, Rule, filled, is_unsaid, merged

LIMITS = ("max_completion_tokens", "max_tokens")
# llama.cpp's server knows its own name for it in OpenAI's requests too, and takes it before the others.
_ALL_LIMITS = (*LIMITS, "n_predict")
_OLLAMAS = ("options", "keep_alive")
_OF_CHATS = ("chat_template_kwargs", "max_completion_tokens", "reasoning_effort")
_THOUGHTS = ("enable_thinking", "reasoning", "think", "thinking", "thinking_budget")


def ruled_fields(fields: Mapping[str, Any], rule: Rule, form: Form) -> Mapping[str, Any]:
    """The same object when nothing is changed. Raises BadField."""
    generates, limit = form in (CHAT, COMPLETION), rule.max_output_tokens
    pinned = _meant(rule.pinned, form)
    demand_exact(fields, {*pinned, *(_ALL_LIMITS if generates and limit is not None else ())})
    out = filled(fields, _without_second_limit(_meant(rule.defaults, form), fields))
    if form is CHAT and rule.thinks_unasked is False and not _says_how_to_think(out):
        out = _thoughtless(out)
    if any(name in pinned for name in LIMITS):
        out = {name: value for name, value in out.items() if name not in _ALL_LIMITS}
    out = merged(out, pinned)
    if generates and limit is not None:
        out = _limited(out, limit, form)
    return fields if out == fields else out


def output_limit(fields: Mapping[str, Any]) -> int:
    """Tokens of one answer; 0 without a limit."""
    return next((limit for name in LIMITS if isinstance(limit := fields.get(name), int) and limit), 0)


def demand_exact(body: Mapping[str, Any], names: Collection[str]) -> None:
    """Raises BadField for a name that is one of these but for its letters' case: Ollama would read it as that one, and the
    client get around the rule."""
    meant = {name.casefold(): name for name in names}
    for name in body:
        if name not in names and (other := meant.get(name.casefold())) is not None:
            raise BadField(f"`{name[:80]}` is not a field; write `{other}`.", param=other, code="invalid_value")


def _meant(fields: Mapping[str, Any], form: Form) -> Mapping[str, Any]:
    """Those that such a request can have."""
    left_out = _OLLAMAS if form is not COMPLETION else (*_OLLAMAS, *_OF_CHATS)
    return {name: value for name, value in fields.items() if name not in left_out}


def _without_second_limit(defaults: Mapping[str, Any], fields: Mapping[str, Any]) -> Mapping[str, Any]:
    if all(is_unsaid(fields.get(name)) for name in _ALL_LIMITS):
        return defaults
    return {name: value for name, value in defaults.items() if name not in _ALL_LIMITS}


def _says_how_to_think(fields: Mapping[str, Any]) -> bool:
    template = fields.get("chat_template_kwargs")
    if isinstance(template, dict):
        if any(template.get(name) is not None for name in ("enable_thinking", "thinking")):
            return True
    elif template is not None:
        return True  # nonsense, which is for the engine to judge
    effort = fields.get("reasoning_effort")
    return effort not in (None, "none") or any(fields.get(name) is not None for name in _THOUGHTS)


def _thoughtless(fields: Json) -> Json:
    return {**fields, "chat_template_kwargs": {**(fields.get("chat_template_kwargs") or {}), "enable_thinking": False}}


def _limited(fields: Json, limit: int, form: Form) -> Json:
    for name in _ALL_LIMITS:
        if is_beyond(fields.get(name), limit):
            fields[name] = limit
    heard = LIMITS if form is CHAT else ("max_tokens",)
    if all(is_unsaid(fields.get(name)) for name in heard):
        fields["max_tokens"] = limit  # the newer name is not known to every engine
    return fields


def is_beyond(value: Any, limit: int) -> bool:
    """Below zero is without end."""
    return isinstance(value, int | float) and not isinstance(value, bool) and (value > limit or value < 0)
