"""OpenAI's requests as Gemini's: a chat as generateContent's, texts to embed as batchEmbedContents'. Pure.

Only fields that Gemini knows are sent, since it refuses all others. What would make another answer and has no words there is
refused here; what only asks for some service of OpenAI's is left out."""

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
from forebay_gateway.engines.gemini_conversation import system_and_contents
from forebay_gateway.engines.gemini_thinking import is_older, thinking_config
from forebay_gateway.engines.thinking_wish import wished_effort
from forebay_gateway.engines.unspoken import texts_to_embed
from forebay_gateway.refused import BadField

MOST_CANDIDATES = 8
MOST_EMBEDDED = 100
"""In one request."""
_UNKNOWN = ("logprobs", "top_logprobs", "logit_bias", "audio")
_SAME = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "named": "ANY"}


def generate_body(fields: Mapping[str, Any], model: str) -> Json:
    """Raises BadField."""
    demand_absent(fields, *_UNKNOWN)
    system, contents = system_and_contents(fields, signs=not is_older(model))
    body: Json = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": [{"text": system}]}
    body |= _tools(fields)
    if config := _generation(fields, model):
        body["generationConfig"] = config
    return body


def embed_body(fields: Mapping[str, Any], model: str) -> Json:
    """Raises BadField."""
    texts = texts_to_embed(fields["input"], "Gemini", MOST_EMBEDDED)
    size = {"outputDimensionality": fields["dimensions"]} if fields.get("dimensions") else {}
    return {
        "requests": [{"model": f"models/{model}", "content": {"parts": [{"text": text}]}, **size} for text in texts]
    }


def _generation(fields: Mapping[str, Any], model: str) -> Json:
    config: Json = {theirs: fields[ours] for ours, theirs in _SAME.items() if fields.get(ours) is not None}
    if limit := fields.get("max_completion_tokens") or fields.get("max_tokens"):
        config["maxOutputTokens"] = limit
    if stops := stops_of(fields):
        config["stopSequences"] = stops
    if (candidates := fields.get("n") or 1) > 1:
        if candidates > MOST_CANDIDATES:
            raise BadField(f"`n` can be {MOST_CANDIDATES} at most with this model.", param="n", code="invalid_value")
        config["candidateCount"] = candidates
    schema = wanted_schema(fields)
    if schema is not None:
        config["responseMimeType"] = "application/json"
        if schema:
            config["responseJsonSchema"] = schema
    if thinking := thinking_config(wished_effort(fields), model):
        config["thinkingConfig"] = thinking
    return config


def _tools(fields: Mapping[str, Any]) -> Json:
    functions = functions_of(fields)
    if not functions:
        return {}
    if fields.get("parallel_tool_calls") is False:
        raise BadField(
            "`parallel_tool_calls` cannot be false with this model: Gemini calls as many functions at once as it likes.",
            param="parallel_tool_calls",
            code="unsupported_parameter",
        )
    kind, name = choice_of_tool(fields)
    tools: Json = {"tools": [{"functionDeclarations": [_declaration(function) for function in functions]}]}
    if fields.get("tool_choice") is None:
        return tools
    calling: Json = {"mode": _MODES[kind], **({"allowedFunctionNames": [name]} if name else {})}
    return {**tools, "toolConfig": {"functionCallingConfig": calling}}


def _declaration(function: Json) -> Json:
    declaration: Json = {"name": function["name"]}
    if isinstance(function.get("description"), str):
        declaration["description"] = function["description"]
    if isinstance(function.get("parameters"), dict) and function["parameters"]:
        declaration["parametersJsonSchema"] = function["parameters"]
    return declaration
