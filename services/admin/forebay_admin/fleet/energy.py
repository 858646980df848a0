"""Whose energy it was: each backend's of each hour, divided among those whose tokens it read and wrote. Pure.

What a backend took while it ran nothing is told apart, and so is what it took for requests that no ledger knows. A prompt's
token counts as much as an answer's: nobody tells what each of them took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum


class Rest(Enum):
    """What belongs to nobody. No strings, since models and groups may have any name."""

    IDLE = "idle"
    ELSEWHERE = "elsewhere"
    NO_BACKEND = "no_backend"


@dataclass(frozen=True, slots=True)
class Spent:
    """By one backend in one hour; or by whatever else it is told of."""

    gpu_wh: float
    server_wh: float | None
    """None: no host tells."""
    idle_wh: float | None
    """None: its engine does not tell."""
    is_estimated: bool


@dataclass(slots=True)
class Sum:
    gpu_wh: float = 0.0
    server_wh: float | None = None
    idle_wh: float = 0.0
    gpu_only_wh: float = 0.0
    """Of `gpu_wh`, where no host's meter stands behind it."""
    tokens: int = 0
    is_estimated: bool = False

    def add(self, spent: Spent, part: float = 1.0) -> None:
        self.gpu_wh += spent.gpu_wh * part
        if spent.server_wh is None:
            self.gpu_only_wh += spent.gpu_wh * part
        else:
            self.server_wh = (self.server_wh or 0.0) + spent.server_wh * part
        self.is_estimated = self.is_estimated or spent.is_estimated

    def without(self, other: Sum) -> Sum:
        """What is left when the other's is taken away."""
        server = None if self.server_wh is None else max(0.0, self.server_wh - (other.server_wh or 0.0))
        return Sum(
            max(0.0, self.gpu_wh - other.gpu_wh),
            server,
            gpu_only_wh=max(0.0, self.gpu_only_wh - other.gpu_only_wh),
            is_estimated=self.is_estimated,
        )


Hour = tuple[str, int]
"""Backend id, and the first second of the hour since the epoch."""
Tokens = Mapping[Hour, Mapping[str, int]]
"""→ whose (a model, a group) → prompt and completion tokens."""


def attribute(spent: Iterable[tuple[Hour, Spent]], tokens: Tokens) -> dict[str | Rest, Sum]:
    found: dict[str | Rest, Sum] = {}

    def book(whose: str | Rest, one: Spent, part: float) -> Sum:
        total = found.setdefault(whose, Sum())
        if part:
            total.add(one, part)
        return total

    for hour, one in spent:
        if not one.gpu_wh:
            continue
        idle = min(1.0, max(0.0, (one.idle_wh or 0.0) / one.gpu_wh))
        if idle:
            book(Rest.IDLE, one, idle).idle_wh += one.gpu_wh * idle
        whose = {name: n for name, n in tokens.get(hour, {}).items() if n}
        total = sum(whose.values())
        if not total and idle < 1:
            book(Rest.ELSEWHERE, one, 1 - idle)
        for name, n in whose.items():
            book(name, one, (1 - idle) * n / total).tokens += n
    return found
