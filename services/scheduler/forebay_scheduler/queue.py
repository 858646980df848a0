"""Whose request goes next. Pure; where it goes is placement's job.

`Queue` is the seam: a fairer discipline replaces `TurnQueue` and nothing else changes.

`TurnQueue` serves users in turn: whoever was served goes to the back of the line, whoever is new joins at the back. Of one
user's requests for one model, the oldest goes first; his requests for another model do not wait behind them.

Head of the line: a request that cannot start blocks what its own user sent after it for the same model (a wide request is
not overtaken by its owner's narrow ones), and never another user. The one exception is a request that some backend has
failed: those behind it may use that backend, which it cannot. What keeps a wide head from starving is in placement."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Protocol

from forebay_scheduler.request import BackendId, LedgerId, Request, UserId

Place = Callable[[Request], BackendId | None]
"""Says where a request could start right now; None when nowhere."""


class Queue(Protocol):
    """The waiting requests of one pool, in the order in which they should start."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Request]: ...

    def push(self, request: Request) -> None:
        """Let it wait, at the place that its arrival gives it among its user's requests."""

    def restore(self, request: Request) -> None:
        """Its grant was in vain: it waits at its old place, and its user's turn comes again next."""

    def pop(self, place: Place) -> tuple[Request, BackendId] | None:
        """Take out the first request, in order, that can start now. None when none can."""

    def remove(self, ledger_id: LedgerId) -> bool:
        """Take this one out, wherever it waits. False when it does not."""

    def waiting_of(self, user: UserId) -> int:
        """How many of this user's requests wait."""


class TurnQueue:
    """First in, first out within a user; users in turn."""

    def __init__(self) -> None:
        self._users: OrderedDict[UserId, dict[str, deque[Request]]] = OrderedDict()
        self._where: dict[LedgerId, tuple[UserId, str]] = {}

    def __len__(self) -> int:
        return len(self._where)

    def __iter__(self) -> Iterator[Request]:
        for models in self._users.values():
            for line in models.values():
                yield from line

    def push(self, request: Request) -> None:
        line = self._line_of(request)
        at = len(line)
        while at and line[at - 1].arrived_at > request.arrived_at:
            at -= 1
        line.insert(at, request)

    def restore(self, request: Request) -> None:
        line = self._line_of(request)
        at = 0
        while at < len(line) and line[at].arrived_at < request.arrived_at:
            at += 1
        line.insert(at, request)  # before those of the same moment: it was taken out before them
        self._users.move_to_end(request.user, last=False)

    def pop(self, place: Place) -> tuple[Request, BackendId] | None:
        for user, models in self._users.items():
            for request in self._startable(models):
                backend = place(request)
                if backend is None:
                    continue
                self._users.move_to_end(user)
                self.remove(request.ledger_id)
                return request, backend
        return None

    def remove(self, ledger_id: LedgerId) -> bool:
        where = self._where.pop(ledger_id, None)
        if where is None:
            return False
        user, model = where
        models = self._users[user]
        line = models[model]
        if line[0].ledger_id == ledger_id:
            line.popleft()
        else:
            models[model] = line = deque(request for request in line if request.ledger_id != ledger_id)
        if not line:
            del models[model]
        if not models:
            del self._users[user]
        return True

    def waiting_of(self, user: UserId) -> int:
        return sum(len(line) for line in self._users.get(user, {}).values())

    def _line_of(self, request: Request) -> deque[Request]:
        self._where[request.ledger_id] = request.user, request.model
        return self._users.setdefault(request.user, {}).setdefault(request.model, deque())

    @staticmethod
    def _startable(models: dict[str, deque[Request]]) -> Iterator[Request]:
        """The head of each of a user's lines, the oldest first, and what may pass a head that a backend has failed."""
        for line in sorted(models.values(), key=lambda line: line[0].arrived_at):
            for request in line:
                yield request
                if not request.excluded:
                    break
