"""Where a request starts: on the backend with the most free slots among those that can take it. Pure.

A wide request must not starve while narrow ones keep taking each slot that frees. So the first head that does not fit
anywhere sets one backend aside: the one that is nearest to having room for it. Until that backend has room, no request
later in the round may start there. As users are served in turn, everyone who was ahead of the wide request falls behind
it after one grant, and the room set aside only grows. The price is at most its width less one idle slots on one backend."""

from __future__ import annotations

from collections.abc import Mapping

from forebay_scheduler.backend import Fleet
from forebay_scheduler.request import BackendId, LedgerId, PoolName, Request


class Round:
    """One pass over a pool's queue: places heads in order, and remembers what is set aside for whom."""

    def __init__(self, fleet: Fleet, pool: PoolName, free: Mapping[BackendId, int]) -> None:
        """`free` holds the free slots of each backend that may get work now; backends not in it get none."""
        self._fleet = fleet
        self._pool = pool
        self._free = dict(free)
        self._set_aside: dict[BackendId, LedgerId] = {}

    @property
    def has_room(self) -> bool:
        return any(slots > 0 and backend not in self._set_aside for backend, slots in self._free.items())

    def place(self, request: Request) -> BackendId | None:
        """The backend to start it on, or None, after which one may be set aside for it."""
        wide_enough = [
            backend.id
            for backend in self._fleet.serving(self._pool, request.model)
            if backend.id in self._free
            and backend.id not in request.excluded
            and backend.slots >= request.width
            and self._set_aside.get(backend.id, request.ledger_id) == request.ledger_id
        ]
        if not wide_enough:
            return None
        best = max(wide_enough, key=self._free.__getitem__)
        if self._free[best] >= request.width:
            return best
        if self._free[best] > 0:
            self._set_aside[best] = request.ledger_id
        return None

    def take(self, backend: BackendId, slots: int) -> None:
        """A request was placed there."""
        self._free[backend] -= slots

    def close(self, backend: BackendId) -> None:
        """Nothing more goes there in this round."""
        self._free[backend] = 0
