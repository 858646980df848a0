"""What a command prints: JSON for scripts, a table or a sentence for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

import click
from rich import box
from rich.console import Console
from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])

_PIPE_WIDTH = 240  # a pipe has no width, and a name that is cut in two helps no script

json_option = click.option("--json", "as_json", is_flag=True, help="Answer as JSON, the same in every version.")


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, nothing: str) -> None:
    """`nothing` is said instead when there are no rows. A column whose name begins with # stands to the right; cells may
    hold rich's markup, so whatever others chose goes through `rich.markup.escape` first."""
    console = _console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        # Folded and not cut where the terminal is narrow, and the first column, by which things are called, left whole.
        justify: Literal["left", "right"] = "right" if column.startswith("#") else "left"
        table.add_column(column.removeprefix("#"), justify=justify, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*map(visible, row))
    if table.row_count:
        console.print(table)
    else:
        console.print(nothing)


def visible(text: str) -> str:
    """What engines, agents and users call things, without letters that a terminal would obey."""
    return text if text.isprintable() else "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def _console() -> Console:
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)
