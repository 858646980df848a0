"""A fleet file: what is read of it, with every problem and its line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.plain_message import plain_of
from forebay_admin.fleet.fleet_file import read_fleet_file, write_fleet_file

WHOLE = """\
nodes:
- name: gpu-1
  labels:
    rack: a
backends:
- name: big
  url: http://gpu-1:8000
  gpu_indices:
  - 0
  - 1
  weight: 1.5
pools:
- name: lab
  hosts:
  - lab.example.com
models:
- name: llama
  aliases:
  - gpt-4o
"""


def test_a_file_is_read_and_written_as_it_was() -> None:
    file = read_fleet_file(WHOLE)
    assert file.problems == ()
    assert write_fleet_file(file.spec) == WHOLE
    assert (file.line_of("backends.big.url"), file.line_of("backends.big.node"), file.line_of("pools.lab")) == (
        7,
        6,
        13,
    )


def test_an_engines_key_is_named_by_its_file_and_never_part_of_the_fleet() -> None:
    file = read_fleet_file(
        "backends: [{name: big, url: http://x, bearer_file: big.key}, {name: small, bearer_file: 3}]"
    )
    assert file.key_files == {"big": "big.key"}
    assert [(p.path, p.line) for p in file.problems] == [("backends.small.bearer_file", 1)]
    assert "big.key" not in str(file.spec)


def test_parts_that_several_entries_share_are_written_once() -> None:
    file = read_fleet_file(
        "backends:\n- &usual {name: a, url: http://a, pool: lab}\n- <<: *usual\n  name: b\n  url: http://b\n"
    )
    assert file.problems == ()
    assert [(b.name, b.url, b.pool) for b in file.spec.backends] == [("a", "http://a", "lab"), ("b", "http://b", "lab")]


@pytest.mark.parametrize(
    ("text", "line", "path", "sentence"),
    [
        ("", 1, "", "The file is empty"),
        ("nodes: [", 1, "", "This is not YAML"),
        ("nodes:\n- name: a\n\tnote: b", 3, "", "This is not YAML"),
        ("a: 1\n---\nb: 2", 2, "", "This is not YAML"),
        ("nodes: 3", 1, "nodes", "3 is not a list"),
        ("node: []", 1, "node", "did you mean nodes?"),
        ("backends:\n- name: big\n  slots: many", 3, "backends.big.slots", "'many' is not a whole number"),
        ("backends:\n- name: big\n  url: a\n  url: b", 4, "backends.big.url", "stands here twice"),
        ("backends:\n- {name: big, enabled: 1}", 2, "backends.big.enabled", "neither true nor false"),
        ("backends:\n- {name: big, labels: {a: 1}}", 2, "backends.big.labels.a", "put quotes around it"),
        ("nodes: !!python/object/apply:os.system ['id']", 1, "nodes", "no kind of value that a fleet has"),
        ("nodes: [{name: !!python/name:os.system }]", 1, "", "could not determine a constructor"),
        ("nodes:\n- name: a\n  note: 2024-13-45", 3, "", "month must be in"),
        ("- 1", 1, "", "is not a table"),
        ("? [a]\n: b", 1, "", "one word"),
        ("[" * 500, None, "", "nested too deeply"),
        ("&a [*a]", None, "", "unfolds into too much"),
        ("x" * (2 << 20), None, "", "longer than 1 MiB"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_meant_is_told_with_its_line(text: str, line: int | None, path: str, sentence: str) -> None:
    told = [problem for problem in read_fleet_file(text).problems if sentence in problem.why]
    assert [(problem.line, problem.path) for problem in told] == [(line, path)]


def test_a_file_that_unfolds_without_end_is_given_up_soon() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    (problem,) = read_fleet_file("\n".join(lines)).problems
    assert "unfolds into too much" in problem.why


@settings(max_examples=30)
@given(st.text(max_size=80) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_no_text_whatever_breaks_the_reading(text: str) -> None:
    file = read_fleet_file(text)
    assert file.problems or plain_of(file.spec) is not None
