"""What Ollama tells while it pulls, and what fits on a disk."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_registry.engines.answers import BadAnswer
from forebay_registry.library.progress import Layers, Line, demand_room, read_line
from forebay_registry.library.trouble import EngineTrouble, said

GB = 10**9


def test_lines_are_read_and_what_is_no_such_line_is_said() -> None:
    told = read_line(b'{"status":"pulling 0123","digest":"sha256:0123","total":10,"completed":4}')
    assert told == Line("pulling 0123", "sha256:0123", 10, 4)
    assert read_line(b'{"error":"disk full"}').error == "disk full"
    assert read_line(b'{"error":{"message":"no"}}').error == "no"
    assert read_line(b'{"status":"x","total":-1,"completed":"7"}') == Line("x"), "what cannot be meant is not told"
    for bad in (b"<html>", b"[]", b"{}", b'{"status":7}', b'{"status":"x","digest":[]}'):
        with pytest.raises(BadAnswer):
            read_line(bad)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_do_anything_worse_than_a_bad_answer(raw: bytes) -> None:
    try:
        read_line(raw)
    except BadAnswer:
        return


def test_layers_add_up_to_what_is_there_and_what_is_to_come() -> None:
    layers = Layers()
    assert (layers.total, layers.completed, layers.to_fetch) == (None, None, 0)
    assert layers.take(Line("pulling", "a", 100, 60))
    assert not layers.take(Line("pulling", "a", 100, 80))
    assert layers.take(Line("pulling", "b", 10))
    assert not layers.take(Line("verifying"))
    assert (layers.total, layers.completed, layers.to_fetch) == (110, 80, 30)


def test_layers_without_end_are_refused() -> None:
    layers = Layers()
    for number in range(1000):
        layers.take(Line("pulling", str(number), 1))
    with pytest.raises(EngineTrouble, match="more than 1000 layers") as trouble:
        layers.take(Line("pulling", "one more", 1))
    assert trouble.value.is_final


def test_a_pull_that_does_not_fit_is_refused_with_the_numbers() -> None:
    demand_room(20 * GB, 30 * GB, 0, 10 * GB, backend="b", node="n")
    demand_room(10**15, None, 0, 10 * GB, backend="b", node="n")
    with pytest.raises(EngineTrouble) as trouble:
        demand_room(21 * GB, 30 * GB, 0, 10 * GB, backend="b", node="gpu-box")
    assert str(trouble.value) == (
        "b needs 21.0 GB more for this model; of 30.0 GB free on gpu-box, 10.0 GB stay free. Delete models there, or say "
        "--force."
    )
    assert trouble.value.is_final
    with pytest.raises(EngineTrouble, match=r"of 30\.0 GB free on gpu-box, 15\.0 GB go to other pulls, 10\.0 GB stay"):
        demand_room(6 * GB, 30 * GB, 15 * GB, 10 * GB, backend="b", node="gpu-box")


@pytest.mark.parametrize(
    ("words", "status", "is_final"),
    [
        ("pull model manifest: file does not exist", None, True),
        ("write /x: no space left on device", None, True),
        ("max retries exceeded: unexpected EOF", None, False),
        ("Get https://registry: dial tcp: i/o timeout", None, False),
        ("invalid model name", 400, True),
        ("server busy, please try again.", 503, False),
        ("too many", 429, False),
    ],
)
def test_what_may_pass_is_tried_again(words: str, status: int | None, is_final: bool) -> None:
    trouble = said("b", words, status=status)
    assert (trouble.message, trouble.is_final) == (f"b says: {words}", is_final)
