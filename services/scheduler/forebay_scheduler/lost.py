"""Requests of gateways that are out of reach: written down as lost when their gateway does not come back. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forebay_scheduler.decisions import Orphan
from forebay_scheduler.request import GatewayName, LedgerId, Process


@dataclass(slots=True)
class _Process:
    due_at: float
    orphans: dict[LedgerId, Orphan]
    is_dead: bool = False
    is_published: bool = False


class Lost:
    """By gateway process: what it had when it was lost, and when that is to be given up."""

    def __init__(self) -> None:
        self._processes: dict[Process, _Process] = {}

    def note(self, process: Process, orphans: Iterable[Orphan], due_at: float) -> None:
        """It is out of reach. Of what is noted twice, the first note stands."""
        if process not in self._processes:
            by_id = {orphan.request.ledger_id: orphan for orphan in orphans}
            self._processes[process] = _Process(due_at, by_id)

    def bury(self, process: Process) -> None:
        """It will not come back; its successor may still tell how its requests ended."""
        self._processes[process].is_dead = True

    def found(self, process: Process) -> None:
        """It is back and speaks for its requests."""
        self._processes.pop(process, None)

    def settled(self, gateway: GatewayName, ledger_id: LedgerId) -> None:
        """A later process of this gateway told how that request ended."""
        for (name, _), process in self._processes.items():
            if name == gateway:
                process.orphans.pop(ledger_id, None)

    def give_up(self, now: float) -> list[Orphan]:
        """Those whose time is over; each is given up once."""
        given_up: list[Orphan] = []
        for process in list(self._processes.values()):
            if now >= process.due_at and not process.is_published:
                process.is_published = True
                given_up.extend(process.orphans.values())
        self._processes = {
            key: process for key, process in self._processes.items() if not (process.is_dead and process.is_published)
        }
        return given_up
