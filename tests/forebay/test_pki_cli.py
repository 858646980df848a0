"""`forebay pki` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from forebay.errors import BadInput, NotPossible
from forebay.pki.cli import pki


def run(*words: str) -> str:
    done = CliRunner().invoke(pki, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def answer(*words: str) -> Any:
    return json.loads(run(*words, "--json"))


def test_one_line_makes_all_and_may_be_run_again(tmp_path: Path) -> None:
    place = str(tmp_path / "pki")
    made = answer("make", place, "--gateways", "2", "--host", "10.0.0.7")
    assert [one["name"] for one in made] == [
        "admin",
        "gateway-1",
        "gateway-2",
        "nats",
        "postgres",
        "registry",
        "scheduler",
    ]
    assert set(made[0]) == {"name", "standing", "until", "hosts", "authority"}
    assert made[0]["hosts"] == ["admin", "localhost", "127.0.0.1", "::1", "10.0.0.7"]
    before = (tmp_path / "pki" / "admin" / "tls.crt").read_bytes()
    again = answer("make", place, "--gateways", "2", "--host", "10.0.0.7", "--agent", "gpu-7")
    assert [one["name"] for one in again if one not in made] == ["gpu-7"]
    assert (tmp_path / "pki" / "admin" / "tls.crt").read_bytes() == before


def test_parts_are_issued_shown_and_renewed_one_by_one(tmp_path: Path) -> None:
    place = str(tmp_path / "pki")
    assert set(answer("init", place)) == {"dir", "authority", "until"}
    assert answer("show", place) == []
    (made,) = answer("issue", place, "admin", "--host", "forebay.example.com", "--days", "10")
    assert answer("show", place) == [made]
    assert answer("renew", place) == []
    (renewed,) = answer("renew", place, "--all", "--days", "20")
    assert renewed["hosts"] == made["hosts"]
    assert renewed["until"] > made["until"]
    (again,) = answer("issue", place, "admin")
    assert again["hosts"] == made["hosts"]
    assert "forebay.example.com" in run("show", place)
    assert "Nothing is due." in run("renew", place)


def test_the_authority_is_replaced_step_by_step_and_each_step_says_what_is_next(tmp_path: Path) -> None:
    place = str(tmp_path / "pki")
    run("make", place)
    assert f"rotate-ca {place} switch" in run("rotate-ca", place, "begin")
    assert len(answer("rotate-ca", place, "switch")["authorities"]) == 2
    with pytest.raises(NotPossible):
        run("rotate-ca", place, "switch")
    assert len(answer("rotate-ca", place, "finish")["authorities"]) == 1
    assert {one["standing"] for one in answer("show", place)} == {"good"}


def test_a_mistake_leaves_nothing_behind(tmp_path: Path) -> None:
    place = tmp_path / "pki"
    with pytest.raises(BadInput):
        run("make", str(place), "--host", "gatway=10.0.0.7")
    assert not place.exists()


def test_the_help_of_every_verb_shows_how_it_is_typed() -> None:
    for verb in pki.commands:
        told = run(verb, "--help")
        assert f"forebay pki {verb} " in told
        assert "With --json:" in told
