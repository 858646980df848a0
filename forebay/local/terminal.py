"""What `forebay up` tells the person who typed it: lines, bars for long copies, a spinner for waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

Advance = Callable[[int], None]
"""So many bytes more."""


class Terminal(Protocol):
    def line(self, text: str) -> None: ...
    def bar(self, title: str, total_bytes: int) -> AbstractContextManager[Advance]: ...
    def waiting(self, title: str) -> AbstractContextManager[None]: ...


class RichTerminal:
    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total_bytes: int) -> Iterator[Advance]:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(title, total=total_bytes)
            yield lambda count: progress.advance(task, count)

    @contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(title, total=1)
            yield
            progress.advance(task)


class SilentTerminal:
    """For tests and for output that nobody watches."""

    def line(self, text: str) -> None: ...

    @contextmanager
    def bar(self, title: str, total_bytes: int) -> Iterator[Advance]:
        yield lambda count: None

    @contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        yield
