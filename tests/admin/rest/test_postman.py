"""The Postman collection has the form that Postman says, and every operation of the document once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from forebay_admin.rest.examples import example
from forebay_admin.rest.postman import SCHEMA, collection

# As much of the form as we use, after its documentation; what it does not know, it would let pass.
_TEXTS = {"type": "array", "items": {"type": "string"}}
_PAIR = {
    "type": "object",
    "properties": {
        "key": {"type": "string", "minLength": 1},
        "value": {"type": "string"},
        "type": {"const": "string"},
        "description": {"type": "string"},
        "disabled": {"type": "boolean"},
    },
    "required": ["key", "value"],
    "additionalProperties": False,
}
_PAIRS = {"type": "array", "items": _PAIR}
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "info": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "description": {"type": "string"},
                "version": {"type": "string"},
                "schema": {"const": SCHEMA},
            },
            "required": ["name", "schema"],
            "additionalProperties": False,
        },
        "auth": {
            "type": "object",
            "properties": {"type": {"const": "bearer"}, "bearer": _PAIRS},
            "required": ["type", "bearer"],
            "additionalProperties": False,
        },
        "variable": _PAIRS,
        "item": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "item": {"type": "array", "items": {"$ref": "#/$defs/item"}},
                },
                "required": ["name", "item"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["info", "item"],
    "additionalProperties": False,
    "$defs": {
        "item": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "request": {
                    "type": "object",
                    "properties": {
                        "method": {"enum": ["GET", "POST", "PUT", "PATCH", "DELETE"]},
                        "header": _PAIRS,
                        "description": {"type": "string"},
                        "url": {
                            "type": "object",
                            "properties": {
                                "raw": {"type": "string"},
                                "host": _TEXTS,
                                "path": _TEXTS,
                                "query": _PAIRS,
                                "variable": _PAIRS,
                            },
                            "required": ["raw", "host", "path"],
                            "additionalProperties": False,
                        },
                        "body": {
                            "type": "object",
                            "properties": {
                                "mode": {"const": "raw"},
                                "raw": {"type": "string"},
                                "options": {"const": {"raw": {"language": "json"}}},
                            },
                            "required": ["mode", "raw"],
                            "additionalProperties": False,
                        },
                    },
                    "required": ["method", "url", "header"],
                    "additionalProperties": False,
                },
                "response": {"type": "array", "maxItems": 0},
            },
            "required": ["name", "request"],
            "additionalProperties": False,
        }
    },
}


def _read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files("forebay_admin.rest").joinpath(name).read_bytes())
    return loaded


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return collection(_read("openapi.json"))


def test_it_is_fresh_and_of_postmans_form(made: dict[str, Any]) -> None:
    assert made == _read("postman.json")
    jsonschema.Draft202012Validator(_FORM).validate(made)


def test_it_has_every_operation_once_with_all_that_may_be_said(made: dict[str, Any]) -> None:
    document = _read("openapi.json")
    found = {}
    for folder in made["item"]:
        for item in folder["item"]:
            url = item["request"]["url"]
            assert url["raw"] == "{{base_url}}/" + "/".join(url["path"])
            placed = {part.removeprefix(":") for part in url["path"] if part.startswith(":")}
            assert placed == {one["key"] for one in url.get("variable", ())}
            path = "/" + "/".join(f"{{{part[1:]}}}" if part.startswith(":") else part for part in url["path"][2:])
            found[item["request"]["method"].lower(), path] = (folder["name"], item["request"])
    told = {(verb, path): one for path, verbs in document["paths"].items() for verb, one in verbs.items()}
    assert found.keys() == told.keys()
    for key, (folder, request) in found.items():
        operation = told[key]
        assert [folder] == operation["tags"]
        assert {one["key"] for one in request["url"].get("query", ())} == {
            parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"
        }
        assert ("body" in request) == ("requestBody" in operation)
        if "body" in request:
            _demand_fits(json.loads(request["body"]["raw"]), operation["requestBody"], document)


def test_where_it_is_and_what_opens_it_are_variables(made: dict[str, Any]) -> None:
    assert [one["key"] for one in made["variable"]] == ["base_url", "key"]
    assert made["auth"]["bearer"][0]["value"] == "{{key}}"
    assert "fb-" not in made["variable"][1]["value"]


def test_an_example_ends_where_a_schema_stands_within_itself() -> None:
    schemas = {"Tree": {"type": "object", "properties": {"name": {"type": "string"}, "in": {"$ref": _TREE}}}}
    assert example({"$ref": _TREE}, schemas) == {"name": "…", "in": {}}
    assert example({"type": ["string", "null"], "enum": ["a", None]}, {}) == "a"


_TREE = "#/components/schemas/Tree"


def _demand_fits(value: Any, body: Mapping[str, Any], document: dict[str, Any]) -> None:
    schema = {**body["content"]["application/json"]["schema"], "components": document["components"]}
    schema.pop("description", None)
    jsonschema.Draft202012Validator(schema).validate(value)
