"""Whose request begins next while no scheduler leads, and where. Pure.

Users take turns, a user's own requests go in the order in which they came, and the backend with the most room gets the
request. It knows nothing of shares, costs and caches: it bridges seconds, and what it begins stays within the ceilings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from forebay_gateway.slots.asking import Ask

_MOST_USERS = 64
"""So many users are looked at for a slot that none of them can use; the others' turn comes with the next look."""
_MOST_OF_A_USER = 8
"""So far one of a user's requests is passed by when it cannot begin, such as one whose key is limited."""

Room = Callable[[str, str], Iterable[tuple[str, int]]]
"""(pool, model) → backends that may take its requests, and the slots free on each."""


class LocalTurns:
    """The waiting requests of a gateway without a leader."""

    def __init__(self, is_waiting: Callable[[Ask], bool]) -> None:
        """`is_waiting`: not given up, refused or begun in the meantime."""
        self._is_waiting = is_waiting
        self._lines: dict[tuple[str, str], _Line] = {}

    def add(self, ask: Ask, *, first: bool = False) -> None:
        """It waits, behind its user's others; `first`: before them, since it had begun already."""
        place = (ask.pool, ask.model)
        line = self._lines.get(place)
        if line is None:
            line = self._lines[place] = _Line()
        line.add(ask, first)

    def starts(self, room: Room, may_start: Callable[[Ask, str], bool]) -> Iterator[tuple[Ask, str]]:
        """Requests to begin now, each with its backend. Whoever takes one takes its slots before asking for the next.
        `may_start` is asked last of all, and what it allows is begun."""
        for place, line in list(self._lines.items()):
            looked_at = 0
            while line.users and looked_at < _MOST_USERS:
                free = sorted(((slots, backend) for backend, slots in room(*place) if slots > 0), reverse=True)
                if not free:
                    break
                found = line.next_of_first(free, self._is_waiting, may_start)
                if found is None:
                    looked_at += 1
                else:
                    looked_at = 0
                    yield found
                if looked_at >= len(line.users):
                    break
            if not line.users:
                del self._lines[place]


class _Line:
    """The waiting requests for one model, by user."""

    __slots__ = ("users",)

    def __init__(self) -> None:
        self.users: dict[str, deque[Ask]] = {}

    def add(self, ask: Ask, first: bool) -> None:
        asks = self.users.get(ask.user_id)
        if asks is None:
            asks = self.users[ask.user_id] = deque()
        if first:
            asks.appendleft(ask)
        else:
            asks.append(ask)

    def next_of_first(
        self,
        free: list[tuple[int, str]],
        is_waiting: Callable[[Ask], bool],
        may_start: Callable[[Ask, str], bool],
    ) -> tuple[Ask, str] | None:
        """The user whose turn it is goes to the end, whether one of his requests can begin or not."""
        user_id, asks = next(iter(self.users.items()))
        del self.users[user_id]
        found = None
        passed: list[Ask] = []
        while asks and found is None and len(passed) < _MOST_OF_A_USER:
            ask = asks.popleft()
            if not is_waiting(ask):
                continue
            backend = next((b for slots, b in free if slots >= ask.width and may_start(ask, b)), None)
            if backend is None:
                passed.append(ask)
            else:
                found = ask, backend
        asks.extendleft(reversed(passed))
        if asks:
            self.users[user_id] = asks
        return found
