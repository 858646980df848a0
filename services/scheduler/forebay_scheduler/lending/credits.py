"""Slots lent ahead: for a moment a gateway begins requests on them without asking. Pure.

A credit is for one model on one backend: so many slots at once, and so many names of leases. All of its slots count as held
from the moment in which it is lent, inside the gateway's ceiling, whether something runs on them or not. A request that is
begun on it is held within them; when it settles they can be used again; when the credit is over first, the request keeps its
own slots until it settles.

A credit is valid from the moment in which the gateway sent the heartbeat that was answered with it. We know only when that
arrived, and what was begun in the last valid moment may not have been told yet. So time alone frees nothing:

    over when   the gateway returns it (all that was begun on it has been told before), or
                its process says Hello again (which names all that it holds, and ends the credits of earlier sessions), or
                its process is proven dead (what it may run is then kept by its ceilings)

An id is never used again: a gateway that has returned a credit ignores a renewal of it that was on its way.

Whether slots are free is the caller's to know: each answer says how many to take or to give back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from forebay_scheduler.decisions import CreditLent
from forebay_scheduler.request import BackendId, LedgerId, PoolName, Process, SessionId


class Began(StrEnum):
    WITHIN = "within"
    """On slots that are held already."""
    BEYOND = "beyond"
    """Not covered: the credit is over or full, or the lease is used or not one of its names. It runs, so it is held too."""
    AGAIN = "again"
    """Told before: nothing changes."""


@dataclass(frozen=True, slots=True)
class Freed:
    """Slots to give back."""

    process: Process
    backend: BackendId
    model: str
    slots: int


@dataclass(frozen=True, slots=True)
class Target:
    """What a credit is for."""

    process: Process
    pool: PoolName
    model: str
    backend: BackendId


@dataclass(slots=True)
class Credit:
    id: int
    target: Target
    session: SessionId | None
    """None when its session is over: it cannot be renewed or recalled, and still counts."""
    slots: int
    names: list[range]
    """Of leases: the newest last, with those before it until something is begun under the newest."""
    running: dict[LedgerId, int] = field(default_factory=dict)
    begun: dict[int, LedgerId] = field(default_factory=dict)
    """By lease, of the names above."""
    inside: int = 0
    """Slots of what runs."""
    most_inside: int = 0
    """Since it was last renewed."""
    is_used: bool = True
    unused_beats: int = 0
    recalled_at: float | None = None


class Credits:
    def __init__(
        self,
        new_leases: Callable[[int], int],
        *,
        is_on: bool,
        valid_s: float = 1.0,
        recall_wait_s: float = 0.05,
        most_at_first: int = 8,
        leases_for_slot: int = 64,
        unused_beats: int = 3,
    ) -> None:
        """`new_leases` sets so many lease numbers aside and returns the first."""
        self._new_leases = new_leases
        self._is_on = is_on
        self._valid_s = min(1.0, valid_s)
        self._recall_wait_s = recall_wait_s
        self._most_at_first = most_at_first
        self._leases_for_slot = leases_for_slot
        self._unused_beats = unused_beats
        self._credits: dict[int, Credit] = {}
        self._by_target: dict[Target, Credit] = {}
        """Those that can be renewed."""
        self._within: dict[tuple[Process, LedgerId], Credit | None] = {}
        """What was begun and runs: on which credit, or None when it holds slots of its own."""
        self._recalled: dict[int, Credit] = {}
        self._last_id = 0

    def __iter__(self) -> Iterator[Credit]:
        return iter(self._credits.values())

    def lent_on(self, backend: BackendId) -> int:
        """Slots that are out on credit there."""
        return sum(credit.slots for credit in self if credit.target.backend == backend)

    def lent_to(self, process: Process, backend: BackendId) -> int:
        """Those of them that are out to that process."""
        return sum(c.slots for c in self if c.target.process == process and c.target.backend == backend)

    # -- lending --------------------------------------------------------------------------------------------------------

    def lend(
        self,
        target: Target,
        session: SessionId,
        beat_seq: int,
        *,
        free: int,
        has_backlog: bool,
        is_only_backend: bool,
        asked: int = 0,
    ) -> tuple[CreditLent, int] | None:
        """Answer a heartbeat: lend anew, or renew what was lent. Returns what is told and how many more slots to take now.

        `free` is what can be taken on that backend by that process, its ceiling included; `asked` are slots that it holds
        there because it asked: with a credit of so many more it need not have. None: nothing is lent, and what was lent
        runs out, because somebody waits, other backends would have to be weighed, or nobody used it."""
        credit = self._by_target.get(target)
        if not self._is_on or has_backlog or not is_only_backend:
            return None
        if credit is None:
            slots = min((free + 1) // 2, max(asked, self._most_at_first))
            if slots <= 0:
                return None
            self._last_id += 1
            credit = Credit(self._last_id, target, session, slots, [self._names(slots)])
            self._credits[credit.id] = self._by_target[target] = credit
            return self._told(credit, session, beat_seq), slots
        if credit.session != session or credit.recalled_at is not None or not self._is_worth_renewing(credit):
            return None
        more = min(max(0, free), max(asked, credit.slots)) if credit.most_inside >= credit.slots else 0
        credit.slots += more
        credit.is_used, credit.most_inside = False, credit.inside
        newest = credit.names[-1]
        if more or 2 * sum(lease in newest for lease in credit.begun) >= len(newest):
            credit.names.append(self._names(credit.slots))
        return self._told(credit, session, beat_seq), more

    def _is_worth_renewing(self, credit: Credit) -> bool:
        """It never shrinks while it is out, since the gateway may be using all of it: one grown too large runs out
        instead, and the next starts small."""
        is_too_large = credit.slots > self._most_at_first and credit.slots > 4 * credit.most_inside
        is_busy = (credit.is_used or credit.inside > 0) and not is_too_large
        credit.unused_beats = 0 if is_busy else credit.unused_beats + 1
        return credit.unused_beats < self._unused_beats

    def _names(self, slots: int) -> range:
        count = slots * self._leases_for_slot
        first = self._new_leases(count)
        return range(first, first + count)

    def _told(self, credit: Credit, session: SessionId, beat_seq: int, *, is_recall: bool = False) -> CreditLent:
        names = credit.names[-1]
        return CreditLent(
            session,
            credit.id,
            credit.target.backend,
            credit.target.pool,
            credit.target.model,
            credit.slots,
            0.0 if is_recall else self._valid_s,
            beat_seq,
            names.start,
            len(names),
            is_recall,
        )

    # -- taking back ----------------------------------------------------------------------------------------------------

    def recall(self, pool: PoolName, now: float) -> list[CreditLent]:
        """Somebody waits in that pool: ask all of it back, each once. It counts as held until it is returned."""
        told: list[CreditLent] = []
        for credit in list(self._by_target.values()):
            if credit.target.pool != pool or credit.session is None or credit.recalled_at is not None:
                continue
            credit.recalled_at = now
            self._recalled[credit.id] = credit
            told.append(self._told(credit, credit.session, 0, is_recall=True))
        return told

    def recalling_until(self, pool: PoolName, now: float) -> float | None:
        """Until then nobody is to be refused there for want of a slot: some may come back. None: there is nothing to
        wait for."""
        until = None
        for credit in self._recalled.values():
            if credit.target.pool != pool or credit.session is None or credit.recalled_at is None:
                continue
            back_by = credit.recalled_at + self._recall_wait_s
            if back_by > now and (until is None or back_by > until):
                until = back_by
        return until

    def returned(self, process: Process, credit_id: int) -> Freed | None:
        """Nothing more is begun on it. What runs keeps its slots until it settles. Twice is once."""
        credit = self._credits.get(credit_id)
        if credit is None or credit.target.process != process:
            return None
        return self._end(credit)

    def lose(self, process: Process) -> None:
        """Its session is over: it may go on using what it was lent until that is no longer valid."""
        for credit in self._of(process):
            credit.session = None
            self._by_target.pop(credit.target, None)
            self._recalled.pop(credit.id, None)

    def forget(self, process: Process) -> list[Freed]:
        """It says Hello again, is proven dead or has left: its credits are over and what was begun on them is told of, and
        accounted for, by other ways. Returns all that they held, what runs on them included."""
        freed = [
            Freed(process, credit.target.backend, credit.target.model, credit.slots) for credit in self._of(process)
        ]
        for credit in self._of(process):
            self._end(credit)
        for key in [key for key in self._within if key[0] == process]:
            del self._within[key]
        return freed

    def _of(self, process: Process) -> list[Credit]:
        return [credit for credit in self if credit.target.process == process]

    def _end(self, credit: Credit) -> Freed:
        del self._credits[credit.id]
        self._recalled.pop(credit.id, None)
        if self._by_target.get(credit.target) is credit:
            del self._by_target[credit.target]
        for ledger_id in credit.running:
            self._within[credit.target.process, ledger_id] = None
        return Freed(
            credit.target.process, credit.target.backend, credit.target.model, max(0, credit.slots - credit.inside)
        )

    # -- what runs on them ----------------------------------------------------------------------------------------------

    def started(self, process: Process, credit_id: int, lease_seq: int, ledger_id: LedgerId, slots: int) -> Began:
        """A request of this width was begun. Beyond: the caller takes its slots, and it is held like any other.

        Whatever the credit says, it runs: so it is counted. After `Began.BEYOND` its lease is the caller's to name if
        that number is not its own."""
        key = process, ledger_id
        if key in self._within:
            return Began.AGAIN
        credit = self._credits.get(credit_id)
        if credit is None or credit.target.process != process:
            self._within[key] = None
            return Began.BEYOND
        credit.is_used = True
        if lease_seq in credit.begun and credit.begun[lease_seq] == ledger_id:
            return Began.AGAIN  # and it has settled since
        is_named = any(lease_seq in names for names in credit.names) and lease_seq not in credit.begun
        if is_named:
            self._note_name(credit, lease_seq, ledger_id)
        if not is_named or credit.inside + slots > credit.slots:
            credit.most_inside = credit.slots
            self._within[key] = None
            return Began.BEYOND
        self._within[key] = credit
        credit.running[ledger_id] = slots
        credit.inside += slots
        credit.most_inside = max(credit.most_inside, credit.inside)
        return Began.WITHIN

    def _note_name(self, credit: Credit, lease_seq: int, ledger_id: LedgerId) -> None:
        credit.begun[lease_seq] = ledger_id
        newest = credit.names[-1]
        if len(credit.names) > 1 and lease_seq in newest:
            # It is told in the order in which it was begun: nothing comes under the older names any more.
            credit.names = [newest]
            credit.begun = {lease: begun for lease, begun in credit.begun.items() if lease in newest}

    def settled(self, process: Process, ledger_id: LedgerId, slots: int) -> int:
        """It is over; returns how many slots to give back: none while its credit stands, which can use them again.

        Also right for a request that was never begun on a credit."""
        credit = self._within.pop((process, ledger_id), None)
        if credit is None:
            return slots
        credit.inside -= credit.running.pop(ledger_id)
        return 0
