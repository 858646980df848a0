"""`forebay simulate`, as a person or a program uses it."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from forebay.errors import CannotStart
from forebay_scheduler.simulator.cli import simulate


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "small.csv"
    rows = [f"{number * 0.05},{200 + number},{20 + number % 7},user-{number % 3}" for number in range(60)]
    file.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens,User", *rows]) + "\n")
    return file


def run(*arguments: str) -> Result:
    return CliRunner().invoke(simulate, arguments, catch_exceptions=False)


def test_it_prints_a_table_for_people(trace: Path) -> None:
    told = run("--trace", str(trace), "--policy", "forebay", "--policy", "vtc", "--engines", "1", "--processes", "1")
    assert told.exit_code == 0
    assert "fairness" in told.stdout
    assert "forebay" in told.stdout
    assert "Jain" in told.stdout


def test_it_prints_one_object_for_programs(trace: Path) -> None:
    told = run(
        "--trace", str(trace), "--policy", "forebay", "--policy", "fcfs", "--engines", "2", "--processes", "1", "--json"
    )
    answer: dict[str, Any] = json.loads(told.stdout)
    assert answer["workload"] == "small"
    assert answer["requests"] == 60
    assert [one["policy"] for one in answer["runs"]] == ["forebay", "fcfs"]
    assert all(one["ttft_mean"] > 0 for one in answer["runs"])


def test_it_draws_pictures(trace: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    told = run(
        "--trace", str(trace), "--engines", "1", "--processes", "1", "--plot", str(tmp_path / "pictures"), "--json"
    )
    files = [Path(file) for file in json.loads(told.stdout)["plots"]]
    assert [file.name for file in files] == ["small-service-gap.png", "small-ttft-cdf.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_without_matplotlib_it_says_what_to_install(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_import = builtins.__import__

    def no_matplotlib(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name=name)
        return really_import(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(CannotStart, match=r"pip install 'forebay\[simulate\]'"):
        run("--trace", str(trace), "--plot", str(tmp_path))


def test_a_name_that_is_neither_a_file_nor_a_workload_is_refused_with_those_there_are() -> None:
    with pytest.raises(CannotStart, match="arena"):
        run("--trace", "nothing-like-it")


def test_a_rule_about_users_is_refused_where_there_are_none(tmp_path: Path) -> None:
    file = tmp_path / "crowd.csv"
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,10,1\n1,10,1\n")
    with pytest.raises(CannotStart, match="no users"):
        run("--trace", str(file), "--policy", "vtc")
