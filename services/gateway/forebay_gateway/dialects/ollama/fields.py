"""The fields that Ollama's requests have in common. Clients send nulls, empty texts and empty lists for what they do not
mean, and all of it is as if it were not there. Pure."""

from __future__ import annotations

from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import flag_in, model_in, parse_object
from forebay_gateway.canonical.typed import of_kind
from forebay_gateway.refused import BadField


def parse_body(raw: bytes, fields: str) -> tuple[Json, str]:
    """The body, and the model, which clients call `model` or `name`. `fields`: what it needs, in words. Raises BadField."""
    if not raw.strip():
        raise BadField("missing request body")
    body = parse_object(raw, fields)
    name = body.get("model") or body.get("name")
    if not name:
        raise BadField("model is required", param="model", code="missing_required_parameter")
    return body, model_in({"model": name})


def streams(body: Json) -> bool:
    """Ollama streams unless it is told not to. Raises BadField."""
    return body.get("stream") is None or flag_in(body, "stream")


def text_of(body: Json, name: str) -> str:
    """Raises BadField."""
    return of_kind(body.get(name), str, "a string", name) or ""


def list_of(body: Json, name: str) -> list[Any]:
    """Raises BadField."""
    value = body.get(name)
    return [] if value == "" else of_kind(value, list, "a list", name) or []
