"""All backends with their running state: how much each has room for, and which of them have room. Pure.

Capacity is an AND: slots by width, slots of the model, tokens in the engine's cache, prompts it still has to read, requests
a minute, and what the scheduler found out where nobody said. `Serving.free` is kept true as things change, in O(models of
the backend that changed); `fits` is exact for one request. Who holds what, and for how long, is told from outside."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

from forebay_scheduler.backend import Backend, ModelFacts
from forebay_scheduler.placing.adaptive_limit import LATE_S, AdaptiveLimit
from forebay_scheduler.placing.prefill_fit import PrefillFit, usual_prefill
from forebay_scheduler.placing.prefix_index import PrefixIndex
from forebay_scheduler.placing.request_pace import RequestPace
from forebay_scheduler.placing.residency import Residency
from forebay_scheduler.placing.station import TOP_LEVEL, Place, Reading, Serving, Station, stations_in
from forebay_scheduler.request import BackendId, LedgerId, PoolName, Request

KV_SHARE = 0.9
"""Of an engine's cache that is filled on purpose: answers grow longer than expected."""

READ_AT_ONCE = 4
"""Prompts that an engine is given to read before it has answered one, where its limit is being found: or a quarter of what
runs there. More at once would show only afterwards whether it was too much."""
_NOTHING = ModelFacts()


