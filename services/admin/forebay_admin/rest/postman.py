"""The OpenAPI document as a Postman collection, form 2.1: a folder for each tag, in it a request for each operation with an
example of its body, and variables for where Forebay is and which key opens it. Pure.

The form: https://schema.postman.com/collection/json/v2.1.0/draft-07/docs/index.html"""

from __future__ import annotations

import json
import re
from typing import Any

from forebay_admin.rest.examples import example

SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
_ADDRESS = "http://127.0.0.1:8091"


def collection(document: dict[str, Any]) -> dict[str, Any]:
    info = document["info"]
    folders: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    schemas = document["components"]["schemas"]
    base = document["servers"][0]["url"]
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            folders[operation["tags"][0]].append(_request(verb.upper(), f"{base}{path}", operation, schemas))
    return {
        "info": {
            "name": info["title"],
            "description": info["description"],
            "version": info["version"],
            "schema": SCHEMA,
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{key}}", "type": "string"}]},
        "variable": [
            {"key": "base_url", "value": _ADDRESS, "type": "string", "description": "Of admin's HTTP port."},
            {"key": "key", "value": "", "type": "string", "description": "A Forebay key: fb-…"},
        ],
        "item": [{"name": name, "item": items} for name, items in folders.items()],
    }


def _request(verb: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    about = operation.get("description", "")
    roles = f"Roles: {', '.join(operation['x-forebay-roles'])}"
    request: dict[str, Any] = {
        "method": verb,
        "header": [_header(one) for one in operation["parameters"] if one["in"] == "header"],
        "url": _url(path, operation["parameters"], schemas),
        "description": "\n\n".join(filter(None, (about, roles))),
    }
    if body := operation.get("requestBody"):
        told = example(body["content"]["application/json"]["schema"], schemas)
        request["header"].append({"key": "content-type", "value": "application/json"})
        request["body"] = {
            "mode": "raw",
            "raw": json.dumps(told, indent=2, ensure_ascii=False),
            "options": {"raw": {"language": "json"}},
        }
    return {"name": operation["summary"], "request": request, "response": []}


def _url(path: str, parameters: list[dict[str, Any]], schemas: dict[str, Any]) -> dict[str, Any]:
    inside = re.sub(r"{(\w+)}", r":\1", path)
    url: dict[str, Any] = {
        "raw": f"{{{{base_url}}}}{inside}",
        "host": ["{{base_url}}"],
        "path": inside.removeprefix("/").split("/"),
    }
    query = [one for one in parameters if one["in"] == "query"]
    if query:
        url["query"] = [{**_said(one, schemas), "disabled": True} for one in query]
    places = [one for one in parameters if one["in"] == "path"]
    if places:
        url["variable"] = [_said(one, schemas) for one in places]
    return url


def _said(parameter: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    value = example(parameter["schema"], schemas)
    if isinstance(value, list):
        value = value[0] if value else ""
    said = {"key": parameter["name"], "value": value if isinstance(value, str) else json.dumps(value)}
    if about := parameter.get("description"):
        said["description"] = about
    return said


def _header(parameter: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": parameter["name"],
        "value": "{{$guid}}",
        "description": parameter.get("description", ""),
        "disabled": True,
    }
