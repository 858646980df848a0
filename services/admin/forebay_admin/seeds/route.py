"""One address of another gateway's. Its table is the whole of it: what it does stands with its maker, what it may is that of
the operators' calls that it makes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.refusals import Dialect, NoCounterpart


@dataclass(frozen=True, slots=True)
class Answer:
    value: Any
    """JSON, or bytes as they are. None: nothing."""
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


Make = Callable[[Asking], Awaitable[Any]]
"""An Answer, or the JSON of one."""


@dataclass(frozen=True, slots=True)
class SeedRoute:
    verb: str
    path: str
    make: Make
    calls: tuple[str, ...]
    """Of the service Operator; whoever comes must have the right to each of them, for everybody's things."""
    dialect: Dialect = Dialect.MINDROUTER


def instead(words: str) -> Make:
    """Of what has no counterpart. `words`: what to use."""

    async def refuse(_: Asking) -> Any:
        raise NoCounterpart(words)

    return refuse
