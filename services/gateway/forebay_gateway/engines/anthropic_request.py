"""OpenAI's chat request as Anthropic's Messages request. Pure.

Only fields that Anthropic knows are sent, since it refuses all others. What would make another answer and has no words there
is refused here; what only asks for some service of OpenAI's is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.engines.anthropic_conversation import system_and_turns
from forebay_gateway.engines.anthropic_thinking import Thinking, thinking_for
from forebay_gateway.engines.chat_parts import (
    choice_of_tool,
    demand_absent,
    functions_of,
    stops_of,
    wanted_schema,
)
from forebay_gateway.engines.closed_schema import closed
from forebay_gateway.engines.thinking_wish import Effort, wished_effort
from forebay_gateway.refused import BadField

USUAL_MAX_TOKENS = 4096
"""Anthropic wants a limit; for clients that set none."""
_UNKNOWN = ("seed", "logprobs", "top_logprobs", "logit_bias", "frequency_penalty", "presence_penalty", "audio")
JSON_ALONE = "Answer with one JSON object and nothing else: no words before or after it, and no code fence."


def messages_body(fields: Mapping[str, Any], model: str, *, streamed: bool) -> Json:
    """Raises BadField."""
    demand_absent(fields, *_UNKNOWN)
    if (fields.get("n") or 1) != 1:
        raise BadField("`n` can only be 1 with this model: Anthropic gives one answer at a time.", param="n")
    body = {"model": model, **conversation(fields)}
    thinking = _thinking(fields, body, model)
    limit = fields.get("max_completion_tokens") or fields.get("max_tokens")
    body["max_tokens"] = limit or USUAL_MAX_TOKENS + thinking.budget
    body |= thinking.fields
    if config := _output_config(fields, thinking):
        body["output_config"] = config
    if not thinking.is_on:  # a thinking Claude takes none of them
        body |= {name: fields[name] for name in ("temperature", "top_p", "top_k") if fields.get(name) is not None}
    if stops := stops_of(fields):
        body["stop_sequences"] = stops
    user = fields.get("safety_identifier") or fields.get("user")
    if isinstance(user, str):
        body["metadata"] = {"user_id": user}
    if streamed:
        body["stream"] = True
    return body


def conversation(fields: Mapping[str, Any]) -> Json:
    """`messages`, `system`, `tools` and `tool_choice`: all that is read. Raises BadField."""
    system, turns = system_and_turns(fields)
    if wanted_schema(fields) == {}:
        # Schemas must name each property, so that one for «any object» cannot be said.
        system = f"{system}\n\n{JSON_ALONE}".strip()
    return {"messages": turns, **({"system": system} if system else {}), **_tools(fields, turns)}


def _tools(fields: Mapping[str, Any], turns: list[Json]) -> Json:
    functions = functions_of(fields)
    if not functions:
        called = _called_in(turns)
        if not called:
            return {}
        # A conversation with calls in it needs their tools, even if nothing may be called any more.
        tools: list[Json] = [{"name": name, "input_schema": {"type": "object"}} for name in called]
        return {"tools": tools, "tool_choice": {"type": "none"}}
    choice = _choice(fields)
    return {"tools": [_tool(function) for function in functions], **({"tool_choice": choice} if choice else {})}


def _tool(function: Json) -> Json:
    parameters = function.get("parameters")
    tool: Json = {
        "name": function["name"],
        "input_schema": {"type": "object", **(parameters if isinstance(parameters, dict) else {})},
    }
    if isinstance(function.get("description"), str):
        tool["description"] = function["description"]
    if function.get("strict") is True:
        tool["strict"] = True
        tool["input_schema"] = closed(tool["input_schema"])
    return tool


def _choice(fields: Mapping[str, Any]) -> Json:
    kind, name = choice_of_tool(fields)
    one_at_most = {"disable_parallel_tool_use": True} if fields.get("parallel_tool_calls") is False else {}
    match kind:
        case "none":
            return {"type": "none"}
        case "required":
            return {"type": "any", **one_at_most}
        case "named":
            return {"type": "tool", "name": name, **one_at_most}
        case _:
            return {"type": "auto", **one_at_most} if one_at_most else {}


def _thinking(fields: Mapping[str, Any], body: Json, model: str) -> Thinking:
    effort = wished_effort(fields)
    if effort not in (None, Effort.NONE):
        # A Claude that must call a tool does not think; nor does one that goes on after a tool's result without the signed
        # thoughts from before the call, which OpenAI's chat cannot carry.
        is_forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
        if is_forced or _answers_tools(body["messages"]):
            return Thinking()
    return thinking_for(effort, model, fields.get("max_completion_tokens") or fields.get("max_tokens"))


def _output_config(fields: Mapping[str, Any], thinking: Thinking) -> Json:
    schema = wanted_schema(fields)
    config: Json = {"effort": thinking.effort} if thinking.effort else {}
    if schema:
        config["format"] = {"type": "json_schema", "schema": closed(schema)}
    return config


def _answers_tools(turns: list[Json]) -> bool:
    return any(block["type"] == "tool_result" for block in turns[-1]["content"])


def _called_in(turns: list[Json]) -> list[str]:
    names = [block["name"] for turn in turns for block in turn["content"] if block["type"] == "tool_use"]
    return list(dict.fromkeys(names))
