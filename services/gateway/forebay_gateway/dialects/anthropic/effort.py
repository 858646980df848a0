"""How much a model should think and in what form it should answer, from Anthropic's words to those of engines. Pure."""

from __future__ import annotations

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.anthropic.checked import at, count_at, object_at, text_at, unknown

_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_LOW_BELOW, _MEDIUM_BELOW = 2048, 16384
"""Budgets in tokens: engines know three words instead."""


def thinking_fields(body: Json) -> Json:
    """`reasoning_effort` for models that think more or less, `chat_template_kwargs` for those that do or do not: vLLM,
    SGLang and llama.cpp hand them to the chat template. Raises BadField."""
    effort = _wished_effort(body)
    fields: Json = {}
    if body.get("thinking") is not None:
        thinking = object_at(body, "thinking")
        match text_at(thinking, "type", "thinking"):
            case "disabled":
                return _template(body, thinks=False)
            case "enabled":
                fields = _template(body, thinks=True)
                effort = effort or _effort_of(count_at(thinking, "budget_tokens", "thinking"))
            case "adaptive" | "between_tools":
                fields = _template(body, thinks=True)
            case kind:
                raise unknown("thinking.type", kind, "enabled, adaptive, between_tools or disabled")
    return {**fields, "reasoning_effort": effort} if effort else fields


def format_fields(body: Json) -> Json:
    """`response_format`, when the answer must follow a schema. Raises BadField."""
    config, owner, name = _output_config(body), "output_config", "format"
    if config.get("format") is None:
        config, owner, name = body, "", "output_format"  # what it was called before
    if config.get(name) is None:
        return {}
    where, wanted = at(owner, name), object_at(config, name, owner)
    if text_at(wanted, "type", where) != "json_schema":
        raise unknown(at(where, "type"), wanted["type"], "json_schema")
    schema = {"name": "answer", "schema": object_at(wanted, "schema", where)}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _wished_effort(body: Json) -> str | None:
    config = _output_config(body)
    if config.get("effort") is None:
        return None
    effort = text_at(config, "effort", "output_config")
    if effort not in _EFFORTS:
        raise unknown("output_config.effort", effort, "low, medium, high, xhigh or max")
    return _EFFORTS[effort]


def _effort_of(budget: int | None) -> str | None:
    if budget is None:
        return None
    if budget < _LOW_BELOW:
        return "low"
    return "medium" if budget < _MEDIUM_BELOW else "high"


def _output_config(body: Json) -> Json:
    return object_at(body, "output_config") if body.get("output_config") is not None else {}


def _template(body: Json, *, thinks: bool) -> Json:
    given = body.get("chat_template_kwargs")
    return {"chat_template_kwargs": {**(given if isinstance(given, dict) else {}), "enable_thinking": thinks}}
