"""How several backends' pulls become one, and how the lines of one are read."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.dialects.ollama.progress import LONGEST_LINE, BadProgress, ProgressLines, PullProgress

Json = dict[str, Any]
ORDER = [
    "pulling manifest",
    "pulling",
    "verifying sha256 digest",
    "writing manifest",
    "removing unused layers",
    "success",
]


def status(text: str) -> Json:
    return {"status": text}


def layer(digest: str, total: int, completed: int = 0) -> Json:
    return {"status": f"pulling {digest}", "digest": digest, "total": total, "completed": completed}


def test_the_progress_of_one_backend_passes_as_it_is() -> None:
    told = [
        status("pulling manifest"),
        {"status": "pulling aa", "digest": "aa", "total": 10},
        layer("aa", 10, 4),
        layer("aa", 10, 10),
        *map(status, ORDER[2:]),
    ]
    pull = PullProgress(["b1"])
    assert [line for each in told for line in pull.take("b1", each)] == told


def test_layers_are_summed_over_the_backends_that_have_told_of_them() -> None:
    pull = PullProgress(["b1", "b2"])
    assert pull.take("b1", layer("aa", 10, 4)) == [layer("aa", 10, 4)]
    assert pull.take("b2", layer("aa", 10, 1)) == [layer("aa", 20, 5)]
    assert pull.take("b2", layer("bb", 7, 7)) == [layer("bb", 7, 7)]
    assert pull.take("b1", layer("aa", 10, 10)) == [layer("aa", 20, 11)]


def test_a_layer_that_is_begun_again_does_not_take_the_sum_back() -> None:
    pull = PullProgress(["b1"])
    pull.take("b1", layer("aa", 10, 8))
    assert pull.take("b1", layer("aa", 10, 3)) == [layer("aa", 10, 8)]


def test_a_step_is_told_when_all_have_come_so_far() -> None:
    pull = PullProgress(["b1", "b2"])
    assert pull.take("b1", status("pulling manifest")) == [status("pulling manifest")]
    assert pull.take("b1", status("verifying sha256 digest")) == []
    assert pull.take("b2", status("pulling manifest")) == []
    assert pull.take("b2", layer("aa", 5)) != []
    assert pull.take("b2", status("verifying sha256 digest")) == [status("verifying sha256 digest")]
    assert pull.take("b1", status("success")) == []
    assert pull.take("b2", status("success")) == [status("success")]


def test_one_that_fails_is_not_waited_for_and_nothing_succeeds() -> None:
    pull = PullProgress(["b1", "b2"])
    pull.take("b1", status("writing manifest"))
    pull.take("b1", status("success"))
    assert pull.fail("b2") == [status("writing manifest")]
    assert pull.take("b2", status("success")) == []


def test_a_status_that_is_new_to_us_is_told_once() -> None:
    pull = PullProgress(["b1", "b2"])
    assert pull.take("b1", status("warming up")) == [status("warming up")]
    assert pull.take("b2", status("warming up")) == []
    for name in ("b1", "b2"):
        pull.take(name, layer("aa", 5))
    assert pull.take("b1", status("unpacking")) == [status("unpacking")]
    assert pull.take("b2", status("unpacking")) == []


@pytest.mark.parametrize("told", [{}, {"status": None}, {"status": 3}, {"digest": "aa"}])
def test_what_tells_nothing_is_dropped(told: Json) -> None:
    assert PullProgress(["b1"]).take("b1", told) == []


_DIGESTS = ("aa", "bb", "cc")
_SIZE = {"aa": 100, "bb": 7, "cc": 1}


@st.composite
def _one_backend(draw: st.DrawFn) -> list[Json | None]:
    """The lines of one, in Ollama's order, and None in the end if it fails there."""
    lines: list[Json | None] = [status("pulling manifest")]
    for digest in draw(st.lists(st.sampled_from(_DIGESTS), max_size=12)):
        lines.append(layer(digest, _SIZE[digest], draw(st.integers(0, _SIZE[digest]))))
    lines += map(status, ORDER[2:4])
    if draw(st.booleans()):
        lines.append(status(ORDER[4]))
    lines.append(status(ORDER[5]))
    if draw(st.integers(0, 3)) == 0:
        return [*lines[: draw(st.integers(0, len(lines) - 1))], None]
    return lines


@given(st.data())
def test_whatever_the_interleaving_sums_never_fall_and_success_is_last_and_everyones(data: st.DataObject) -> None:
    backends = {f"b{n}": lines for n, lines in enumerate(data.draw(st.lists(_one_backend(), min_size=1, max_size=4)))}
    left = {name: list(lines) for name, lines in backends.items()}
    pull, told = PullProgress(left.keys()), []
    while left:
        name = data.draw(st.sampled_from(sorted(left)))
        line = left[name].pop(0)
        told += pull.fail(name) if line is None else pull.take(name, line)
        if not left[name]:
            del left[name]
            assert pull.has_ended(name)

    steps = [ORDER.index("pulling" if "digest" in line else line["status"]) for line in told]
    assert steps == sorted(steps)
    statuses = [line["status"] for line in told if "digest" not in line]
    assert len(statuses) == len(set(statuses))
    for digest in _DIGESTS:
        of_it = [line for line in told if line.get("digest") == digest]
        for before, after in pairwise(of_it):
            assert before["total"] <= after["total"]
            assert before.get("completed", 0) <= after.get("completed", 0)
        said = [[line for line in lines if line and line.get("digest") == digest] for lines in backends.values()]
        if of_it:
            assert of_it[-1]["total"] == sum(_SIZE[digest] for lines in said if lines)
            assert of_it[-1].get("completed", 0) == sum(max(x["completed"] for x in lines) for lines in said if lines)
        else:
            assert not any(said)
    all_succeeded = all(lines[-1] is not None for lines in backends.values())
    assert statuses.count("success") == all_succeeded
    if all_succeeded:
        assert told[-1] == status("success")


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2), max_size=5), st.data())
def test_lines_come_out_whole_however_they_are_cut(objects: list[Json], data: st.DataObject) -> None:
    raw = b"".join(orjson.dumps(each) + data.draw(st.sampled_from([b"\n", b"\r\n", b"\n\n"])) for each in objects)
    lines, found = ProgressLines(), []
    while raw:
        size = data.draw(st.integers(1, 40))
        found += lines.feed(raw[:size])
        raw = raw[size:]
    assert [line.told for line in [*found, *lines.end()]] == objects
    assert all(orjson.loads(line.raw) == line.told and line.raw == line.raw.strip() for line in found)


def test_a_last_line_without_its_end_is_read_and_a_cut_one_is_not() -> None:
    lines = ProgressLines()
    assert lines.feed(b'{"status":"success"}') == []
    assert [line.is_success for line in lines.end()] == [True]
    lines.feed(b'{"status":"su')
    with pytest.raises(BadProgress):
        lines.end()


@pytest.mark.parametrize("raw", [b"nonsense\n", b"[]\n", b"x" * (LONGEST_LINE + 1)])
def test_what_is_no_progress_is_said_to_be_none(raw: bytes) -> None:
    with pytest.raises(BadProgress):
        ProgressLines().feed(raw)


@pytest.mark.parametrize(
    ("told", "error"), [({"error": "no"}, "no"), ({"error": {"a": 1}}, '{"a":1}'), ({"error": ""}, ""), ({}, "")]
)
def test_an_error_is_a_text(told: Json, error: str) -> None:
    (line,) = ProgressLines().feed(orjson.dumps(told) + b"\n")
    assert line.error == error
