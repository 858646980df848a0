"""Which ceilings have to be written to the bus, and what the bus is sure to hold. Pure.

Backends are spread over shards by a hash that every leader agrees on. All ceilings of one backend are in one shard, so one
write moves slots from one process to another: whoever reads it sees them here or there, never in both places."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

from forebay_scheduler.decisions import StoreCeilings, StoredCeilings
from forebay_scheduler.lending.ceiling import Ceiling, Split
from forebay_scheduler.request import BackendId, Process

SHARDS = 16


def shard_of(backend: BackendId) -> int:
    return zlib.crc32(backend.encode()) % SHARDS


class CeilingWrites:
    """One write at most is on its way; whatever changes meanwhile goes into the next."""

    def __init__(self, lazy_s: float) -> None:
        self._lazy_s = lazy_s
        self._splits: dict[int, dict[BackendId, Split]] = {}
        self._urgent: set[int] = set()
        self._lazy: set[int] = set()
        self._lazy_since: float | None = None
        self._ticket = 0
        self._on_its_way: dict[int, list[tuple[Ceiling, int]]] | None = None
        self.is_away = False

    def add(self, split: Split) -> None:
        self._splits.setdefault(split.shard, {})[split.backend] = split

    def need(self, split: Split) -> None:
        """Somebody waits for this."""
        self._urgent.add(split.shard)

    def note(self, split: Split) -> None:
        """What the bus says is more than is so: safe, and put right with the next write or after a while."""
        self._lazy.add(split.shard)

    def change_bus(self, is_away: bool) -> None:
        """What was on its way when the bus went may or may not have arrived, so it is written anew."""
        self.is_away = is_away
        if not is_away and self._on_its_way is not None:
            self._urgent |= self._on_its_way.keys()
            self._on_its_way = None

    def stored(self, ticket: int) -> list[Ceiling]:
        """Returns what is now as sure as it was written. A ticket that a later write has replaced says nothing."""
        if self._on_its_way is None or ticket != self._ticket:
            return []
        written = [entry for entries in self._on_its_way.values() for entry in entries]
        self._on_its_way = None
        for ceiling, slots in written:
            ceiling.sure = slots
        return [ceiling for ceiling, _ in written]

    def next(self, now: float, silent_s: Callable[[Process], float]) -> StoreCeilings | None:
        if self._lazy and self._lazy_since is None:
            self._lazy_since = now
        is_due = bool(self._urgent) or (self._lazy_since is not None and now - self._lazy_since >= self._lazy_s)
        if not is_due or self.is_away or self._on_its_way is not None:
            return None
        shards = sorted(self._urgent | self._lazy)
        self._urgent.clear()
        self._lazy.clear()
        self._lazy_since = None
        self._ticket += 1
        self._on_its_way = {}
        for shard in shards:
            ceilings = [c for split in self._splits[shard].values() for c in split.ceilings.values()]
            self._on_its_way[shard] = [(ceiling, ceiling.reserved) for ceiling in ceilings]
            for ceiling in ceilings:
                ceiling.sure = min(ceiling.sure, ceiling.reserved)
        return StoreCeilings(self._ticket, {shard: _as_stored(self._on_its_way[shard], silent_s) for shard in shards})


def _as_stored(
    written: Iterable[tuple[Ceiling, int]], silent_s: Callable[[Process], float]
) -> tuple[StoredCeilings, ...]:
    slots: dict[Process, dict[BackendId, int]] = {}
    is_dead: dict[Process, bool] = {}
    for ceiling, count in written:
        if count > 0:
            slots.setdefault(ceiling.holder.process, {})[ceiling.split.backend] = count
            is_dead[ceiling.holder.process] = ceiling.holder.is_dead
    return tuple(
        StoredCeilings(*process, mine, silent_s=silent_s(process), is_dead=is_dead[process])
        for process, mine in slots.items()
    )
