"""Each end of a request counts once, whoever leads: which were taken in, which of them are stored, which are told. Pure.

A gateway tells an end until it hears that a stored state holds it, perhaps to several leaders. The ids of those that may be
told again are part of the state, so that a leader who starts from it does not count them a second time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from forebay_scheduler.request import LedgerId, Process

_MOST_UNTOLD = 100_000
"""Of those that nobody will ever ack, the oldest are forgotten: their gateways have been gone for long."""


class Settlements:
    def __init__(self, recovered: Iterable[LedgerId] = ()) -> None:
        """`recovered`: those that the state which this leader starts from holds already."""
        self._number_of: dict[LedgerId, int] = dict.fromkeys(recovered, 0)
        """The first state to hold it."""
        self._tellers: dict[LedgerId, Process] = {}
        self._untold: deque[LedgerId] = deque(self._number_of)
        """Those of which no gateway may ever tell: of dead ones, and of gateways that spoke to a leader before."""
        self._being_made = 1
        """The number of the next state to be made."""
        self._stored = 0

    def __contains__(self, ledger_id: LedgerId) -> bool:
        return ledger_id in self._number_of

    def __len__(self) -> int:
        return len(self._number_of)

    def note(self, ledger_id: LedgerId, process: Process | None) -> None:
        """Taken in just now. None: nobody waits to hear of it, but somebody might tell it yet."""
        self._number_of[ledger_id] = self._being_made
        if process is not None:
            self._tellers[ledger_id] = process
            return
        self._untold.append(ledger_id)
        if len(self._untold) > _MOST_UNTOLD:
            self._number_of.pop(self._untold.popleft(), None)

    def told_again(self, ledger_id: LedgerId, process: Process) -> bool:
        """True when it is stored already, so that it can be confirmed at once."""
        if self._number_of[ledger_id] <= self._stored:
            return True
        self._tellers[ledger_id] = process
        return False

    def begin_state(self) -> tuple[int, list[LedgerId]]:
        """A state is made in this moment: its number, and the ids for it."""
        number = self._being_made
        self._being_made += 1
        return number, list(self._number_of)

    def stored(self, number: int) -> list[tuple[Process, LedgerId]]:
        """The state with this number is stored: whom to tell of what."""
        self._stored = max(self._stored, number)
        told = [
            (process, ledger_id)
            for ledger_id, process in self._tellers.items()
            if self._number_of[ledger_id] <= self._stored
        ]
        for _, ledger_id in told:
            del self._tellers[ledger_id]
        return told

    def acked(self, ledger_ids: Iterable[LedgerId]) -> None:
        """Its gateway has read that they are stored, and never tells them again."""
        for ledger_id in ledger_ids:
            self._number_of.pop(ledger_id, None)
            self._tellers.pop(ledger_id, None)
