"""GET /v1/models: what a key may ask for, in OpenAI's shape, with the context length that clients look for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from forebay_gateway.fleet import OfferedModel
from forebay_gateway.refused import ModelUnknown


def list_models(models: Iterable[OfferedModel], created: int) -> dict[str, Any]:
    """`created`: seconds since the epoch; OpenAI's shape wants one, and engines do not tell."""
    return {"object": "list", "data": [_model(m, created) for m in models]}


def show_model(models: Iterable[OfferedModel], name: str, created: int) -> dict[str, Any]:
    """Raises ModelUnknown."""
    for model in models:
        if model.name == name:
            return _model(model, created)
    raise ModelUnknown(f"There is no model {name[:256]} for this API key. `GET /v1/models` lists those there are.")


def _model(model: OfferedModel, created: int) -> dict[str, Any]:
    shape: dict[str, Any] = {"id": model.name, "object": "model", "created": created, "owned_by": "forebay"}
    if model.alias_of:
        shape["alias_of"] = model.alias_of
    if model.context_length is not None:
        shape["context_length"] = model.context_length
    if model.capabilities:
        shape["capabilities"] = model.capabilities
    return shape
