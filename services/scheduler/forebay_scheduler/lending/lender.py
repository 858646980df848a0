"""What gateways are lent with each heartbeat, so that they begin a lone request without asking: slots, and rate and budget
for limited keys. Pure.

Lent are slots for the models that a gateway has asked for lately, on the one backend that can serve them, or, where there
are several, on the roomiest: a gateway uses those for short prompts only, for which a cache is not worth a choice.
Nothing is lent where somebody waits, and all of it is recalled when somebody begins to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from forebay_scheduler.decisions import AllotmentLent, CreditLent
from forebay_scheduler.lending.allotments import Allotment, Allotments
from forebay_scheduler.lending.ceilings import Ceilings
from forebay_scheduler.lending.credits import Began, Credits, Freed, Target
from forebay_scheduler.limits.lent import PLENTY_MONEY
from forebay_scheduler.limits.limits import LimitBook
from forebay_scheduler.placing.station import Serving, Station
from forebay_scheduler.placing.stations import Stations
from forebay_scheduler.request import BackendId, LedgerId, PoolName, Process, Request, SessionId

_LATELY_S = 5.0
"""A model or key that a gateway has not asked for since is not lent for any more."""
_MOST_WISHES = 64
"""Models, and keys, of one gateway that are lent for at once."""

_Wish = tuple[PoolName, str]


class Lender:
    def __init__(
        self,
        stations: Stations,
        ceilings: Ceilings,
        limits: LimitBook,
        new_leases: Callable[[int], int],
        *,
        is_on: bool,
    ) -> None:
        """`new_leases` sets so many lease numbers aside and returns the first."""
        self._stations = stations
        self._ceilings = ceilings
        self._limits = limits
        self._credits = Credits(new_leases, is_on=is_on)
        self._allotments = Allotments(is_on=is_on)
        self._is_on = is_on
        self._wishes: dict[Process, dict[_Wish, float]] = {}
        self._askers: dict[Process, dict[str, tuple[float, Request]]] = {}
        """By key: when each asked last, and with which request."""
        self._limit_ids: dict[int, int] = {}
        """What `limits` calls an allotment."""
        self._unused: dict[BackendId, int] = {}

    def unused_on(self, backend: BackendId) -> int:
        """Slots that are lent there and not used now."""
        return self._unused.get(backend, 0)

    def lent_on(self, backend: BackendId) -> int:
        return self._credits.lent_on(backend)

    def wish(self, process: Process, request: Request, now: float) -> None:
        """It asked, and nobody waits: the next such request could have been begun without."""
        if not self._is_on:
            return
        wishes = self._wishes.get(process)
        if wishes is None:
            wishes = self._wishes[process] = {}
        wishes[request.pool, request.model] = now
        if self._limits.is_limited(request):
            self._askers.setdefault(process, {})[request.key] = now, request

    # -- with each heartbeat ------------------------------------------------------------------------------------------

    def answer(
        self,
        process: Process,
        session: SessionId,
        beat_seq: int,
        now: float,
        has_backlog: Callable[[PoolName], bool],
    ) -> Iterator[CreditLent | AllotmentLent]:
        wishes = self._wishes.get(process)
        if not wishes:
            return
        recent = [(wish, at) for wish, at in wishes.items() if now - at <= _LATELY_S][-_MOST_WISHES:]
        self._wishes[process] = dict(recent)
        is_lent = False
        for (pool, model), _ in recent:
            station = self._best(process, pool, model)
            if station is None:
                continue
            target = Target(process, pool, model, station.id)
            room = min(station.free_slots, self._ceilings.room(process, station.id))
            lent = self._credits.lend(
                target,
                session,
                beat_seq,
                free=max(0, room),
                has_backlog=has_backlog(pool),
                is_only_backend=True,
                asked=self._ceilings.used(process, station.id) - self._credits.lent_to(process, station.id),
            )
            if lent is None:
                continue
            told, more = lent
            if more:
                self._ceilings.take(process, station.id, more)
                self._use(station.id, more)
            is_lent = True
            yield told
        if is_lent:
            yield from self._allot(process, session, beat_seq, now)

    def _best(self, process: Process, pool: PoolName, model: str) -> Station | None:
        """Where it has a credit already, else where most is free."""
        serving: Serving | None = self._stations.serving(pool, model)
        if serving is None:
            return None
        for credit in self._credits:
            target = credit.target
            if (target.process, target.pool, target.model) == (process, pool, model) and credit.session is not None:
                return self._stations.get(target.backend)
        for station in self._stations.in_mask(serving.roomiest()):
            return station
        return None

    def _allot(self, process: Process, session: SessionId, beat_seq: int, now: float) -> Iterator[AllotmentLent]:
        askers = self._askers.get(process, {})
        recent = [(key, asked) for key, asked in askers.items() if now - asked[0] <= _LATELY_S][-_MOST_WISHES:]
        self._askers[process] = dict(recent)
        for _, (_, request) in recent:
            key = request.key
            allotment = self._allotments.renewable(process, session, key)
            if allotment is not None:
                yield self._renew(allotment, session, beat_seq, now)
            elif self._allotments.get(process, key) is None:
                yield from self._lend(process, session, request, beat_seq, now)

    def _renew(self, allotment: Allotment, session: SessionId, beat_seq: int, now: float) -> AllotmentLent:
        more = self._limits.top_up(self._limit_ids[allotment.id], now)
        return self._allotments.renew(
            allotment,
            session,
            beat_seq,
            requests=0 if more is None else more.requests,
            tokens=0 if more is None else more.tokens,
            money_micros=0 if more is None else more.money_micros,
        )

    def _lend(
        self, process: Process, session: SessionId, request: Request, beat_seq: int, now: float
    ) -> Iterator[AllotmentLent]:
        lent = self._limits.lend(request.key, request.user, request.group, now)
        if lent is None:
            return
        if lent.money_micros < PLENTY_MONEY:
            self._limits.take_back(lent.id, now)
            return  # a gateway knows no prices: what is limited by money asks
        told = self._allotments.lend(
            process,
            session,
            request.key,
            requests=lent.requests,
            tokens=lent.tokens,
            money_micros=lent.money_micros,
            beat_seq=beat_seq,
        )
        if told is None:
            self._limits.take_back(lent.id, now)
        else:
            self._limit_ids[told.id] = lent.id
            yield told

    # -- taking back --------------------------------------------------------------------------------------------------

    def recall(self, pool: PoolName, now: float) -> list[CreditLent]:
        """Somebody waits there."""
        return self._credits.recall(pool, now)

    def recalling_until(self, pool: PoolName, now: float) -> float | None:
        return self._credits.recalling_until(pool, now)

    def recall_allotments(self, limit_ids: Iterable[int]) -> list[AllotmentLent]:
        """Somebody would be refused for want of what these hold."""
        wanted = set(limit_ids)
        keys = {one.key for one in self._allotments if self._limit_ids.get(one.id) in wanted}
        return [told for key in sorted(keys) for told in self._allotments.recall(key)]

    def returned(self, process: Process, credit_id: int) -> BackendId | None:
        """Where slots are free again."""
        return self._free(self._credits.returned(process, credit_id), is_dead=False)

    def allotment_returned(self, process: Process, allotment_id: int, now: float) -> None:
        allotment = self._allotments.returned(process, allotment_id)
        if allotment is not None:
            self._limits.take_back(self._limit_ids.pop(allotment.id), now)

    def lose(self, process: Process) -> None:
        """Its session is over: what was lent counts on, until it speaks again or is proven dead."""
        self._credits.lose(process)
        self._allotments.lose(process)
        self._wishes.pop(process, None)
        self._askers.pop(process, None)

    def forget(self, process: Process, now: float) -> list[BackendId]:
        """It says Hello, has left or is proven dead: what it runs is counted elsewhere. Returns where slots are free."""
        for freed in self._credits.forget(process):
            self._ceilings.give_back(process, freed.backend, freed.slots)
        for allotment in self._allotments.forget(process):
            self._limits.take_back(self._limit_ids.pop(allotment.id), now)
        before = self._unused
        self._unused = {}
        for credit in self._credits:
            self._use(credit.target.backend, credit.slots - credit.inside)
        return [backend for backend in before if before[backend] != self.unused_on(backend)]

    def _free(self, freed: Freed | None, *, is_dead: bool) -> BackendId | None:
        if freed is None:
            return None
        self._ceilings.give_back(freed.process, freed.backend, freed.slots)
        self._use(freed.backend, -freed.slots)
        return freed.backend

    # -- what runs on it ----------------------------------------------------------------------------------------------

    def started(self, process: Process, credit_id: int, lease_seq: int, ledger_id: LedgerId, slots: int) -> Began:
        backend = next((credit.target.backend for credit in self._credits if credit.id == credit_id), None)
        began = self._credits.started(process, credit_id, lease_seq, ledger_id, slots)
        if began is Began.WITHIN and backend is not None:
            self._use(backend, -slots)
        return began

    def backend_of(self, process: Process, credit_id: int) -> BackendId | None:
        """Of a credit that stands."""
        return next(
            (one.target.backend for one in self._credits if one.id == credit_id and one.target.process == process), None
        )

    def allotment_of(self, process: Process, request: Request) -> int | None:
        """As `limits` calls it."""
        allotment = self._allotments.get(process, request.key)
        if allotment is None:
            allotment = next(
                (one for one in self._allotments if (one.process, one.key) == (process, request.key)), None
            )
        return None if allotment is None else self._limit_ids.get(allotment.id)

    def settled(self, process: Process, ledger_id: LedgerId, backend: BackendId, slots: int) -> int:
        """Slots to give back: none while the credit that it was begun on stands, which can use them again."""
        left = self._credits.settled(process, ledger_id, slots)
        if left < slots:
            self._use(backend, slots - left)
        return left

    def _use(self, backend: BackendId, slots: int) -> None:
        self._unused[backend] = self._unused.get(backend, 0) + slots
        if not self._unused[backend]:
            del self._unused[backend]
