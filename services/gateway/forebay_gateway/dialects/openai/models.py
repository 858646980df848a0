"""GET /v1/models: what a key may ask for, in OpenAI's shape, with the context length that clients look for."""

from __future__ import annotations

from typing import Any

from forebay_gateway.fleet import Fleet, OfferedModel
from forebay_gateway.principals import Principal
from forebay_gateway.refused import ModelUnknown


def list_models(fleet: Fleet, principal: Principal, created: int) -> dict[str, Any]:
    """`created`: seconds since the epoch; OpenAI's shape wants one, and engines do not tell."""
    return {"object": "list", "data": [_model(m, created) for m in allowed_models(fleet, principal)]}


def show_model(fleet: Fleet, principal: Principal, name: str, created: int) -> dict[str, Any]:
    """Raises ModelUnknown."""
    for model in allowed_models(fleet, principal):
        if model.name == name:
            return _model(model, created)
    raise ModelUnknown(f"There is no model {name[:256]} for this API key. `GET /v1/models` lists those there are.")


def allowed_models(fleet: Fleet, principal: Principal) -> list[OfferedModel]:
    """Those that this key may ask for."""
    return [model for model in fleet.offered(principal.pool) if principal.may_use(model.name)]


def _model(model: OfferedModel, created: int) -> dict[str, Any]:
    shape: dict[str, Any] = {"id": model.name, "object": "model", "created": created, "owned_by": "forebay"}
    if model.context_length is not None:
        shape["context_length"] = model.context_length
    if model.capabilities:
        shape["capabilities"] = model.capabilities
    return shape
