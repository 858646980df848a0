"""The REST API as an OpenAPI 3.1 document, made of the addresses, the messages and what their .proto files say. Pure.

It is the same each time, so that a copy can lie beside this module, which is served as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from forebay_admin.json_form import name_of
from forebay_admin.people.people import Role
from forebay_admin.people.roles import Reach, reach
from forebay_admin.rest import pages
from forebay_admin.rest.asked import bodied, placed, queried
from forebay_admin.rest.failures import STATUS
from forebay_admin.rest.file_forms import FORMAT, TYPES
from forebay_admin.rest.repeats import HEADER
from forebay_admin.rest.routes import ROUTES, Flow, Route, Verb
from forebay_admin.rest.schemas import Schema, Schemas

_ABOUT = """The calls behind the command line, with the same rights and the same audit.

- A Forebay key, a session or a narrow token opens it: `authorization: Bearer fb-…`, or `x-api-key`. Pages use the cookie \
of `/sign-in`, and send `x-forebay-csrf` with what changes something.
- JSON is that of `forebay … --json`. Times are ISO 8601 in UTC, enumerations words in lower case, bytes hexadecimal, \
numbers numbers. What is unknown is null and never left out of an answer; a request leaves out what it does not say. \
Names that are not known here are refused, all of them at once.
- A name in an address is percent-encoded: the model `org/model` is `org%2Fmodel`.
- A POST with an `Idempotency-Key` (1 to 255 characters) is done once: for a day, the same request under the same key gets \
the same answer again, with `idempotency-replayed: true`, and another is refused (422). A refusal is not kept.
- Long lists come in pages: `page_size`, and `page_token` from `next_page_token` of the page before.
- What goes wrong is `{"error": {"code", "message", "reason"}}`; `problems` says where."""
_PAGE_SIZE: Schema = {"type": "integer", "minimum": 1, "maximum": pages.MOST_SIZE, "default": pages.USUAL_SIZE}
_HEADER_KEY: Schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*$"}


def document(operator: Any, comments: Mapping[str, str], version: str) -> dict[str, Any]:
    """`operator`: the descriptor of the service. `comments`: full name → text, as `proto_comments` reads them."""
    schemas = Schemas(comments)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.verb.lower()] = _operation(
            route, operator.methods_by_name[route.call], schemas
        )
    schemas.found["Error"] = _error()
    return {
        "openapi": "3.1.0",
        "info": {"title": "Forebay", "version": version, "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "/api/v1"}],
        "security": [{"key": []}, {"header": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in ROUTES)],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.found.items())),
            "responses": {"Error": {"description": "It was not done.", "content": _json(_ref("Error"))}},
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key fb-…, a session fbses-… or a token fbadm-…",
                },
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _operation(route: Route, method: Any, schemas: Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _id(route),
        "summary": route.about,
        "tags": [route.tag],
        "x-forebay-call": route.call,
        "x-forebay-roles": [str(role) for role in Role if reach(role, route.call) is not Reach.NONE],
        "parameters": _parameters(route, method.input_type, schemas),
    }
    if text := " ".join(
        filter(None, (schemas.comment(method.full_name), schemas.comment(method.input_type.full_name)))
    ):
        operation["description"] = text
    if route.has_body:
        inside, fields = bodied(route, method.input_type)
        operation["requestBody"] = {"required": False, "content": _json(schemas.asked(inside, fields))}
    operation["responses"] = {
        str(route.status): {"description": "Done.", "content": _content(route, method.output_type, schemas)},
        "default": {"$ref": "#/components/responses/Error"},
    }
    return operation


def _parameters(route: Route, message: Any, schemas: Schemas) -> list[dict[str, Any]]:
    found = []
    for name, place in placed(route).items():
        field = _field(message, place)
        schema = {**schemas.asked_field(field), "minLength": 1}
        found.append(_parameter(name, "path", schema, schemas.comment(field.full_name), is_required=True))
    for name, field in queried(route, message).items():
        schema = schemas.asked_field(field)
        if field.is_repeated:
            schema = {"type": "array", "items": schema}
        found.append(_parameter(name, "query", schema, schemas.comment(field.full_name)))
    if route.pages is not None:
        found.append(_parameter(pages.SIZE, "query", _PAGE_SIZE, "So many at once."))
        about = f"`{pages.NEXT}` of the page before."
        form = pages.ID_FORM if route.pages.from_call else pages.TOKEN_FORM
        found.append(_parameter(pages.TOKEN, "query", {"type": "string", "pattern": form}, about))
    if route.has_file:
        about = "As a file that holds all of it, a row for each series and time; without one, as `accept` says."
        found.append(_parameter(FORMAT, "query", {"type": "string", "enum": list(TYPES)}, about))
    if route.verb is Verb.POST and route.flow is Flow.ONE:
        found.append(_parameter(HEADER, "header", _HEADER_KEY, "Has this done once, however often it is asked for."))
    return found


def _parameter(name: str, place: str, schema: Schema, about: str, *, is_required: bool = False) -> dict[str, Any]:
    parameter: dict[str, Any] = {"name": name, "in": place, "required": is_required, "schema": schema}
    if about:
        parameter["description"] = about
    return parameter


def _content(route: Route, message: Any, schemas: Schemas) -> dict[str, Any]:
    schema = schemas.told(message)
    if route.flow is Flow.STREAM:
        return {"application/x-ndjson": {"schema": schema}, "text/event-stream": {"schema": schema}}
    if route.pages is not None:
        whole = schemas.found[message.name]
        whole["properties"][pages.NEXT] = {"type": ["string", "null"], "description": "Null: this is all."}
        if pages.NEXT not in whole["required"]:
            whole["required"].append(pages.NEXT)
    if route.has_file:
        files = {TYPES[form].partition(";")[0]: {"schema": {"type": "string"}} for form in ("csv", "parquet")}
        return _json(schema) | files
    return _json(schema)


def _field(message: Any, place: str) -> Any:
    *outer, last = place.split(".")
    for name in outer:
        message = message.fields_by_name[name].message_type
    return next(field for field in message.fields if name_of(field) == last)


def _error() -> Schema:
    text: Schema = {"type": "string"}
    problem: Schema = {"type": "object", "properties": {"path": text, "why": text}, "required": ["path", "why"]}
    codes = list(dict.fromkeys(code for _, _, code in STATUS))
    inside: Schema = {
        "type": "object",
        "properties": {
            "code": {"type": "string", "enum": codes},
            "message": {"type": "string", "description": "What happened, and what to do."},
            "reason": {"type": "string", "description": "The word that stands in metrics and headers."},
            "problems": {
                "type": "array",
                "items": problem,
                "description": "Where, if it is about parts of the request.",
            },
        },
        "required": ["code", "message", "reason"],
    }
    return {"type": "object", "properties": {"error": inside}, "required": ["error"]}


def _id(route: Route) -> str:
    """Unique: one call may have several addresses."""
    ours = [one for one in ROUTES if one.call == route.call]
    if len(ours) == 1:
        return route.call
    words = re.findall(r"[a-z]+", re.sub(r"{\w+}", "", route.path))
    return f"{route.call}_{route.verb.lower()}_{'_'.join(words)}"


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
