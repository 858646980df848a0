"""All scenarios are `slow` and start whole systems; what they measured stands at the end of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos import figures

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.system)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if figures.told:
        terminalreporter.section("what was measured")
        for line in figures.told:
            terminalreporter.write_line(line)
