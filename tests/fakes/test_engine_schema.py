"""Instances of schemas: the usual shapes, the bounds, and schemas that contain themselves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.engine_schema import BadSchema, instance

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "height": {"type": "number"},
        "is_tall": {"type": "boolean"},
        "mood": {"enum": ["glad", "sad"]},
        "kind": {"const": "person"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "home": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
    "required": ["name"],
}


def test_an_object_has_all_its_properties_and_those_have_theirs() -> None:
    assert instance(PERSON) == {
        "name": "text",
        "age": 1,
        "height": 1.5,
        "is_tall": True,
        "mood": "glad",
        "kind": "person",
        "tags": ["text"],
        "home": {"city": "text"},
    }


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "integer", "multipleOf": 10}, 10),
        ({"type": "number", "maximum": 1}, 1.0),
        ({"type": "number", "exclusiveMinimum": 2}, 2.5),
        ({"type": "string", "minLength": 6}, "texttt"),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "string", "format": "date"}, "2026-01-02"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3}, [1, 1, 1]),
        ({"type": "array", "maxItems": 0}, []),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}, [1, "text"]),
        ({"type": ["string", "null"]}, "text"),
        ({"type": "null"}, None),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]}, {"a": 1, "b": 2}),
        ({"type": "object", "required": ["x"], "additionalProperties": {"type": "integer"}}, {"x": 1}),
        ({}, "text"),
        (True, "text"),
    ],
)
def test_an_instance_keeps_to_the_bounds(schema: Any, made: Any) -> None:
    assert instance(schema) == made
    assert type(instance(schema)) is type(made)


def test_a_schema_that_contains_itself_comes_to_an_end() -> None:
    tree = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                    "parent": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "twin": {"$ref": "#/$defs/node"},
                },
                "required": ["children", "parent"],
            }
        },
    }
    assert instance(tree) == {"children": [], "parent": None}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$ref": "#/$defs/nowhere"},
        {"type": "colour"},
        {"enum": []},
        {"type": "object", "properties": ["a"]},
        "object",
    ],
)
def test_what_is_no_schema_or_has_no_end_is_refused(schema: Any) -> None:
    with pytest.raises(BadSchema):
        instance(schema)
