"""The slots of gateways that died, until their engines are done with them. Pure.

A dead gateway's engine may go on generating. Its slots return when the engine's own count, taken after the death, has room
for them beside what is known to run there; or, where no such count comes, after a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from forebay_scheduler.backend import Fleet
from forebay_scheduler.request import BackendId, GatewayName

RunningAt = Callable[[BackendId, float], int]
"""Slots of a backend whose live requests were certainly running there at that moment."""


@dataclass(slots=True)
class Quarantined:
    backend: BackendId
    slots: int
    gateway: GatewayName
    generation: int
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

    def drop(self, gateway: GatewayName, generation: int) -> set[BackendId]:
        """That process speaks for itself again. Returns the backends that have room again."""
        mine = [entry for entry in self._kept if (entry.gateway, entry.generation) == (gateway, generation)]
        self._kept = [entry for entry in self._kept if entry not in mine]
        return {entry.backend for entry in mine}

    def release(self, fleet: Fleet, running_at: RunningAt, now: float) -> set[BackendId]:
        """Let go of what may go. Returns the backends that have room again."""
        if not self._kept:
            return set()
        freed: set[BackendId] = set()
        for backend_id in {entry.backend for entry in self._kept}:
            freed |= self._release_on(backend_id, fleet, running_at, now)
        self._kept = [entry for entry in self._kept if entry.slots > 0]
        return freed

    def _release_on(self, backend_id: BackendId, fleet: Fleet, running_at: RunningAt, now: float) -> set[BackendId]:
        entries = [entry for entry in self._kept if entry.backend == backend_id]
        before = sum(entry.slots for entry in entries)
        backend = fleet.get(backend_id)
        counted = (
            [] if backend is None or backend.running is None else [e for e in entries if e.since < backend.measured_at]
        )
        if backend is not None and backend.running is not None and counted:
            unexplained = max(0, backend.running - running_at(backend_id, backend.measured_at))
            for entry in reversed(
                counted
            ):  # the youngest keep what is still unexplained: the oldest have waited longest
                entry.slots = min(entry.slots, unexplained)
                unexplained -= entry.slots
        for entry in entries:
            if now >= entry.limit or (now >= entry.blind_until and entry not in counted):
                entry.slots = 0
        return {backend_id} if sum(entry.slots for entry in entries) < before else set()
