"""Which slots are in use, and which may be given to whom right now: the backends, what runs there, what is closed, the
ceilings of gateways, and what is lent to them. Pure.

A slot is given when four agree: the backend has it, nothing closes the backend, nobody out of reach may be using it, and its
gateway's ceiling has room. Where only the last is missing the grant keeps the slot and waits for the ceiling."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from forebay_scheduler.backend import Backend
from forebay_scheduler.breaker import Breaker
from forebay_scheduler.closures import Closures
from forebay_scheduler.events import DrainAsked
from forebay_scheduler.gateways import Gateway
from forebay_scheduler.holds import Held, Holds
from forebay_scheduler.lending.ceilings import Ceilings, Wanted
from forebay_scheduler.lending.credits import Began
from forebay_scheduler.lending.lender import Lender
from forebay_scheduler.limits.limits import LimitBook
from forebay_scheduler.lines import Line
from forebay_scheduler.placing.choices import Choice
from forebay_scheduler.placing.station import Station
from forebay_scheduler.placing.stations import Stations
from forebay_scheduler.request import NOTHING_USED, BackendId, PoolName, Process, Request, Used
from forebay_scheduler.rules import Rules

_CEILING_S = 0.5
"""How long a grant waits for its gateway's ceiling to be raised. It takes one round trip and one write."""
_SHORT_S = 2.0
"""How long a gateway gets nothing on a backend where its ceiling could not be raised, unless something changes there."""


