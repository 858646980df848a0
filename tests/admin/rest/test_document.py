"""The OpenAPI document is fresh, and true: whatever is asked is answered in the form that it says, and never with a 500."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from forebay_admin.rest.docs_page import render
from tests.admin.replica import Running

ROOT = Path(__file__).parents[3]
_SHORT = settings(
    max_examples=3, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
_LONGEST_TARGET = 8000
"""Longer ones are refused by the server before the API sees them."""
_LEFT_OUT = ("WatchSecurityEvents", "SetAddressPolicy")
"""The one does not end; the other may lock out whoever asks, when it is forced to."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files("forebay_admin.rest").joinpath("openapi.json").read_bytes())
    return loaded


def test_it_is_what_the_messages_and_the_addresses_give() -> None:
    checked = subprocess.run(
        (sys.executable, "services/admin/write_openapi.py", "--check"), cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert (ROOT / "docs" / "openapi.json").read_bytes() == (
        ROOT / "services/admin/forebay_admin/rest/openapi.json"
    ).read_bytes()


def test_its_references_lead_somewhere_and_its_schemas_are_ones(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    places = {f"#/components/{kind}/{name}" for kind, some in document["components"].items() for name in some}
    assert set(_references(document)) <= places
    ids = [call["operationId"] for verbs in document["paths"].values() for call in verbs.values()]
    assert len(ids) == len(set(ids))


def test_its_page_has_every_address_and_escapes_what_it_shows(document: dict[str, Any]) -> None:
    page = render({**document, "info": {**document["info"], "version": "<script>"}})
    assert all(f"<code>{path}</code>" in page for path in document["paths"])
    assert "<script>" not in page


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_whatever_is_asked_is_answered_as_it_says(admin: Running, document: dict[str, Any]) -> None:
    address = f"http://{admin.http_address}/api/v1"
    wrong, asked = await asyncio.to_thread(_ask_everything, document, address, admin.site.first_key)
    assert wrong == []
    assert asked >= sum(len(verbs) for verbs in document["paths"].values()) - len(_LEFT_OUT)


def _ask_everything(document: dict[str, Any], address: str, key: str) -> tuple[list[str], int]:
    """What was answered wrongly, and how much was asked. Loaded here, since that takes seconds."""
    import schemathesis
    from schemathesis.checks import CHECKS, load_all_checks
    from schemathesis.generation import GenerationMode

    load_all_checks()
    checks = CHECKS.get_by_names(["status_code_conformance", "content_type_conformance", "response_schema_conformance"])
    without_keys = {name: value for name, value in document.items() if name != "security"}
    schema = schemathesis.openapi.from_dict(without_keys)
    schema.config.update(base_url=address)
    wrong: list[str] = []
    asked = 0

    def ask(case: Any) -> None:
        nonlocal asked
        asked += 1
        answer = case.call(headers={"authorization": f"Bearer {key}"})
        if len(answer.request.path_url) > _LONGEST_TARGET:
            return
        what = f"{answer.request.method} {answer.request.url} {answer.request.body!r}: {answer.status_code}"
        if answer.status_code == 500:
            wrong.append(what)
        try:
            case.validate_response(answer, checks=checks)
        except BaseExceptionGroup as failures:
            wrong.append(f"{what} {failures.exceptions}")

    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        if operation.definition.raw["operationId"] in _LEFT_OUT:
            continue
        seed(1)(_SHORT(given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))(ask)))()
        said = operation.definition.raw
        if "requestBody" in said or any(parameter["in"] != "path" for parameter in said["parameters"]):
            seed(1)(_SHORT(given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))(ask)))()
    return wrong, asked


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from _references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _references(one)
