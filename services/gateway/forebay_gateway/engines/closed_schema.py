"""A JSON schema whose objects have no other properties than those it names, as Anthropic demands it of schemas that an
answer is held to. Pure."""

from __future__ import annotations

from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.refused import BadField

_BY_NAME = ("properties", "$defs", "definitions")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_DEEPEST = 100


def closed(schema: Json, depth: int = 0) -> Json:
    """Where it says otherwise itself it stays as it is, and the provider judges. Raises BadField."""
    if depth > _DEEPEST:
        raise BadField("A schema is nested too deeply for the engine that has this model.", code="invalid_value")

    def inside(inner: Any) -> Any:
        return closed(inner, depth + 1) if isinstance(inner, dict) else inner

    made = dict(schema)
    for name in _BY_NAME:
        if isinstance(made.get(name), dict):
            made[name] = {key: inside(inner) for key, inner in made[name].items()}
    for name in _LISTED:
        if isinstance(made.get(name), list):
            made[name] = [inside(inner) for inner in made[name]]
    if "items" in made:
        made["items"] = inside(made["items"])
    if made.get("type") == "object" or "properties" in made:
        made.setdefault("additionalProperties", False)
    return made