class Slots:
    def __init__(
        self,
        rules: Rules,
        limits: LimitBook,
        *,
        line_of: Callable[[PoolName], Line],
        silent_s: Callable[[Process], float],
        new_leases: Callable[[int], int],
    ) -> None:
        self.stations = Stations()
        self.holds = Holds()
        self.closures = Closures(self.stations, Breaker(rules.breaker_failures, rules.breaker_rest_s))
        self.ceilings = Ceilings(silent_s=silent_s, heard_within_s=rules.heard_within_s)
        self.lender = Lender(self.stations, self.ceilings, limits, new_leases, is_on=rules.are_credits_lent)
        self.is_fleet_known = False
        """Till then everything waits."""
        self.roomy: dict[Station, None] = {}
        """Where something may have become free, in order."""
        self._line_of = line_of
        self._coming: defaultdict[tuple[Process, BackendId], list[Held]] = defaultdict(list)
        """Grants that wait for their gateway's ceiling to be raised."""
        self.short: dict[tuple[Process, BackendId], float] = {}
        """Where a gateway's ceiling is in the way and cannot be raised for now, and until when that is believed."""
        self._out_of_reach: Mapping[BackendId, int] = {}

    # -- giving and taking back ---------------------------------------------------------------------------------------

    def place(self, line: Line, request: Request, gateway: Gateway, tokens: int, now: float) -> Choice | None:
        """Where it could start now. `tokens`: of its prompt and its expected answer."""
        if gateway.session is None or gateway.is_silent:
            return None
        process, width = gateway.process, request.width
        while True:
            allowed = None
            if self.short:

                def allowed(station: Station) -> bool:
                    return (process, station.id) not in self.short

            choice = line.placement.choose(request, now, allowed, tokens)
            if choice is None:
                return None
            backend = choice.station.id
            if self._has_room(process, backend, width):
                return choice
            coming = sum(held.slots for held in self._coming.get((process, backend), ()))
            if self.ceilings.want(process, backend, coming + width) is not Wanted.IMPOSSIBLE:
                return choice
            self.short[process, backend] = now + _SHORT_S

    def _has_room(self, process: Process, backend: BackendId, width: int) -> bool:
        # Those that wait for a ceiling already come first.
        is_first = not self._coming or (process, backend) not in self._coming
        return is_first and self.ceilings.room(process, backend) >= width

    def is_short(self, process: Process) -> bool:
        """Its ceilings are in the way somewhere."""
        return bool(self.short) and any(short == process for short, _ in self.short)

    def take(self, line: Line, held: Held, choice: Choice, now: float) -> bool:
        """It starts where it was placed. False when its gateway may be told only once its ceiling is raised."""
        request, station = held.request, choice.station
        self.holds.take(held)
        self.stations.take(station, request.model, request.width, held.tokens, now)
        line.placement.note_grant(station, request, choice, now)
        self.closures.note_grant(station, request.ledger_id, now)
        if self._has_room(held.process, station.id, request.width):
            self.ceilings.take(held.process, station.id, request.width)
            return True
        held.is_told = False
        self._coming[held.process, station.id].append(held)
        return False

    def adopt(self, held: Held, now: float) -> None:
        """It runs already, by the word of its gateway, whose ceilings count it."""
        self.holds.take(held)
        station = self.stations.get(held.backend)
        if station is not None:
            self._occupy(held, station, now)
        self.review_aside(held.backend)

    def _occupy(self, held: Held, station: Station, now: float) -> None:
        held.station = station
        self.stations.take(station, held.request.model, held.slots, held.tokens, now)
        self._line_of(held.request.pool).placement.note_grant(station, held.request, None, now)

    def give_back(self, line: Line, held: Held, now: float, used: Used = NOTHING_USED, *, is_success: bool) -> None:
        """The grant is over."""
        self.holds.give_back(held)
        request, slots = held.request, held.slots
        left = slots
        if held.is_told:
            left = self.lender.settled(held.process, request.ledger_id, held.backend, slots)
            if left:
                self.ceilings.give_back(held.process, held.backend, left)
                if self.short:
                    self.short.pop((held.process, held.backend), None)
        else:
            waiting = self._coming[held.process, held.backend]
            waiting.remove(held)
            if not waiting:
                del self._coming[held.process, held.backend]
        station = held.station
        if station is not None:
            self.stations.give_back(station, request.model, slots, held.tokens, now)
            line.placement.note_end(station, request, used, now, is_success)
            self.closures.note_end(station, request.ledger_id, now)
            self.roomy[station] = None
            if left < slots:
                self.review_aside(held.backend)

    def note_success(self, held: Held, now: float) -> None:
        """Its backend did its part."""
        if held.station is not None and self.closures.note_success(held.station, held.request.ledger_id, now):
            self.roomy[held.station] = None

    def let_go(self, request: Request) -> None:
        """No backend needs to be kept for it any more."""
        kept = self.stations.kept_for(request)
        if kept is not None:
            self.stations.let_go(kept)
            self.roomy[kept] = None

    # -- ceilings, and what is lent within them -----------------------------------------------------------------------

    def raised(self) -> Iterator[Held]:
        """Some ceilings were raised, or somebody may be asked again: the grants that go out now."""
        self.short.clear()
        for (process, backend), waiting in list(self._coming.items()):
            while waiting and self.ceilings.room(process, backend) >= waiting[0].slots:
                held = waiting.pop(0)
                held.is_told = True
                self.ceilings.take(process, backend, held.slots)
                yield held
            if not waiting:
                del self._coming[process, backend]

    def given_up(self, now: float) -> list[Held]:
        """Grants that have waited too long for a ceiling: they are to be taken back."""
        late = [held for waiting in self._coming.values() for held in waiting if now - held.since >= _CEILING_S]
        for held in late:
            self.short[held.process, held.backend] = now + _SHORT_S
        return late

    def begin_on_credit(
        self, process: Process, credit: int, lease_seq: int, request: Request, told: BackendId
    ) -> Began:
        """`told`: where it runs, by its gateway, should the credit not be known any more."""
        backend = self.lender.backend_of(process, credit) or told
        began = self.lender.started(process, credit, lease_seq, request.ledger_id, request.width)
        if began is Began.BEYOND:
            self.ceilings.take(process, backend, request.width)
        return began

    def credit_returned(self, process: Process, credit: int) -> bool:
        """True when slots are free again."""
        backend = self.lender.returned(process, credit)
        if backend is not None:
            self.review_aside(backend)
        return backend is not None

    def end_lending(self, process: Process, now: float) -> None:
        for backend in self.lender.forget(process, now):
            self.review_aside(backend)

    def set_out_of_reach(self, slots: Mapping[BackendId, int]) -> None:
        """What gateways out of reach may begin by themselves, and what dead ones may still run, by backend."""
        self._out_of_reach = slots
        for station in self.stations:
            self.review_aside(station.id)

    def out_of_reach_on(self, backend: BackendId) -> int:
        """What gateways out of reach may run there, beyond what this leader knows of."""
        return max(0, self._out_of_reach.get(backend, 0))

    def review_aside(self, backend: BackendId) -> None:
        """What nobody may be given there may have changed."""
        station = self.stations.get(backend)
        if station is None:
            return
        slots = self.out_of_reach_on(backend) + self.lender.unused_on(backend)
        if slots != station.aside and self.stations.set_aside(station, slots):
            self.roomy[station] = None

    # -- the fleet ----------------------------------------------------------------------------------------------------

    def change_fleet(self, backends: Iterable[Backend], now: float) -> None:
        was_well = {station.id: station.facts.healthy for station in self.stations}
        for station in self.stations.change(backends, now):
            self.roomy[station] = None
        if not self.is_fleet_known:
            self.is_fleet_known = True
            for held in self.holds:
                if held.station is None and (found := self.stations.get(held.backend)) is not None:
                    self._occupy(held, found, now)
        self.closures.keep_only({station.id for station in self.stations})
        for station in self.stations:
            if station.facts.healthy and not was_well.get(station.id, True):
                self.closures.reset(station.id)  # a probe found it well again
            if self.closures.review(station, now):
                self.roomy[station] = None
        self.ceilings.set_caps(
            {station.id: station.facts.slots for station in self.stations},
            {station.id: station.facts.pool for station in self.stations},
        )
        self.short.clear()

    def report(self, backends: Iterable[Backend], now: float) -> None:
        """What they are is as it was; how they are is new."""
        for facts in backends:
            known = self.stations.get(facts.id)
            was_well = known is None or known.facts.healthy
            station = self.stations.report(facts, now)
            if known is None:
                continue
            if facts.healthy and not was_well:
                self.closures.reset(facts.id)  # a probe found it well again
            if self.closures.review(known, now) or station is not None:
                self.roomy[known] = None

    def facts_of(self, backend: BackendId) -> Backend | None:
        station = self.stations.get(backend)
        return None if station is None else station.facts

    def drain(self, asked: DrainAsked, now: float) -> None:
        if asked.is_undone:
            self.closures.drains.pop(asked.backend, None)
        else:
            self.closures.drains[asked.backend] = None if asked.deadline_s is None else now + asked.deadline_s
        station = self.stations.get(asked.backend)
        if station is not None and self.closures.review(station, now):
            self.roomy[station] = None

    def overdue(self, now: float) -> list[tuple[Held, bool]]:
        """What runs on backends that should be empty by now: what has no first token yet, and everything (True) where it is
        ended."""
        late = self.closures.due(now)
        if not late:
            return []
        held_there = [(held, late[held.backend]) for held in self.holds if held.backend in late]
        return [(held, is_forced) for held, is_forced in held_there if is_forced or held.first_token_at is None]

    def let_time_pass(self, now: float) -> None:
        for station in (*self.stations.wake(now), *self.closures.wake(now)):
            self.roomy[station] = None
        if self.short:
            self.short = {place: until for place, until in self.short.items() if until > now}
