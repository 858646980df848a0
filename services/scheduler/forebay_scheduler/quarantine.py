"""The slots of gateways that died, until their engines are done with them. Pure.

A dead gateway's engine may go on generating. Its slots return when the engine's own count, taken after the death, has room
for them beside what is known to run there; or, where no such count comes, after a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from forebay_scheduler.backend import Backend
from forebay_scheduler.request import BackendId, Process

FactsOf = Callable[[BackendId], Backend | None]
RunningAt = Callable[[BackendId, float], int]
"""Slots of a backend whose live requests were certainly running there at that moment."""


@dataclass(slots=True)
class Quarantined:
    backend: BackendId
    slots: int
    process: Process
    since: float
    blind_until: float
    """When they return if no engine has counted since."""
    limit: float
    """When they return in any case."""


class Quarantine:
    def __init__(self) -> None:
        self._kept: list[Quarantined] = []

    def __iter__(self) -> Iterator[Quarantined]:
        return iter(self._kept)

    def add(self, entry: Quarantined) -> None:
        if entry.slots > 0:
            self._kept.append(entry)

    def slots_on(self, backend: BackendId) -> int:
        return sum(entry.slots for entry in self._kept if entry.backend == backend)

    def drop(self, process: Process) -> None:
        """That process speaks for itself again."""
        self._kept = [entry for entry in self._kept if entry.process != process]

    def release(self, facts_of: FactsOf, running_at: RunningAt, now: float) -> list[tuple[Process, BackendId, int]]:
        """Let go of what may go. Returns whose slots return, where, and how many."""
        if not self._kept:
            return []
        freed: list[tuple[Process, BackendId, int]] = []
        for backend_id in dict.fromkeys(entry.backend for entry in self._kept):
            freed += self._release_on(backend_id, facts_of(backend_id), running_at, now)
        self._kept = [entry for entry in self._kept if entry.slots > 0]
        return freed

    def _release_on(
        self, backend_id: BackendId, facts: Backend | None, running_at: RunningAt, now: float
    ) -> Iterator[tuple[Process, BackendId, int]]:
        entries = [entry for entry in self._kept if entry.backend == backend_id]
        before = [entry.slots for entry in entries]
        counted = [] if facts is None or facts.running is None else [e for e in entries if e.since < facts.measured_at]
        if facts is not None and facts.running is not None and counted:
            unexplained = max(0, facts.running - running_at(backend_id, facts.measured_at))
            for entry in reversed(
                counted
            ):  # the youngest keep what is still unexplained: the oldest have waited longest
                entry.slots = min(entry.slots, unexplained)
                unexplained -= entry.slots
        for entry, slots in zip(entries, before, strict=True):
            if now >= entry.limit or (now >= entry.blind_until and entry not in counted):
                entry.slots = 0
            if entry.slots < slots:
                yield entry.process, backend_id, slots - entry.slots
