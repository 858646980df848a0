"""A backend as the scheduler sees it: what it serves, how much at once, and what its engine says is running."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from forebay_scheduler.request import BackendId, PoolName


@dataclass(frozen=True, slots=True)
class Backend:
    id: BackendId
    pool: PoolName
    models: frozenset[str]
    slots: int
    """Generations at once, never exceeded."""
    healthy: bool = True
    enabled: bool = True
    """False while it drains: what runs there goes on, nothing new starts."""
    running: int | None = None
    """Generations that the engine itself counts; None where it does not tell."""
    measured_at: float = float("-inf")
    """When it counted them, on the scheduler's clock."""

    @property
    def is_open(self) -> bool:
        return self.healthy and self.enabled


class Fleet:
    """All backends of one moment, by pool and model."""

    def __init__(self, backends: Iterable[Backend] = ()) -> None:
        self._by_id = {backend.id: backend for backend in sorted(backends, key=lambda backend: backend.id)}
        self._by_pool: defaultdict[PoolName, list[Backend]] = defaultdict(list)
        self._serving: defaultdict[tuple[PoolName, str], list[Backend]] = defaultdict(list)
        for backend in self._by_id.values():
            self._by_pool[backend.pool].append(backend)
            for model in backend.models:
                self._serving[backend.pool, model].append(backend)

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._by_id.values())

    def get(self, backend: BackendId) -> Backend | None:
        return self._by_id.get(backend)

    def in_pool(self, pool: PoolName) -> Sequence[Backend]:
        return self._by_pool.get(pool, ())

    def serving(self, pool: PoolName, model: str) -> Sequence[Backend]:
        return self._serving.get((pool, model), ())
