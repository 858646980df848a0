"""What whoever asks for an upgrade is told, whatever becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from forebay.local.data_directory import DataDirectory, open_data_directory
from forebay.local.started import Started, read_started, write_started
from forebay.local.upgrade import control
from forebay.local.upgrade.control import ask_control, serve_control
from forebay.local.upgrade.running import OldVersionLost, Running, UpgradeRolledBack


@pytest.fixture
async def said(place: Path) -> AsyncIterator[tuple[DataDirectory, list[str]]]:
    """A `forebay up` that is none, and what it says to whoever started it."""
    lines: list[str] = []
    running = Running(None, (), {}, None, None, lines.append)  # type: ignore[arg-type]
    with open_data_directory(place / "data") as data:
        write_started(data, Started(version="1.0", python="/old/bin/python"))
        async with serve_control(data, running):
            yield data, lines


class _Upgrade:
    """One that ends as it is told."""

    error: Exception | None = None

    def __init__(self, *_: Any) -> None: ...

    async def run(self) -> None:
        if self.error is not None:
            raise self.error


async def _asked(data: DataDirectory) -> dict[str, Any]:
    news = [
        one async for one in ask_control(data, ask="upgrade", python="/new/bin/python", version="2.0", ready_within_s=1)
    ]
    return news[-1]


@pytest.mark.parametrize(
    ("error", "result", "why"),
    [
        (UpgradeRolledBack("not ready"), "rolled_back", "not ready"),
        (OldVersionLost("gone"), "failed", "gone"),
        (RuntimeError("a fault"), "failed", "RuntimeError: a fault"),
        (OSError(28, "No space left on device"), "failed", "OSError: [Errno 28] No space left on device"),
    ],
)
async def test_an_end_of_any_kind_is_told(
    error: Exception,
    result: str,
    why: str,
    said: tuple[DataDirectory, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, _ = said
    monkeypatch.setattr(_Upgrade, "error", error)
    monkeypatch.setattr(control, "Upgrade", _Upgrade)
    assert await _asked(data) == {"result": result, "why": why}
    started = read_started(data)
    assert started is not None
    assert (started.services_python, started.services_version) == ("", "")
    monkeypatch.setattr(_Upgrade, "error", None)
    assert (await _asked(data))["result"] == "upgraded", "the next one is let begin"


async def test_what_runs_now_is_written_down_and_where_that_cannot_be_the_upgrade_has_happened_all_the_same(
    said: tuple[DataDirectory, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, lines = said
    monkeypatch.setattr(control, "Upgrade", _Upgrade)
    assert await _asked(data) == {"result": "upgraded", "why": ""}
    started = read_started(data)
    assert started is not None
    assert (started.services_python, started.services_version) == ("/new/bin/python", "2.0")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(control, "write_started", full)
    told = await _asked(data)
    assert told["result"] == "upgraded"
    assert "No space left on device" in told["why"]
    assert lines == ["Upgrade: the services are of version 2.0 now."] * 2
