"""GET /v1/models: what a key may ask for, in OpenAI's shape, with the context length that clients look for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from forebay_gateway.fleet import OfferedModel


def list_models(models: Iterable[OfferedModel], created: int) -> dict[str, Any]:
    """`created`: seconds since the epoch; OpenAI's shape wants one, and engines do not tell."""
    return {"object": "list", "data": [show_model(m, created) for m in models]}


def show_model(model: OfferedModel, created: int) -> dict[str, Any]:
    shape: dict[str, Any] = {"id": model.name, "object": "model", "created": created, "owned_by": "forebay"}
    if model.alias_of:
        shape["alias_of"] = model.alias_of
    if model.context_length is not None:
        shape["context_length"] = model.context_length
    if model.capabilities:
        shape["capabilities"] = model.capabilities
    return shape
