"""The OpenAPI document as one page for people: no script, nothing from elsewhere. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from html import escape
from typing import Any

from forebay_admin.rest.examples import example

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --accent: #7aa8ff; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; border-bottom: 1px solid var(--line); }
nav { display: flex; flex-wrap: wrap; gap: .2rem .9rem; margin: 1rem 0; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .35rem 0; }
summary { padding: .4rem .7rem; cursor: pointer; display: flex; flex-wrap: wrap; gap: .1rem .8rem; align-items: baseline; }
details[open] > summary { border-bottom: 1px solid var(--line); }
details > div { padding: .3rem .9rem .8rem; overflow-x: auto; }
code, pre { font-family: ui-monospace, monospace; font-size: .88em; }
pre { background: var(--soft); padding: .6rem .8rem; border-radius: 6px; overflow-x: auto; }
.verb { font-weight: 700; min-width: 4.2rem; color: var(--accent); } .about { opacity: .8; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .7rem .2rem 0; }
th { font-weight: 600; border-bottom: 1px solid var(--line); } td { border-bottom: 1px solid var(--soft); }
"""
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
"""What a content security policy has to allow."""


def render(document: dict[str, Any]) -> str:
    info = document["info"]
    operations: dict[str, list[str]] = {tag["name"]: [] for tag in document["tags"]}
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            operations[operation["tags"][0]].append(_operation(verb.upper(), path, operation))
    tags = "".join(f'<a href="#{escape(tag)}">{escape(tag)}</a>' for tag in operations)
    sections = "".join(f'<h2 id="{escape(tag)}">{escape(tag)}</h2>{"".join(some)}' for tag, some in operations.items())
    schemas = "".join(_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Forebay REST API</title><style>{_STYLE}</style>"
        f"<h1>Forebay REST API <small>{escape(info['version'])}</small></h1>{_prose(info['description'])}"
        '<p>For programs: <a href="/api/v1/openapi.json">openapi.json</a>; for Postman and what reads its collections: '
        '<a href="/docs/postman.json" download="forebay.postman_collection.json">postman.json</a></p>'
        f'<nav>{tags}<a href="#schemas">schemas</a></nav>{sections}<h2 id="schemas">schemas</h2>{schemas}</html>'
    )


def _operation(verb: str, path: str, operation: dict[str, Any]) -> str:
    parts = []
    if text := operation.get("description"):
        parts.append(f"<p>{escape(text)}</p>")
    parts.append(f"<p>Roles: {escape(', '.join(operation['x-forebay-roles']))}</p>")
    if operation["parameters"]:
        rows = ((p["name"], p["in"], _type(p["schema"]), p.get("description", "")) for p in operation["parameters"])
        parts.append(_table(("parameter", "in", "type", ""), rows))
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if body.get("properties"):
        parts.append(_table(("body", "type", ""), _properties(body)))
    for status, response in operation["responses"].items():
        if status != "default":
            schema = next(iter(response["content"].values()))["schema"]
            parts.append(f"<p>Answer {status}: {_type(schema)}</p>")
    parts.append(f"<pre>{escape(_curl(verb, path, body.get('properties', {})))}</pre>")
    title = f'<span class="verb">{verb}</span><code>{escape(path)}</code>'
    about = f'<span class="about">{escape(operation["summary"])}</span>'
    return f"<details><summary>{title}{about}</summary><div>{''.join(parts)}</div></details>"


def _curl(verb: str, path: str, properties: dict[str, Any]) -> str:
    words = ["curl", *([] if verb == "GET" else ["-X", verb]), '-H "authorization: Bearer $FOREBAY_TOKEN"']
    if properties:
        some = {name: example(schema, {}) for name, schema in list(properties.items())[:2]}
        words += ['-H "content-type: application/json"', f"-d '{json.dumps(some, ensure_ascii=False)}'"]
    return " ".join((*words, f'"$FOREBAY_HTTP/api/v1{path}"'))


def _schema(name: str, schema: dict[str, Any]) -> str:
    about = f"<p>{escape(schema['description'])}</p>" if "description" in schema else ""
    table = _table(("name", "type", ""), _properties(schema)) if schema.get("properties") else "<p>Nothing.</p>"
    title = f"<summary><code>{escape(name)}</code></summary>"
    return f'<details id="schema-{escape(name)}">{title}<div>{about}{table}</div></details>'


def _properties(schema: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    return ((name, _type(one), one.get("description", "")) for name, one in schema["properties"].items())


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Of each row the first is a name, the last but one HTML, and the last text."""
    head = "".join(f"<th>{head}</th>" for head in heads)
    lines = (
        f"<tr><td><code>{escape(name)}</code></td>{''.join(f'<td>{cell}</td>' for cell in cells)}"
        f"<td>{escape(about)}</td></tr>"
        for name, *cells, about in rows
    )
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _type(schema: dict[str, Any]) -> str:
    """HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return escape(", ".join("null" if word is None else str(word) for word in schema["enum"]))
    kinds = schema.get("type", "object")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "array" in kinds:
        return f"list of {_type(schema['items'])}" + (" or null" if "null" in kinds else "")
    if "properties" not in schema and isinstance(schema.get("additionalProperties"), dict):
        return "names and texts" + (" or null" if "null" in kinds else "")
    if schema.get("format") == "date-time":
        kinds = ["time", *kinds[1:]]
    return escape(" or ".join(kinds))


def _prose(text: str) -> str:
    """Of the markdown that the document has: paragraphs, one list, words as code."""
    paragraphs = []
    for block in text.split("\n\n"):
        items = block.split("\n- ")
        if block.startswith("- "):
            items[0] = items[0].removeprefix("- ")
            paragraphs.append(f"<ul>{''.join(f'<li>{_coded(item)}</li>' for item in items)}</ul>")
        else:
            paragraphs.append(f"<p>{_coded(block)}</p>")
    return "".join(paragraphs)


def _coded(text: str) -> str:
    words = escape(text).split("`")
    return "".join(f"<code>{word}</code>" if at % 2 else word for at, word in enumerate(words))
