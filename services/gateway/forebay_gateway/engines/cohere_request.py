"""OpenAI's requests as Cohere's (v2): a chat, texts to embed, documents to rank. Pure.

Only fields that Cohere knows are sent. What would make another answer and has no words there is refused here; what only asks
for some service of OpenAI's is left out. (https://docs.cohere.com/reference/chat)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.engines.chat_parts import (
    choice_of_tool,
    demand_absent,
    functions_of,
    stops_of,
    wanted_schema,
)
from forebay_gateway.engines.cohere_conversation import messages_for
from forebay_gateway.engines.thinking_wish import Effort, wished_effort
from forebay_gateway.engines.unspoken import texts_to_embed
from forebay_gateway.refused import BadField

MOST_EMBEDDED = 96
"""In one request."""
USUAL_INPUT_TYPE = "search_document"
_UNKNOWN = ("logprobs", "top_logprobs", "logit_bias", "audio")
_SAME = {
    "temperature": "temperature",
    "top_k": "k",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_LEAST_P, _MOST_P = 0.01, 0.99
_BUDGETS = {Effort.MINIMAL: 1024, Effort.LOW: 1024, Effort.MEDIUM: 4096, Effort.HIGH: 16384}
_MOST_BUDGET = 31000


def chat_body(fields: Mapping[str, Any], model: str, *, streamed: bool) -> Json:
    """Raises BadField."""
    demand_absent(fields, *_UNKNOWN)
    if (fields.get("n") or 1) != 1:
        raise BadField("`n` can only be 1 with this model: Cohere gives one answer at a time.", param="n")
    body: Json = {"model": model, "messages": messages_for(fields), "stream": streamed, **_tools(fields)}
    body |= {theirs: fields[ours] for ours, theirs in _SAME.items() if fields.get(ours) is not None}
    if fields.get("top_p") is not None:
        # 1 leaves nothing out, and is what many clients send unasked; so much Cohere does not take.
        body["p"] = min(max(fields["top_p"], _LEAST_P), _MOST_P)
    if limit := fields.get("max_completion_tokens") or fields.get("max_tokens"):
        body["max_tokens"] = limit
    if stops := stops_of(fields):
        body["stop_sequences"] = stops
    schema = wanted_schema(fields)
    if schema is not None:
        body["response_format"] = {"type": "json_object", **({"json_schema": schema} if schema else {})}
    if (effort := wished_effort(fields)) is not None:
        body["thinking"] = _thinking(effort)
    return body


def embed_body(fields: Mapping[str, Any], model: str) -> Json:
    """Raises BadField."""
    texts = texts_to_embed(fields["input"], "Cohere", MOST_EMBEDDED)
    size = {"output_dimension": fields["dimensions"]} if fields.get("dimensions") else {}
    input_type = fields.get("input_type") or USUAL_INPUT_TYPE
    return {"model": model, "texts": texts, "input_type": input_type, "embedding_types": ["float"], **size}


def rerank_body(fields: Mapping[str, Any], model: str) -> Json:
    body: Json = {"model": model, "query": fields["query"], "documents": fields["documents"]}
    for name in ("top_n", "max_tokens_per_doc"):
        if fields.get(name) is not None:
            body[name] = fields[name]
    return body


def _tools(fields: Mapping[str, Any]) -> Json:
    functions = functions_of(fields)
    if not functions:
        return {}
    if fields.get("parallel_tool_calls") is False:
        raise BadField(
            "`parallel_tool_calls` cannot be false with this model: Cohere calls as many tools at once as it likes.",
            param="parallel_tool_calls",
            code="unsupported_parameter",
        )
    kind, name = choice_of_tool(fields)
    told: Json = {}
    if kind == "named":
        # A tool cannot be named there: it is the only one.
        functions = [function for function in functions if function["name"] == name]
        if not functions:
            raise BadField(f"`tool_choice` names {name[:64]}, which is none of the `tools`.", param="tool_choice")
    if kind in ("named", "required"):
        told["tool_choice"] = "REQUIRED"
    elif kind == "none":
        told["tool_choice"] = "NONE"
    if all(function.get("strict") is True for function in functions):
        told["strict_tools"] = True
    return {"tools": [{"type": "function", "function": _declared(function)} for function in functions], **told}


def _declared(function: Json) -> Json:
    parameters = function.get("parameters")
    declared: Json = {
        "name": function["name"],
        "parameters": {"type": "object", **(parameters if isinstance(parameters, dict) else {"properties": {}})},
    }
    if isinstance(function.get("description"), str):
        declared["description"] = function["description"]
    return declared


def _thinking(effort: Effort) -> Json:
    if effort is Effort.NONE:
        return {"type": "disabled"}
    return {"type": "enabled", "token_budget": _BUDGETS.get(effort, _MOST_BUDGET)}
