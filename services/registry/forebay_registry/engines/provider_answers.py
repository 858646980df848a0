"""What Cohere, Azure and OpenRouter answer about their models, read into facts. Pure, and as wary as `answers`."""

from __future__ import annotations

from urllib.parse import quote

from forebay_registry.backend import Model
from forebay_registry.engines.answers import (
    MAX_TOKENS,
    BadAnswer,
    ModelPage,
    distinct,
    named,
    object_in,
    whole,
    words_in,
)

_COHERE_ENDPOINTS = {"chat": "chat", "embed": "embedding", "rerank": "rerank"}
_COHERE_FEATURES = {"tools": "tools", "vision": "vision", "reasoning": "thinking", "thinking": "thinking"}
_OPENROUTER_PARAMETERS = {"tools": "tools", "reasoning": "thinking"}


def read_cohere_models(body: bytes) -> ModelPage:
    """`GET /v1/models` of Cohere: those that chat, embed or rank."""
    page = object_in(body)
    listed = page.get("models")
    if not isinstance(listed, list):
        raise BadAnswer("its list of models has no `models`")
    models = []
    for entry, name in named(listed, "name"):
        can = [word for theirs, word in _COHERE_ENDPOINTS.items() if theirs in words_in(entry.get("endpoints"))]
        if can and entry.get("is_deprecated") is not True:
            can += [word for theirs, word in _COHERE_FEATURES.items() if theirs in words_in(entry.get("features"))]
            # It is told as a number with a point.
            length = entry.get("context_length")
            context = int(length) if isinstance(length, float) and length.is_integer() else length
            models.append(Model(name, whole(context, MAX_TOKENS) or None, tuple(sorted(set(can)))))
    token = page.get("next_page_token")
    return ModelPage(tuple(models), f"page_token={quote(token, safe='')}" if isinstance(token, str) and token else None)


def read_azure_deployments(body: bytes) -> tuple[Model, ...]:
    """`GET /openai/deployments` of Azure: what requests name, each by the name that was given to it there."""
    listed = object_in(body).get("data")
    if not isinstance(listed, list):
        raise BadAnswer("its list of deployments has no `data`")
    return distinct(
        Model(name) for entry, name in named(listed, "id") if entry.get("status", "succeeded") == "succeeded"
    )


def read_openrouter_models(body: bytes) -> tuple[Model, ...]:
    """`GET /api/v1/models` of OpenRouter."""
    listed = object_in(body).get("data")
    if not isinstance(listed, list):
        raise BadAnswer("its list of models has no `data`")
    models = []
    for entry, name in named(listed, "id"):
        takes = words_in(entry.get("supported_parameters"))
        can = {"chat", *(word for theirs, word in _OPENROUTER_PARAMETERS.items() if theirs in takes)}
        architecture = entry.get("architecture")
        if isinstance(architecture, dict) and "image" in words_in(architecture.get("input_modalities")):
            can.add("vision")
        models.append(Model(name, whole(entry.get("context_length"), MAX_TOKENS) or None, tuple(sorted(can))))
    return distinct(models)
