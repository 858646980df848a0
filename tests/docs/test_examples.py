"""The examples of the documents run, and say what the documents say that they do."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from forebay.launch import cli
from forebay_scheduler.simulator.cli import simulate

ROOT = Path(__file__).parents[2]
SCORER = ROOT / "docs" / "writing-a-scorer.md"
_EXAMPLE = re.compile(r"<!-- tested -->\n```python\n(?P<code>.*?)```\n\n```\n(?P<output>.*?)```", re.DOTALL)
EXAMPLES = [(match["code"], match["output"]) for match in _EXAMPLE.finditer(SCORER.read_text())]
_NUMBER = re.compile(r"\d+(\.\d+)?")


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_an_example_of_a_policy_and_one_of_a_term() -> None:
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("index", [0, 1], ids=["policy", "term"])
def test_an_example_of_a_scorer_runs_and_prints_what_is_shown(index: int) -> None:
    """Its numbers are the simulator's, and change when the scheduler gets better: compared is what they show."""
    code, shown = EXAMPLES[index]
    printed = _run(code)
    words = [_NUMBER.sub("#", line).split() for line in printed.splitlines()]
    assert words == [_NUMBER.sub("#", line).split() for line in shown.splitlines()]
    for output in (printed, shown):
        if index == 0:
            forebay, most_cached, _ = (float(mean) for mean in re.findall(r"mean +([\d.]+)", output))
            assert forebay < most_cached
        else:
            without, with_it = (int(rented) for rented in re.findall(r"'rented': (\d+)", output))
            assert with_it < without / 2


def _simulations() -> set[str]:
    told = set()
    for document in ROOT.glob("docs/*.md"):
        text = document.read_text()
        for line in re.findall(r"`(forebay simulate[^`\n]*)`|^(forebay simulate.*)$", text, re.MULTILINE):
            told.add(next(part for part in line if part).split(" #")[0].strip())
    return told


@pytest.mark.parametrize("line", sorted(_simulations()))
def test_a_simulation_that_is_named_has_the_options_that_it_is_given(line: str) -> None:
    words = shlex.split(line)[2:]
    if "--help" not in words:
        simulate.make_context("simulate", words)


def _options() -> set[tuple[str, str]]:
    told: set[tuple[str, str]] = set()
    for document in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        text = document.read_text()
        for line in re.findall(r"`(forebay [^`\n]+)`|^(forebay [^\n]+)$", text, re.MULTILINE):
            words = next(part for part in line if part).split(" #")[0].split()[1:]
            names = " ".join(itertools.takewhile(lambda word: not word.startswith("-"), words))
            told.update((names, word.split("=")[0]) for word in words if word.startswith("--"))
    return told


@pytest.mark.parametrize(("words", "option"), sorted(_options()))
def test_an_option_that_is_named_is_one_of_its_command(words: str, option: str) -> None:
    command: click.Command = cli
    with click.Context(command) as context:
        for word in words.split():
            inner = command.get_command(context, word) if isinstance(command, click.Group) else None
            if inner is None:  # a name of something, such as a pool's
                break
            command = inner
        known = {
            spelling
            for parameter in command.get_params(context)
            for spelling in parameter.opts + parameter.secondary_opts
        }
    assert option in known
