"""What a rule does to a request in Ollama's own words. Pure.

A rule's fields are those of OpenAI's chat; what has a place in Ollama's requests goes there, the rest is left out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.rules.model_rules import Rule, filled, is_unsaid, merged
from forebay_gateway.rules.ruled_fields import demand_exact, is_beyond

_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty",
    "repeat_penalty": "repeat_penalty",
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
}
_SAME = ("tools", "logprobs", "top_logprobs", "dimensions", "keep_alive")
_TOUCHED = ("options", "keep_alive", "think", "format", *_SAME)
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PIECE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def ruled_body(body: Json, rule: Rule, *, generates: bool) -> Json:
    """Raises BadField."""
    demand_exact(body, _TOUCHED)
    out = filled(body, _in_ollamas_words(rule.defaults, generates))
    if generates and rule.thinks_unasked is False and is_unsaid(out.get("think")):
        out["think"] = False
    pinned = _in_ollamas_words(rule.pinned, generates)
    if is_unsaid(out.get("options")):
        out.pop("options", None)
    out = merged(out, pinned)
    options = out.get("options")
    told = dict(options) if isinstance(options, dict) else {}
    if generates and rule.max_output_tokens is not None:
        limit = told.get("num_predict")
        if is_unsaid(limit) or limit == 0 or is_beyond(limit, rule.max_output_tokens):  # 0 and less are without end
            told["num_predict"] = rule.max_output_tokens
    for most in (rule.num_ctx, rule.max_context_tokens):
        if most is not None and is_beyond(told.get("num_ctx"), most):
            told["num_ctx"] = most
    if told:
        out["options"] = told
    if rule.keep_alive_s is not None and seconds_of(out.get("keep_alive")) > rule.keep_alive_s:
        out["keep_alive"] = rule.keep_alive_s
    return out


def seconds_of(keep_alive: Any) -> float:
    """A number of seconds, or a duration such as "1h30m"; below zero is for ever. What is not said is nothing."""
    if isinstance(keep_alive, int | float):
        return math.inf if keep_alive < 0 else keep_alive
    if not isinstance(keep_alive, str):
        return 0.0
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PIECE.findall(keep_alive))
    return math.inf if keep_alive.startswith("-") and seconds else seconds


def _in_ollamas_words(fields: Mapping[str, Any], generates: bool) -> Json:
    options = {_OPTIONS[name]: value for name, value in fields.items() if name in _OPTIONS}
    told: Json = {name: fields[name] for name in _SAME if name in fields}
    own = fields.get("options")
    options |= own if isinstance(own, dict) else {}
    if options:
        told["options"] = options
    if not generates:
        return told
    form = fields.get("response_format")
    if isinstance(form, dict):
        told |= _format(form)
    template, effort = fields.get("chat_template_kwargs"), fields.get("reasoning_effort")
    thinks = template.get("enable_thinking") if isinstance(template, dict) else None
    if isinstance(effort, str) and thinks is not False:
        told["think"] = (
            False if effort == "none" else {"minimal": "low", "xhigh": "high", "max": "high"}.get(effort, effort)
        )
    elif isinstance(thinks, bool):
        told["think"] = thinks
    return told


def _format(wanted: Json) -> Json:
    match wanted.get("type"):
        case "json_object":
            return {"format": "json"}
        case "json_schema":
            schema = wanted.get("json_schema")
            return {"format": schema["schema"]} if isinstance(schema, dict) and "schema" in schema else {}
    return {}
