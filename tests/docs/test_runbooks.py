"""What the runbooks in docs/operations.md send somebody to, at night, is there: panels, actions in logs, settings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OPERATIONS = re.sub(r"\s+", " ", (ROOT / "docs" / "operations.md").read_text())
RUNBOOKS = OPERATIONS[OPERATIONS.index("## Runbooks") :]


def _panels(panels: list[Any]) -> Iterator[str]:
    for panel in panels:
        yield panel.get("title", "")
        yield from _panels(panel.get("panels", []))


def _sources() -> str:
    files = (file for part in ("forebay", "services") for file in (ROOT / part).rglob("*.py"))
    return "\n".join(file.read_text() for file in files)


def test_every_panel_that_is_named_is_on_a_dashboard() -> None:
    dashboards = (ROOT / "deploy" / "observe" / "dashboards").glob("*.json")
    there = {title for file in dashboards for title in _panels(json.loads(file.read_text())["panels"])}
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", RUNBOOKS))
    assert len(named) > 8
    assert named <= there, named - there


def test_every_action_that_is_named_is_logged() -> None:
    named = set(re.findall(r"`action` `(\w+)`", RUNBOOKS))
    assert len(named) > 4
    logged = set(re.findall(r'"action": "(\w+)"', _sources()))
    assert named <= logged, named - logged


@pytest.mark.parametrize("setting", ["journal_segments", "max_body_bytes", "isolation"])
def test_settings_that_are_to_be_changed_are_the_gateways(setting: str) -> None:
    assert f"`{setting}" in RUNBOOKS
    assert re.search(rf"^\s*(?:# )?{setting} = ", (ROOT / "services/gateway/gateway.toml").read_text(), re.MULTILINE)
