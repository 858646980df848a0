"""What can be said to `forebay up`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from forebay.local import cli
from forebay.local.up import Wanted


def wanted(monkeypatch: pytest.MonkeyPatch, *arguments: str, **environ: str) -> Wanted:
    """What these words ask for. Raises click.UsageError."""
    asked: list[Wanted] = []

    async def run(*_: Any) -> None: ...

    def everything(wanted: Wanted, _: Any) -> None:
        asked.append(wanted)

    monkeypatch.setattr(cli, "Up", everything)
    monkeypatch.setattr(cli, "_run", run)
    done = CliRunner().invoke(cli.up, arguments, env=environ, standalone_mode=False)
    if done.exception:
        raise done.exception
    return asked[0]


def test_a_data_directory_may_be_named_from_home_wherever_the_name_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert wanted(monkeypatch, FOREBAY_DATA_DIR="~/forebay").data_dir == Path("/home/ada/forebay")
    assert wanted(monkeypatch, "--data-dir", "~/forebay").data_dir == Path("/home/ada/forebay")
    assert wanted(monkeypatch, FOREBAY_DATA_DIR="").data_dir is None


def test_an_empty_name_is_not_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(click.UsageError, match="it is empty"):
        wanted(monkeypatch, "--data-dir", "")
