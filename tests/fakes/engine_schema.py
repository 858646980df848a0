"""One instance of a JSON schema, always the same: what a model that is bound to the schema might say.

Follows const, enum, type, properties, required, items, prefixItems, $ref (also a schema that contains itself), anyOf,
oneOf, allOf, the usual formats, and bounds of numbers, texts and arrays. Does not know pattern, not, if, uniqueItems.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

TEXT = "text"
_FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "email": "text@example.com",
    "uri": "http://example.com/text",
    "uuid": "00000000-0000-4000-8000-000000000001",
}
_MERGED = ("properties", "required", "$defs")


class BadSchema(Exception):
    """It cannot be read, or nothing finite satisfies it."""


class _Endless(Exception):
    """The schema leads back into itself here."""


def instance(schema: Any) -> Any:
    """Objects with all their properties, arrays of one item, the first of an enum; raises BadSchema."""
    try:
        return _make(schema, schema, frozenset())
    except (_Endless, RecursionError) as error:
        raise BadSchema("the schema never comes to an end") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise BadSchema(f"invalid schema: {error}") from error


def _make(schema: Any, root: Any, opened: frozenset[str]) -> Any:
    """`opened` are the references on the way down to here."""
    if isinstance(schema, bool):
        return TEXT
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "$ref" in schema:
        if schema["$ref"] in opened:
            raise _Endless
        return _make(_target(root, schema["$ref"]), root, opened | {schema["$ref"]})
    if "allOf" in schema:
        return _make(_merged(schema, root), root, opened)
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives and not schema.keys() & {"type", "properties"}:
        return _first_finite(alternatives, root, opened)
    match _kind(schema):
        case "object":
            return _object(schema, root, opened)
        case "array":
            return _array(schema, root, opened)
        case "integer":
            return _number(schema, usual=1, step=1)
        case "number":
            return _number(schema, usual=1.5, step=0.5)
        case "boolean":
            return True
        case "null":
            return None
        case "string":
            return _text(schema)
        case other:
            raise BadSchema(f"invalid schema: no such type: {other}")


def _kind(schema: Mapping[str, Any]) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        return kind[0]
    if kind is None:
        shapes = {"properties": "object", "items": "array", "prefixItems": "array"}
        return next((shape for field, shape in shapes.items() if field in schema), "string")
    return kind


def _target(root: Any, reference: str) -> Any:
    there = root
    for step in reference.removeprefix("#").split("/")[1:]:
        there = there[step.replace("~1", "/").replace("~0", "~")]
    return there


def _merged(schema: Mapping[str, Any], root: Any) -> dict[str, Any]:
    """`allOf` as one schema; of fields that cannot be added up, the last one counts."""
    merged = {field: value for field, value in schema.items() if field != "allOf"}
    for part in schema["allOf"]:
        part = _target(root, part["$ref"]) if "$ref" in part else part
        for field, value in part.items():
            if field in _MERGED and field in merged:
                value = merged[field] + value if isinstance(value, list) else merged[field] | value
            merged[field] = value
    return merged


def _first_finite(alternatives: list[Any], root: Any, opened: frozenset[str]) -> Any:
    for alternative in alternatives:
        try:
            return _make(alternative, root, opened)
        except _Endless:
            continue
    raise _Endless


def _object(schema: Mapping[str, Any], root: Any, opened: frozenset[str]) -> dict[str, Any]:
    required = schema.get("required", [])
    made: dict[str, Any] = {}
    for name, of_property in schema.get("properties", {}).items():
        try:
            made[name] = _make(of_property, root, opened)
        except _Endless:
            if name in required:
                raise
    others = schema.get("additionalProperties", True)
    return made | {name: _make(others, root, opened) for name in required if name not in made}


def _array(schema: Mapping[str, Any], root: Any, opened: frozenset[str]) -> list[Any]:
    first = [_make(item, root, opened) for item in schema.get("prefixItems", [])]
    least = schema.get("minItems", 0)
    wanted = min(max(least, 1), schema.get("maxItems", math.inf)) - len(first)
    if wanted <= 0:
        return first
    try:
        return first + [_make(schema.get("items", True), root, opened)] * int(wanted)
    except _Endless:
        if least > len(first):
            raise
        return first


def _number(schema: Mapping[str, Any], *, usual: float, step: float) -> float:
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf) + step)
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf) - step)
    value = min(max(usual, low), high)
    if multiple := schema.get("multipleOf"):
        value = math.ceil(value / multiple) * multiple
    return int(value) if isinstance(step, int) else float(value)


def _text(schema: Mapping[str, Any]) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    return TEXT.ljust(schema.get("minLength", 0), TEXT[0])[: schema.get("maxLength")]
