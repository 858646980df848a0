"""Whose line goes next, of all users who have batches."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque


class Turns:
    """So many lines are under way at once in all. A place that becomes free goes to the user who has the fewest; between
    two, to the one who has waited longer."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, user_id: str) -> None:
        """Waits for a turn, which is to be given back."""
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user_id, deque()).append(place)
        self._grant()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give_back(user_id)
            raise

    def give_back(self, user_id: str) -> None:
        self._free += 1
        self._held[user_id] -= 1
        if not self._held[user_id]:
            del self._held[user_id]
        self._grant()

    def _grant(self) -> None:
        while self._free and (user_id := self._next()) is not None:
            place = self._waiting[user_id].popleft()
            # To the end of the row: who has just had a turn has waited less than all others.
            self._waiting.move_to_end(user_id)
            self._free -= 1
            self._held[user_id] += 1
            place.set_result(None)

    def _next(self) -> str | None:
        for user_id, places in list(self._waiting.items()):
            while places and places[0].done():  # whoever waited has gone
                places.popleft()
            if not places:
                del self._waiting[user_id]
        return min(self._waiting, key=lambda user_id: self._held[user_id], default=None)
