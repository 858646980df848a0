"""Which backends get nothing now, and why: unwell, switched off, draining, resting after failures. Pure."""

from __future__ import annotations

import heapq

from forebay_scheduler.backend import Drain
from forebay_scheduler.breaker import Breaker
from forebay_scheduler.placing.station import Station
from forebay_scheduler.placing.stations import Stations
from forebay_scheduler.request import BackendId, LedgerId

UNWELL = "it is not healthy"
OFF = "it is switched off"
DRAINING = "it is draining"
RESTING = "it rests after failures, or because it asked for a pause"


class Closures:
    def __init__(self, stations: Stations, breaker: Breaker) -> None:
        self._stations = stations
        self._breaker = breaker
        self._reopen: list[tuple[float, BackendId]] = []
        self.drains: dict[BackendId, float | None] = {}
        """When each is to be empty that was drained here, and not by the registry; None: whenever it is."""
        self.ordered: dict[BackendId, Drain] = {}
        """Those that drain by the registry's word."""

    def review(self, station: Station, now: float) -> bool:
        """Sets whether it is closed. True when it has just been opened."""
        facts = station.facts
        if facts.drain is not None:
            self.ordered[facts.id] = facts.drain
        else:
            self.ordered.pop(facts.id, None)
        because: str | None = None
        if not facts.healthy:
            because = UNWELL
        elif not facts.enabled:
            because = OFF
        elif facts.id in self.drains or facts.drain is not None:
            because = DRAINING
        elif not self._breaker.allows(facts.id, now):
            because = RESTING
            heapq.heappush(self._reopen, (self._breaker.rests_until(facts.id), facts.id))
        was_closed = station.closed is not None
        if because != station.closed:
            self._stations.set_closed(station, because)
        return was_closed and because is None

    def keep_only(self, backends: set[BackendId]) -> None:
        """The others have left the fleet."""
        self._breaker.keep_only(backends)
        for gone in self.ordered.keys() - backends:
            del self.ordered[gone]

    def is_draining(self, backend: BackendId) -> bool:
        return backend in self.drains or backend in self.ordered

    def due(self, now: float) -> dict[BackendId, bool]:
        """The backends that should be empty by now, and whether what runs there is ended."""
        late = {backend: False for backend, until in self.drains.items() if until is not None and now >= until}
        ordered = self.ordered.items()
        return late | {b: d.is_forced for b, d in ordered if d.deadline is not None and now >= d.deadline}

    def reset(self, backend: BackendId) -> None:
        self._breaker.reset(backend)

    def wake(self, now: float) -> list[Station]:
        """Those whose rest is over."""
        opened = []
        while self._reopen and self._reopen[0][0] <= now:
            station = self._stations.get(heapq.heappop(self._reopen)[1])
            if station is not None and station.closed is not None and self.review(station, now):
                opened.append(station)
        return opened

    # -- what happened there ------------------------------------------------------------------------------------------

    def note_grant(self, station: Station, ledger_id: LedgerId, now: float) -> None:
        if self._breaker.note_grant(station.id, ledger_id):
            self.review(station, now)

    def note_success(self, station: Station, ledger_id: LedgerId, now: float) -> bool:
        """True when it was on trial and is open again."""
        if not self._breaker.is_watched(station.id):
            return False
        self._breaker.note_success(station.id, ledger_id)
        return self.review(station, now)

    def note_end(self, station: Station, ledger_id: LedgerId, now: float) -> bool:
        if not self._breaker.is_watched(station.id):
            return False
        self._breaker.note_end(station.id, ledger_id)
        return self.review(station, now)

    def note_failure(self, station: Station, ledger_id: LedgerId, now: float) -> None:
        self._breaker.note_failure(station.id, ledger_id, now)
        self.review(station, now)

    def pause(self, station: Station, seconds: float, now: float) -> None:
        self._breaker.pause(station.id, seconds, now)
        self.review(station, now)