class Stations:
    def __init__(self, prefixes: PrefixIndex | None = None, prefill_budget_s: float = 2.0) -> None:
        """`prefill_budget_s`: a backend with more than this to read gets nothing new, unless it is otherwise idle."""
        self.prefixes = PrefixIndex() if prefixes is None else prefixes
        self.by_index: list[Station | None] = []
        self.prefill_budget_s = prefill_budget_s
        self.fits_in_cache: Callable[[Station, Request], bool] | None = None
        """The word of an engine that says itself what fits, in place of our count of its tokens: the simulator's do."""
        self._by_id: dict[BackendId, Station] = {}
        self._gone: dict[BackendId, Station] = {}
        """No longer in the fleet, and something still runs there."""
        self._serving: dict[tuple[PoolName, str], Serving] = {}
        self._kept: dict[LedgerId, Station] = {}
        self._wakes: list[tuple[float, int, Station]] = []
        self._wake_order = 0
        self._found: dict[tuple[BackendId, str], float] = {}
        self._fits: dict[tuple[BackendId, str], list[float]] = {}
        self._fit_of_model: dict[str, PrefillFit] = {}

    def __iter__(self) -> Iterator[Station]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, backend: BackendId) -> Station | None:
        """None when it is not in the fleet now."""
        return self._by_id.get(backend)

    def find(self, backend: BackendId) -> Station | None:
        """Also one that left the fleet while something runs there."""
        return self._by_id.get(backend) or self._gone.get(backend)

    def serving(self, pool: PoolName, model: str) -> Serving | None:
        return self._serving.get((pool, model))

    def in_mask(self, mask: int) -> Iterator[Station]:
        """The stations whose bits are set, in order of their numbers."""
        return stations_in(mask, self.by_index)

    # --- the fleet ---

    def change(self, backends: Iterable[Backend], now: float) -> list[Station]:
        """This is the whole fleet. What is known stays with the id. The stations that may have room now, in order of id."""
        stay: dict[BackendId, Station] = {}
        opened: list[Station] = []
        for facts in sorted(backends, key=lambda facts: facts.id):
            station = self._by_id.pop(facts.id, None) or self._gone.pop(facts.id, None) or self._enter(facts)
            stay[facts.id] = station
            self._apply(station, facts, now)
        for station in self._by_id.values():
            self._remove(station)
        self._by_id = stay
        self._serving = {at: serving for at, serving in self._serving.items() if serving.stations}
        for serving in self._serving.values():
            serving.widest = max(self.width_limit(station, serving.model) for station in serving.stations)
            serving.has_kv_budgets = any(station.kv_budget is not None for station in serving.stations)
        for station in stay.values():
            self.refresh(station)
            if any(place.is_free or place.is_cold for place in station.place_list):
                opened.append(station)
        return opened

    def report(self, facts: Backend, now: float) -> Station | None:
        """How one of them is now; its shape is as it was. The station, if it may have room now."""
        station = self._by_id.get(facts.id)
        if station is None:
            return None
        self._apply(station, facts, now)
        self.refresh(station)
        return station if any(place.is_free or place.is_cold for place in station.place_list) else None

    def _enter(self, facts: Backend) -> Station:
        index = self.prefixes.enter(facts.kv_tokens)
        station = Station(facts, index)
        while len(self.by_index) <= index:
            self.by_index.append(None)
        self.by_index[index] = station
        return station

    def _apply(self, station: Station, facts: Backend, now: float) -> None:
        was, station.facts = station.facts, facts
        if was.pool != facts.pool or was.slots > facts.slots or was.models != facts.models or was.facts != facts.facts:
            self.let_go(station)  # it may be too small for whom it was kept
        station.is_gone = False
        station.slots = max(1, facts.slots)
        station.has_foreign = bool(facts.waiting) or bool(facts.running)
        if was.kv_tokens != facts.kv_tokens:
            self.prefixes.resize(station.index, facts.kv_tokens)
        station.kv_budget = None if facts.kv_tokens is None else int(KV_SHARE * facts.kv_tokens)
        per_minute = facts.requests_per_minute
        if per_minute is None:
            station.pace, station.is_paced = None, False
        elif station.pace is None or station.pace.per_minute != per_minute:
            station.pace, station.is_paced = RequestPace(per_minute), False
        if facts.models_at_once is None:
            station.residency = None
        elif station.residency is None:
            station.residency = Residency(facts.models_at_once)
        else:
            station.residency.at_once = max(1, facts.models_at_once)
        for model in facts.models:
            self._serve(station, model)
        for model, place in list(station.places.items()):
            if model not in facts.models:
                self._stop_serving(station, place)
        station.place_list = [station.places[model] for model in sorted(facts.models)]
        if station.residency is not None:
            station.residency.learn(facts.facts, facts.measured_at, now)
        self._reside(station)
        if facts.waiting is not None and facts.measured_at > station.measured_at:
            for place in station.place_list:
                if place.limit is not None:
                    place.limit.engine_waits(facts.waiting, now)
        station.measured_at = max(station.measured_at, facts.measured_at)

    def _serve(self, station: Station, model: str) -> None:
        facts = station.facts
        known = facts.facts.get(model, _NOTHING)
        place = station.places.get(model)
        if place is None:
            place = station.places[model] = Place(model, self._fit(station, model))
        place.cap = known.slots
        if not facts.slots_assumed or known.slots is not None:
            place.limit = None
        elif place.limit is None:
            first = 4.0 if facts.models_at_once is None else 1.0
            place.limit = AdaptiveLimit(facts.slots, first, self._found.get((facts.id, model)))
        else:
            place.limit.limit_to(facts.slots)
        serving = self._serving.get((facts.pool, model))
        if serving is None:
            serving = self._serving[facts.pool, model] = Serving(facts.pool, model)
        if place.serving is not serving:
            self._leave_serving(station, place)
            place.serving = serving
            serving.stations.add(station)
            if not place.at_hand:
                serving.absent += 1

    def _stop_serving(self, station: Station, place: Place) -> None:
        self._leave_serving(station, place)
        if not place.used:
            del station.places[place.model]

    def _leave_serving(self, station: Station, place: Place) -> None:
        serving = place.serving
        if serving is None:
            return
        self._show(station, place, serving, 0, has_room=False, is_free=False, is_cold=False)
        if not place.at_hand:
            serving.absent -= 1
        serving.stations.discard(station)
        place.serving = None

    def _remove(self, station: Station) -> None:
        station.is_gone = True
        for place in station.places.values():
            self._leave_serving(station, place)
        station.place_list = []
        if station.kept_for is not None:
            self.let_go(station)
        if station.running or station.used:
            self._gone[station.id] = station
        else:
            self._forget(station)

    def _forget(self, station: Station) -> None:
        self._gone.pop(station.id, None)
        self.by_index[station.index] = None
        self.prefixes.leave(station.index)

    def width_limit(self, station: Station, model: str) -> int:
        """The widest request for this model that could ever start there."""
        most = station.facts.slots
        cap = station.places[model].cap
        return most if cap is None else min(most, cap)

    # --- room ---

    def refresh(self, station: Station) -> bool:
        """Its state changed: show where it has room. True when it has room for a model that it had none for."""
        facts = station.facts
        room = 0
        if (
            station.closed is None
            and facts.healthy
            and facts.enabled
            and station.kept_for is None
            and not station.is_paced
            and (station.kv_budget is None or station.tokens < station.kv_budget or not station.running)
        ):
            room = facts.slots - station.used - station.aside
        is_over = station.is_over_prefill = len(station.reading) > 0 and station.reading_s > self.prefill_budget_s
        if is_over or station.is_stuck:
            oldest = next(iter(station.reading.values()), None)
            if oldest is not None and not oldest.is_loading:
                # Should no first token be told of, time opens it. (A load has no such moment: asking again would never end.)
                self.wake_at(station, oldest.is_believed_over)
        opened = False
        for place in station.place_list:
            left = room
            if room > 0:
                most = place.cap
                if place.limit is not None:
                    most = 0 if station.is_stuck else place.limit.slots
                if most is not None and most - place.used < room:
                    left = most - place.used
            has_room = left > 0
            is_free = has_room and place.at_hand and not is_over
            is_cold = has_room and not place.at_hand and not is_over
            level = 0 if not is_free else left if left < TOP_LEVEL else TOP_LEVEL
            if (is_free and not place.is_free) or (is_cold and not place.is_cold):
                opened = True
            reads = has_room and place.at_hand
            if level != place.level or reads != place.has_room or is_free != place.is_free or is_cold != place.is_cold:
                serving = place.serving
                if serving is not None:
                    self._show(station, place, serving, level, reads, is_free, is_cold)
        return opened

    def _show(
        self, station: Station, place: Place, serving: Serving, level: int, has_room: bool, is_free: bool, is_cold: bool
    ) -> None:
        bit = station.bit
        if has_room != place.has_room:
            place.has_room = has_room
            if has_room:
                serving.room_mask |= bit
            else:
                serving.room_mask &= ~bit
        if level != place.level:
            serving.move(bit, place.level, level)
            place.level = level
        if is_free != place.is_free:
            place.is_free = is_free
            if is_free:
                serving.free.add(station)
                serving.free_mask |= bit
            else:
                serving.free.discard(station)
                serving.free_mask &= ~bit
        if is_cold != place.is_cold:
            place.is_cold = is_cold
            if is_cold:
                serving.cold.add(station)
            else:
                serving.cold.discard(station)

    def fits(self, station: Station, request: Request, tokens: int) -> bool:
        """Whether it may start there now. `tokens` are those of its prompt and its expected answer."""
        place = station.places.get(request.model)
        return (
            place is not None
            and place.at_hand
            and not station.is_over_prefill
            and self.has_slots(station, request, tokens)
        )

    def why_closed(self, station: Station) -> str:
        """Why nothing more starts there now, whatever the model, in words; empty when something may."""
        facts = station.facts
        if station.closed is not None:
            return station.closed
        if not facts.enabled:
            return "it drains"
        if not facts.healthy:
            return "it is not healthy"
        if station.used + station.aside >= facts.slots:
            return "all slots are taken"
        if station.kept_for is not None:
            return "it is kept for a wide request"
        if station.is_paced:
            return "its requests a minute are used up"
        if station.kv_budget is not None and station.running and station.tokens >= station.kv_budget:
            return "its cache is full"
        if station.is_over_prefill:
            return "it has enough prompts to read"
        if station.is_stuck and any(place.limit is not None for place in station.place_list):
            return "a first token is late"
        return ""

    def has_slots(self, station: Station, request: Request, tokens: int) -> bool:
        """As `fits`, whatever it still has to read or to load."""
        if self.fits_in_cache is not None:
            if not self.fits_in_cache(station, request):
                return False
            tokens = 0
        facts = station.facts
        width = request.width
        place = station.places.get(request.model)
        if (
            place is None
            or place.serving is None
            or place.serving.pool != request.pool
            or station.closed is not None
            or not facts.healthy
            or not facts.enabled
            or station.is_paced
            or station.used + station.aside + width > facts.slots
        ):
            return False
        if station.kept_for is not None and station.kept_for != request.ledger_id:
            return False
        if place.limit is not None and station.is_stuck:
            return False
        most = place.cap if place.limit is None else place.limit.slots
        # A limit that was felt for bends for one wide request on an idle engine: it has to start somewhere.
        if most is not None and place.used + width > most and (place.used or place.limit is None):
            return False
        budget = station.kv_budget
        return budget is None or station.tokens + tokens <= budget or not station.running

    def take(self, station: Station, model: str, width: int, tokens: int, now: float) -> None:
        """It starts there, or is known to run there: what runs is counted even where there was no room."""
        place = station.places.get(model)
        if place is None:
            place = station.places[model] = Place(model, self._fit(station, model))
        station.used += width
        station.running += 1
        station.tokens += tokens
        place.used += width
        if place.limit is not None:
            place.limit.note_use(place.used)
            self.note_lateness(station, now)
        if station.residency is not None:
            station.residency.used_at[model] = now
        pace = station.pace
        if pace is not None:
            pace.take(now)
            if pace.next_at > now:
                station.is_paced = True
                self.wake_at(station, pace.next_at)
        self.refresh(station)

    def give_back(self, station: Station, model: str, width: int, tokens: int, now: float) -> bool:
        """What `take` took. True when it has room now that it had not."""
        station.used -= width
        station.running -= 1
        station.tokens -= tokens
        place = station.places[model]
        place.used -= width
        if place.limit is not None:
            self.note_lateness(station, now)
        if station.residency is not None:
            station.residency.used_at[model] = now
        if place.serving is None and not place.used:
            del station.places[model]
        if station.is_gone:
            if not station.running and not station.used:
                self._forget(station)
            return False
        return self.refresh(station)

    def note_lateness(self, station: Station, now: float) -> None:
        """Whether its engine keeps something waiting, as far as the oldest prompt without an answer shows."""
        oldest = next(iter(station.reading.values()), None)
        station.is_stuck = len(station.reading) >= max(READ_AT_ONCE, station.used // 4) or (
            oldest is not None
            and oldest.is_streamed
            and not oldest.is_loading
            and now > oldest.since + oldest.predicted_s + LATE_S
        )

    def set_closed(self, station: Station, because: str | None) -> bool:
        """None opens it. True when it has room now that it had not."""
        station.closed = because
        if because is not None and station.kept_for is not None:
            self.let_go(station)
        return self.refresh(station)

    def set_aside(self, station: Station, slots: int) -> bool:
        """So many of its slots nobody may use. True when it has room now that it had not."""
        station.aside = slots
        return self.refresh(station)

    # --- what is being read ---

    def stop_reading(self, station: Station, ledger_id: LedgerId) -> Reading | None:
        reading = station.reading.pop(ledger_id, None)
        if reading is not None:
            station.reading_s = station.reading_s - reading.seconds if station.reading else 0.0
        return reading

    def forget_read(self, station: Station, now: float) -> None:
        """What must have been read by now no longer counts, though no first token was told of."""
        while station.reading:
            ledger_id, oldest = next(iter(station.reading.items()))
            if now < oldest.is_believed_over or oldest.is_loading:
                break
            self.stop_reading(station, ledger_id)
            station.read_since = now

    # --- wide requests ---

    def nearest(self, request: Request) -> Station | None:
        """For a head that fits nowhere: the one with the most room among those that could ever take it.

        Keeping it for that request makes sure that it starts: what frees there is its own from then on. All that it costs
        is the slots that are too few for it, at most its width less one, idle on one backend. None: none has any room."""
        serving = self._serving.get((request.pool, request.model))
        if serving is None or serving.widest < request.width:
            return None
        occupied = serving.occupied
        while occupied:
            level = occupied.bit_length() - 1
            for station in stations_in(serving.levels[level], self.by_index):
                if station.id not in request.excluded and self.width_limit(station, request.model) >= request.width:
                    return station
            occupied ^= 1 << level
        return None

    def keep_for(self, station: Station, request: Request) -> None:
        """Nothing else starts there until this request did or `let_go` is called."""
        if station.kept_for is not None:
            self.let_go(station)
        station.kept_for = request.ledger_id
        self._kept[request.ledger_id] = station
        self.refresh(station)

    def kept_for(self, request: Request) -> Station | None:
        return self._kept.get(request.ledger_id)

    @property
    def kept(self) -> Iterable[Station]:
        """Those that are kept for someone."""
        return self._kept.values()

    def let_go(self, station: Station) -> bool:
        """True when others have room there now."""
        if station.kept_for is None:
            return False
        del self._kept[station.kept_for]
        station.kept_for = None
        return self.refresh(station)

    # --- time ---

    def wake_at(self, station: Station, when: float) -> None:
        """Something opens there by time alone. Of several moments the earliest is kept: who wakes asks again."""
        if station.wakes_at <= when:
            return
        station.wakes_at = when
        self._wake_order += 1
        heapq.heappush(self._wakes, (when, self._wake_order, station))

    @property
    def next_wake(self) -> float | None:
        return self._wakes[0][0] if self._wakes else None

    def wake(self, now: float) -> list[Station]:
        """Those for which the time has come, each once."""
        woken: dict[BackendId, Station] = {}
        while self._wakes and self._wakes[0][0] <= now:
            when, _, station = heapq.heappop(self._wakes)
            if station.wakes_at == when:
                station.wakes_at = float("inf")
            if station.is_gone:
                continue
            if station.is_paced and station.pace is not None:
                if station.pace.next_at <= now:
                    station.is_paced = False
                    self.refresh(station)
                else:
                    self.wake_at(station, station.pace.next_at)
            if station.is_over_prefill or station.is_stuck:
                self.forget_read(station, now)
                self.note_lateness(station, now)
                self.refresh(station)
            woken[station.id] = station
        return list(woken.values())

    # --- models that are swapped ---

    def reside(self, station: Station) -> bool:
        """What is loaded there changed. True when it has room for a model that it had none for."""
        self._reside(station)
        return self.refresh(station)

    def _reside(self, station: Station) -> None:
        residency = station.residency
        for place in station.place_list:
            at_hand = residency is None or residency.is_at_hand(place.model)
            if at_hand != place.at_hand:
                place.at_hand = at_hand
                if place.serving is not None:
                    place.serving.absent += -1 if at_hand else 1

    # --- what was learnt ---

    def _fit(self, station: Station, model: str) -> PrefillFit:
        """Begins where the model's other stations are."""
        shared = self._fit_of_model.get(model)
        if shared is None:
            known = station.facts.facts.get(model, _NOTHING)
            shared = self._fit_of_model[model] = PrefillFit(usual_prefill(known.size_bytes))
        fit = PrefillFit(shared.coefficients)
        fit.restore(self._fits.get((station.id, model), ()))
        return fit

    def fit_of_model(self, model: str) -> PrefillFit | None:
        return self._fit_of_model.get(model)

    def found_limits(self) -> list[tuple[BackendId, str, float]]:
        return [
            (station.id, place.model, place.limit.found)
            for station in self._by_id.values()
            for place in station.place_list
            if place.limit is not None
        ]

    def prefill_fits(self) -> list[tuple[BackendId, str, list[float]]]:
        return [
            (station.id, place.model, place.fit.sums())
            for station in self._by_id.values()
            for place in station.place_list
            if place.fit.observations
        ]

    def restore(
        self,
        limits: Iterable[tuple[BackendId, str, float]] = (),
        fits: Iterable[tuple[BackendId, str, list[float]]] = (),
    ) -> None:
        """What an earlier leader had found: for the stations that are here, and for those that come."""
        for backend, model, found in limits:
            self._found[backend, model] = found
            station = self._by_id.get(backend)
            place = None if station is None else station.places.get(model)
            if station is not None and place is not None and place.limit is not None:
                place.limit = AdaptiveLimit(place.limit.most, found=found)
                self.refresh(station)
        for backend, model, sums in fits:
            self._fits[backend, model] = list(sums)
            station = self._by_id.get(backend)
            place = None if station is None else station.places.get(model)
            if place is not None:
                place.fit.restore(sums)
