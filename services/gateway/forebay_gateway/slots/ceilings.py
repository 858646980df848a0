"""The most slots that this gateway may hold on each backend, as the scheduler told them, and what it holds there. Pure.

With a leader, its grants are within them by themselves. What the gateway begins of its own accord, on a credit or without a
leader, is never beyond them; a ceiling that nobody told is none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ceiling:
    backend_id: str
    pool: str
    slots: int
    version: int


class Ceilings:
    def __init__(self) -> None:
        self._told: dict[str, Ceiling] = {}
        self._held: defaultdict[str, int] = defaultdict(int)

    def __iter__(self) -> Iterator[Ceiling]:
        return iter(self._told.values())

    def tell(self, ceiling: Ceiling) -> int:
        """The newest word counts, whatever was said before. Gives the slots in use there, for the acknowledgement: from
        now on nothing is begun beyond it."""
        if ceiling.slots:
            self._told[ceiling.backend_id] = ceiling
        else:
            self._told.pop(ceiling.backend_id, None)
        return self.held(ceiling.backend_id)

    def take(self, backend_id: str, slots: int) -> None:
        self._held[backend_id] += slots

    def give_back(self, backend_id: str, slots: int) -> None:
        left = self._held[backend_id] - slots
        self._held[backend_id] = left if left > 0 else 0

    def held(self, backend_id: str) -> int:
        return self._held.get(backend_id, 0)

    def room(self, backend_id: str) -> int:
        """Slots that may still be taken there; below zero when a lowered ceiling is not reached yet."""
        told = self._told.get(backend_id)
        return (told.slots if told is not None else 0) - self._held[backend_id]

    @property
    def total(self) -> int:
        return sum(ceiling.slots for ceiling in self._told.values())
