"""What a response repeats of its request."""

from __future__ import annotations

from forebay_gateway.canonical.dialect import Json


def echo_of(body: Json, tools: list[Json]) -> Json:
    """`body`: a request whose fields were checked. Defaults are said where they are the gateway's; those of the engine, such
    as its temperature, nobody here knows."""
    text, reasoning = body.get("text") or {}, body.get("reasoning") or {}
    parallel, choice = body.get("parallel_tool_calls"), body.get("tool_choice")
    return {
        "background": False,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": None,
        "metadata": body.get("metadata") or {},
        "parallel_tool_calls": True if parallel is None else parallel,
        "previous_response_id": None,
        "prompt_cache_key": body.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None, **reasoning},
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": "default",
        "store": False,
        "temperature": body.get("temperature"),
        "text": {**text, "format": text.get("format") or {"type": "text"}},
        "tool_choice": "auto" if choice is None else choice,
        "tools": tools,
        "top_logprobs": body.get("top_logprobs") or 0,
        "top_p": body.get("top_p"),
        "truncation": body.get("truncation") or "disabled",
        "user": body.get("user"),
    }
