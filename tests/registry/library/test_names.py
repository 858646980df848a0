"""Names that engines make paths of."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.errors import BadInput
from forebay_registry.library.names import LONGEST_NAME, demand_keep_alive, demand_model, demand_source, is_same


@pytest.mark.parametrize(
    "name",
    [
        "llama3.1",
        "llama3.1:8b",
        "me/mine:Q4_K_M",
        "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_0",
        "localhost:5000/team/model:v1",
        "meta-llama/Llama-3.1-8B-Instruct",
    ],
)
def test_names_of_models_are_taken_as_they_are(name: str) -> None:
    assert demand_model(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "Say which model"),
        ("/etc/passwd", "is a path"),
        ("../../secret", "is a path"),
        ("a/../b", "is a path"),
        ("./model", "is a path"),
        ("~/model", "is a path"),
        ("C:\\models\\x", "is a path"),
        ("https://hf.co/user/model", "is an address"),
        ("file:///etc/passwd", "is an address"),
        ("two words", "cannot be the name"),
        ("a/b/c/d", "cannot be the name"),
        ("a//b", "cannot be the name"),
        ("model:", "cannot be the name"),
        ("model:a:b", "cannot be the name"),
        ("model\n", "cannot be the name"),
        ("mödel", "cannot be the name"),
        ("m" * (LONGEST_NAME + 1), "longer than"),
    ],
)
def test_what_is_no_name_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        demand_model(name)


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet="ab./:\\~ _-", max_size=20))
def test_no_accepted_name_leads_out_of_a_folder(name: str) -> None:
    try:
        demand_model(name)
    except BadInput:
        return
    assert ".." not in name
    assert not name.startswith(("/", ".", "~"))
    assert "" not in name.split("/")


def test_adapters_lie_in_a_repository_or_at_an_absolute_path() -> None:
    assert demand_source("owner/adapter") == "owner/adapter"
    assert demand_source("/srv/adapters/one") == "/srv/adapters/one"
    for bad in ("/srv/../etc", "relative/../x", "a b", "\x00"):
        with pytest.raises(BadInput):
            demand_source(bad)


def test_how_long_a_model_stays_loaded_is_said_as_ollama_says_it() -> None:
    for good in ("", "-1", "30m", "1h30m", "90s"):
        assert demand_keep_alive(good) == good
    for bad in ("0", "30", "-5", "for ever", "1d"):
        with pytest.raises(BadInput, match="30m, 2h, or -1"):
            demand_keep_alive(bad)


def test_the_usual_tag_makes_no_difference() -> None:
    assert is_same("m", "m:latest")
    assert is_same("m:latest", "m")
    assert not is_same("m:8b", "m")
