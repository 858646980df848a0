"""A value that fits a schema of the OpenAPI document, to show what may be said. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TIME = "2027-01-31T12:00:00Z"
_SOME, _BYTES = "…", "00"
_REFERENCE = "#/components/schemas/"


def example(schema: Mapping[str, Any], schemas: Mapping[str, Any], within: tuple[str, ...] = ()) -> Any:
    """`schemas`: those that others refer to; one that is not there, or that stands within itself, is shown as empty."""
    if "anyOf" in schema:
        return example(schema["anyOf"][0], schemas, within)
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REFERENCE)
        return {} if name in within else example(schemas.get(name, {}), schemas, (*within, name))
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "string":
            return _text(schema)
        case "integer" | "number":
            return 1
        case "boolean":
            return True
        case "array":
            return [example(schema["items"], schemas, within)]
    return {name: example(one, schemas, within) for name, one in schema.get("properties", {}).items()}


def _text(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return str(schema["enum"][0])
    if schema.get("format") == "date-time":
        return _TIME
    return _SOME if re.search(schema.get("pattern", ""), _SOME) else _BYTES
