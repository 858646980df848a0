"""GET /v1/models: what a key may ask for, in Anthropic's shape."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.fleet import OfferedModel
from forebay_gateway.refused import ModelUnknown


def list_models(offered: Iterable[OfferedModel], created: int) -> Json:
    """All on one page. `created`: seconds since the epoch; Anthropic's shape wants a moment, and engines do not tell."""
    models = [_model(model, created) for model in offered]
    return {
        "data": models,
        "has_more": False,
        "first_id": models[0]["id"] if models else None,
        "last_id": models[-1]["id"] if models else None,
    }


def show_model(offered: Iterable[OfferedModel], name: str, created: int) -> Json:
    """Raises ModelUnknown."""
    for model in offered:
        if model.name == name:
            return _model(model, created)
    raise ModelUnknown(f"There is no model {name[:256]} for this API key. `GET /v1/models` lists those there are.")


def _model(model: OfferedModel, created: int) -> Json:
    moment = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    shape: Json = {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": moment,
        "lifecycle": "active",
    }
    if model.context_length is not None:
        shape["max_input_tokens"] = model.context_length
    return shape
