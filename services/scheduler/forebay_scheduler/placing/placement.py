"""On which backend a request starts, among those that have room. One for each pool. Pure.

The default asks where its first token comes soonest. It never looks at all backends: the deepest holders of the prompt's
start, some at random, the roomiest. Where a busy backend holds so much of the prompt that waiting there beats every free
one, it is given the request all the same, as long as it has a slot and little enough to read. A request whose model is at
hand nowhere with room may have it loaded (`residency`)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from random import Random

from forebay_scheduler.placing.choices import Choice, Scored
from forebay_scheduler.placing.prefill_fit import SURE
from forebay_scheduler.placing.residency import Load, NoLoad, SwapRules, WhyNotLoaded
from forebay_scheduler.placing.score import ScoreRules, score
from forebay_scheduler.placing.station import Reading, Serving, Station, stations_in
from forebay_scheduler.placing.stations import Stations
from forebay_scheduler.request import BackendId, BlockName, LedgerId, Request, Used, UserId
from forebay_scheduler.terms import PlacementPolicy, PoolTerms

Allowed = Callable[[Station], bool]


@dataclass(frozen=True, slots=True)
class PlacingRules:
    candidates: int = 12
    """Where no more than this are free, all of them are considered; otherwise the holders, some at random, and one more."""
    holders: int = 6
    holders_per_level: int = 4
    levels: int = 3
    """Depths of cached prefix that are looked at, deepest first."""
    at_random: int = 4
    explored: float = 0.002
    """Of the choices go anywhere, so that nothing is believed for ever."""
    jitter: float = 0.02
    """By which a score is blurred, so that schedulers and moments do not all agree."""
    overfull_s: float = 5.0
    """A backend that holds the prompt may have this much to read already, where all others would still be later."""
    overfull_margin_s: float = 0.1
    usual_output: int = 256
    sessions: int = 65_536
    """Remembered for stickiness."""
    looked_at: int = 64
    """Where none of the usual candidates will do."""
    score: ScoreRules = field(default_factory=ScoreRules)
    swap: SwapRules = field(default_factory=SwapRules)


@dataclass(slots=True, init=False)
class _Answering:
    reading: Reading
    first_at: float | None = None
    """When its first token came."""

    def __init__(self, reading: Reading, first_at: float | None = None) -> None:
        self.reading = reading
        self.first_at = first_at


class Placement:
    def __init__(
        self,
        stations: Stations,
        terms: PoolTerms,
        random: Random,
        rules: PlacingRules | None = None,
        waiting: Callable[[str], int] = lambda model: 0,
    ) -> None:
        """`waiting` tells how many requests of this pool wait for a model."""
        self.terms = terms
        self._stations = stations
        self._prefixes = stations.prefixes
        self._random = random
        self._rules = PlacingRules() if rules is None else rules
        self._waiting = waiting
        self._turn: dict[str, int] = {}
        self._sessions: OrderedDict[tuple[UserId, str], BackendId] = OrderedDict()
        self._answering: dict[LedgerId, _Answering] = {}
        self._service_s: dict[str, float] = {}

    # --- choosing ---

    def choose(
        self, request: Request, now: float, allowed: Allowed | None = None, tokens: int | None = None
    ) -> Choice | None:
        """None: nothing that it may use has room now. `tokens` is the prompt with the expected answer."""
        serving = self._stations.serving(request.pool, request.model)
        if serving is None:
            return None
        if tokens is None:
            tokens = request.prompt_tokens + self._output(request)
        kept = self._stations.kept_for(request)
        if kept is not None:
            fits = self._may(kept, request, tokens, allowed) and self._stations.fits(kept, request, tokens)
            return self._alone(kept, request, now) if fits else None
        if not serving.free:
            return self._choose_to_load(serving, request, now, allowed, tokens) if serving.cold else None
        if self.terms.is_sticky and request.session_key:
            station = self._stuck_to(request)
            if (
                station is not None
                and self._may(station, request, tokens, allowed)
                and self._stations.fits(station, request, tokens)
            ):
                return self._alone(station, request, now)
        policy = self.terms.placement
        if policy is PlacementPolicy.EXPECTED_TTFT:
            return self._soonest(serving, request, now, allowed, tokens)
        if policy is PlacementPolicy.LEAST_LOADED:
            station = self._roomiest(serving, request, allowed, tokens)
        elif policy is PlacementPolicy.WEIGHTED:
            station = self._weighted(serving, request, allowed, tokens)
        elif policy is PlacementPolicy.ROUND_ROBIN:
            station = self._next_in_turn(serving, request, allowed, tokens)
        else:
            station = next(self._some_free(serving, request, allowed, tokens), None)
        return None if station is None else self._alone(station, request, now)

    def held_by(self, station: Station) -> Collection[BlockName]:
        """The blocks of prompts that are believed to be in this backend's cache."""
        return self._prefixes.held_by(station.index)

    def cached_tokens(self, request: Request, station: Station) -> int:
        """Of its prompt, believed to be in this backend's cache."""
        hashes = request.prefix_hashes
        if not hashes:
            return 0
        matched = self._prefixes.depth(station.index, hashes) * self._prefixes.block_tokens
        return min(matched, max(0, request.prompt_tokens - 1)) if request.prompt_tokens else matched

    def why_waiting(self, request: Request, now: float) -> list[str]:
        """Why it does not start right now, in words."""
        serving = self._stations.serving(request.pool, request.model)
        if serving is None:
            return ["no backend serves this model"]
        if serving.free:
            return ["it does not fit into what is free"]
        if all(station.closed for station in serving.stations):
            because = sorted({station.closed for station in serving.stations if station.closed})
            return [f"no backend with this model is open: {' or '.join(because)}"]
        if not serving.cold:
            return ["no free slot"]
        reasons: list[str] = []
        for station in list(serving.cold)[: self._rules.candidates]:
            verdict = self._may_load(station, serving, request, now)
            if isinstance(verdict, NoLoad) and verdict.why not in reasons:
                reasons.append(verdict.why)
        return [str(reason) for reason in reasons]

    def _output(self, request: Request) -> int:
        usual = self._rules.usual_output
        most = request.max_output_tokens
        return most if 0 < most < usual else usual

    def _may(self, station: Station, request: Request, tokens: int, allowed: Allowed | None) -> bool:
        return (
            station.id not in request.excluded
            and (allowed is None or allowed(station))
            and (
                (request.width == 1 and station.kv_budget is None) or self._stations.has_slots(station, request, tokens)
            )
        )

    def _alone(self, station: Station, request: Request, now: float) -> Choice:
        cached = self._prefixes.depth(station.index, request.prefix_hashes) * self._prefixes.block_tokens
        considered = score(
            [(station, cached)],
            request.model,
            now,
            request.prompt_tokens,
            self._output(request),
            self._rules.score,
        )
        return Choice(self.terms.placement, considered[0], considered)

    def _soonest(
        self, serving: Serving, request: Request, now: float, allowed: Allowed | None, tokens: int
    ) -> Choice | None:
        rules = self._rules
        random = self._random.random
        found = self._candidates(serving, request)
        if allowed is not None or request.excluded or request.width > 1 or serving.has_kv_budgets:
            found = [(station, cached) for station, cached in found if self._may(station, request, tokens, allowed)]
        model = request.model
        considered = score(found, model, now, request.prompt_tokens, self._output(request), rules.score)
        jitter = rules.jitter
        best: Scored | None = None
        least = 0.0
        for scored in considered:
            total = scored[1] * (1.0 + jitter * random())
            if scored[0].is_over_prefill:
                if scored[2] > rules.overfull_s:
                    continue
                total += rules.overfull_margin_s
            if best is None or total < least or (total == least and scored[0].index < best[0].index):
                best, least = scored, total
        if best is None or (random() < rules.explored and len(considered) > 1):
            station = next(self._some_free(serving, request, allowed, tokens), None)
            if station is not None:
                return self._elsewhere(station, request, now, considered)
            if best is None:
                return None
        return Choice(PlacementPolicy.EXPECTED_TTFT, best, considered)

    def _candidates(self, serving: Serving, request: Request) -> list[tuple[Station, int]]:
        """With the tokens of the prompt that each is believed to hold."""
        free = serving.free
        hashes = request.prefix_hashes
        rules = self._rules
        levels = self._prefixes.levels(hashes, serving.room_mask) if hashes else None
        takes_all = len(free) <= rules.candidates
        if not levels:
            return [(station, 0) for station in (free if takes_all else dict.fromkeys(self._drawn(serving)))]
        block = self._prefixes.block_tokens
        by_index = self._stations.by_index
        found: dict[Station, int] = {}
        left = rules.holders
        for depth, mask in levels[: -rules.levels - 1 : -1]:
            for index in self._some_of(mask, min(left, rules.holders_per_level)):
                station = by_index[index]
                if station is not None:
                    found[station] = depth * block
                    left -= 1
            if not left:
                break
        for station in free if takes_all else self._drawn(serving):
            if station not in found:
                found[station] = 0
                bit = station.bit
                for depth, mask in levels:
                    if mask & bit:
                        found[station] = depth * block
                        break
        return list(found.items())

    def _drawn(self, serving: Serving) -> list[Station]:
        random = self._random.random
        free = serving.free.members
        count = len(free)
        drawn = [free[int(random() * count)] for _ in range(self._rules.at_random)]
        for index in self._some_of(serving.roomiest(), 1):
            station = self._stations.by_index[index]
            if station is not None:
                drawn.append(station)
        return drawn

    def _elsewhere(self, station: Station, request: Request, now: float, considered: list[Scored]) -> Choice:
        choice = self._alone(station, request, now)
        choice.considered = [*(scored for scored in considered if scored[0] is not station), *choice.considered]
        return choice

    def _some_of(self, mask: int, most: int) -> list[int]:
        """Numbers of so many of the stations in a mask, from a random point on."""
        some: list[int] = []
        if not mask:
            return some
        width = mask.bit_length()
        start = int(self._random.random() * width)
        high = mask >> start << start
        for part in (high, mask ^ high):
            while part:
                bit = part & -part
                some.append(bit.bit_length() - 1)
                if len(some) == most:
                    return some
                part ^= bit
        return some

    def _roomiest(self, serving: Serving, request: Request, allowed: Allowed | None, tokens: int) -> Station | None:
        looked_at = 0
        occupied = serving.occupied
        while occupied:
            level = occupied.bit_length() - 1
            for station in stations_in(serving.levels[level], self._stations.by_index):
                if self._may(station, request, tokens, allowed):
                    return station
                looked_at += 1
                if looked_at >= self._rules.looked_at:
                    return None
            occupied ^= 1 << level
        return None

    def _weighted(self, serving: Serving, request: Request, allowed: Allowed | None, tokens: int) -> Station | None:
        """In proportion to the weights, among some that are free: drawn by exponential clocks."""
        best: Station | None = None
        least = 0.0
        count = 0
        for station in self._some_free(serving, request, allowed, tokens):
            weight = station.facts.weight
            if weight is None:
                weight = float(station.facts.slots)
            if weight <= 0.0:
                continue
            rings = self._random.expovariate(weight)
            if best is None or rings < least:
                best, least = station, rings
            count += 1
            if count == self._rules.looked_at:
                break
        return best

    def _next_in_turn(self, serving: Serving, request: Request, allowed: Allowed | None, tokens: int) -> Station | None:
        """The free station with the next number after the last one's."""
        last = self._turn.get(request.model, -1)
        after = serving.free_mask >> (last + 1) << (last + 1)
        looked_at = 0
        for mask in (after, serving.free_mask ^ after):
            for station in stations_in(mask, self._stations.by_index):
                if self._may(station, request, tokens, allowed):
                    self._turn[request.model] = station.index
                    return station
                looked_at += 1
                if looked_at >= self._rules.looked_at:
                    return None
        return None

    def _some_free(self, serving: Serving, request: Request, allowed: Allowed | None, tokens: int) -> Iterator[Station]:
        """Free stations from a random one on."""
        free = serving.free
        count = len(free)
        if request.width > 1:
            wide = [
                station
                for index in self._some_of(serving.wide_enough(request.width), self._rules.looked_at)
                if (station := self._stations.by_index[index]) is not None
            ]
            yield from (station for station in wide if self._may(station, request, tokens, allowed))
            return
        start = int(self._random.random() * count)
        for step in range(min(count, self._rules.looked_at)):
            station = free[(start + step) % count]
            if self._may(station, request, tokens, allowed):
                yield station

    def _stuck_to(self, request: Request) -> Station | None:
        backend = self._sessions.get((request.user, request.session_key))
        return None if backend is None else self._stations.get(backend)

    # --- loading models ---

    def _choose_to_load(
        self, serving: Serving, request: Request, now: float, allowed: Allowed | None, tokens: int
    ) -> Choice | None:
        cold = serving.cold
        count = len(cold)
        start = int(self._random.random() * count)
        considered: list[Scored] = []
        best: Scored | None = None
        victim: str | None = None
        refused: list[Station] = []
        picked = [cold[(start + step) % count] for step in range(min(count, self._rules.candidates))]
        for station in picked:
            residency = station.residency
            if residency is None or not self._may(station, request, tokens, allowed):
                continue
            if residency.leaving_for != request.model and residency.give_up(now, self._waiting, self._rules.swap):
                self._stations.reside(station)
                if serving.free:
                    return self.choose(request, now, allowed, tokens)
            verdict = self._may_load(station, serving, request, now)
            if isinstance(verdict, NoLoad):
                refused.append(station)
                if verdict.until is not None:
                    self._stations.wake_at(station, verdict.until)
                continue
            load_s = max(residency.load_s(request.model), 0.001)
            (scored,) = score(
                [(station, 0)],
                request.model,
                now,
                request.prompt_tokens,
                self._output(request),
                self._rules.score,
                load_s,
            )
            considered.append(scored)
            if best is None or scored[1] < best[1]:
                best, victim = scored, verdict.victim
        if best is not None:
            return Choice(self.terms.placement, best, considered, victim)
        if refused:
            self._press(refused, request, now)
        return None

    def _may_load(self, station: Station, serving: Serving, request: Request, now: float) -> Load | NoLoad:
        residency = station.residency
        if residency is None:
            return NoLoad(WhyNotLoaded.NOT_WORTH_IT)
        rules = self._rules.swap
        model = request.model
        waited_s = now - request.arrived_at
        verdict = residency.may_load(model, now, waited_s, self._used_on(station), self._waiting, rules)
        if isinstance(verdict, Load) and waited_s < rules.head_wait_s:
            copies = len(serving.stations) - serving.absent
            if copies > 0:
                # Loaded elsewhere and busy there: another copy only when the queue is worth two loads.
                queue_s = (self._waiting(model) + 1) * self._service_s.get(model, 5.0) / copies
                if queue_s < 2.0 * residency.load_s(model) + rules.margin_s:
                    return NoLoad(WhyNotLoaded.NOT_WORTH_IT, request.arrived_at + rules.head_wait_s)
        return verdict

    def _press(self, refused: list[Station], request: Request, now: float) -> None:
        """Its swap will come: when it has waited long enough, a model is drained for it; until then, ask again in time."""
        rules = self._rules.swap
        overdue_at = request.arrived_at + rules.head_wait_s
        if now < overdue_at:
            self._stations.wake_at(refused[0], overdue_at)
            return
        for station in refused:
            residency = station.residency
            if residency is not None and residency.leaving_for == request.model:
                return
        for station in refused:
            residency = station.residency
            if residency is None:
                continue
            victim = residency.to_drain(now, self._used_on(station), rules)
            if victim is not None:
                residency.drain(victim, request.model)
                self._stations.reside(station)
                return

    def _used_on(self, station: Station) -> Callable[[str], int]:
        places = station.places
        return lambda model: places[model].used if model in places else 0

    # --- what became of it ---

    def note_grant(self, station: Station, request: Request, choice: Choice | None, now: float) -> None:
        """After `Stations.take`. Without a choice: somebody else placed it."""
        model = request.model
        place = station.places[model]
        hashes = request.prefix_hashes
        if choice is not None:
            cached, wait, prefill = choice.cached_tokens, choice.wait_s, choice.prefill_s
        else:
            cached, wait = self.cached_tokens(request, station), station.wait_s(now)
            prefill = place.fit.seconds(request.prompt_tokens - cached, cached)
        is_loading = False
        residency = station.residency
        if residency is not None:
            if choice is not None and choice.load_model:
                residency.begin(model, choice.victim, now)
                if residency.at_once == 1:
                    self._prefixes.forget(station.index)
                self._stations.reside(station)
            is_loading = residency.loading == model
        if hashes:
            self._prefixes.insert(station.index, hashes)
        self._stations.forget_read(station, now)
        if not station.reading:
            station.read_since = now
        reading = Reading(
            model,
            request.prompt_tokens - cached,
            cached,
            prefill,
            wait + prefill,
            now,
            is_loading,
            request.is_streamed,
        )
        station.reading[request.ledger_id] = reading
        station.reading_s += prefill
        self._answering[request.ledger_id] = _Answering(reading)
        if self.terms.is_sticky and request.session_key:
            self._stick(request, station)
        if place.limit is not None:
            self._stations.note_lateness(station, now)
            self._stations.refresh(station)
        elif station.reading_s > self._stations.prefill_budget_s and not station.is_over_prefill:
            self._stations.refresh(station)

    def note_first_token(self, station: Station, request: Request, ttft_s: float, now: float) -> bool:
        """True when the station has room now that it had not."""
        answering = self._answering.get(request.ledger_id)
        place = station.places.get(request.model)
        if answering is None or answering.first_at is not None or place is None:
            return False
        answering.first_at = now
        station.failure += 0.1 * (0.0 - station.failure)
        if not request.is_streamed:
            # Its first byte came with its last: that says nothing about when it was read.
            return False
        reading = answering.reading
        began = station.read_since
        self._stations.stop_reading(station, request.ledger_id)
        station.read_since = now
        self._stations.forget_read(station, now)
        place.ttft_s = ttft_s if place.ttft_s is None else place.ttft_s + 0.1 * (ttft_s - place.ttft_s)
        if reading.is_loading:
            residency = station.residency
            if residency is not None:
                residency.arrived(request.model, now)
                return self._stations.reside(station)
        elif ttft_s > 0.0:
            # It reads one prompt after the other: what it took for this one began with the end of the one before.
            own_s = now - max(began, now - ttft_s)
            limit = place.limit
            place.fit.observe(reading.uncached, reading.cached, own_s, is_floor=limit is not None)
            shared = self._stations.fit_of_model(request.model)
            if shared is not None and (place.fit.observations < SURE or self._random.random() < 0.1):
                shared.observe(reading.uncached, reading.cached, own_s, is_floor=limit is not None)
            if limit is not None:
                limit.first_token(ttft_s - reading.predicted_s, now)
        if place.limit is not None:
            self._stations.note_lateness(station, now)
        return self._stations.refresh(station)

    def note_end(self, station: Station, request: Request, used: Used, now: float, is_success: bool) -> bool:
        """Before or after `Stations.give_back`. True when the station has room now that it had not."""
        answering = self._answering.pop(request.ledger_id, None)
        reading = self._stations.stop_reading(station, request.ledger_id)
        if answering is not None and is_success and used.completion_tokens:
            first_at = answering.first_at
            model = request.model
            service = self._service_s.get(model)
            took = now - answering.reading.since
            self._service_s[model] = took if service is None else service + 0.1 * (took - service)
            place = station.places.get(model)
            if place is not None and first_at is not None and request.is_streamed and used.completion_tokens > 1:
                tpot = (now - first_at) / (used.completion_tokens - 1)
                place.tpot_s = tpot if not place.tpot_s else place.tpot_s + 0.1 * (tpot - place.tpot_s)
        if reading is None:
            return False
        return self._ended_unread(station, request, reading, now, is_success and used.completion_tokens > 0)

    def note_failure(self, station: Station, request: Request, now: float, is_busy: bool) -> bool:
        """It was given back before its first token. True when the station has room now that it had not."""
        self._answering.pop(request.ledger_id, None)
        reading = self._stations.stop_reading(station, request.ledger_id)
        if is_busy:
            place = station.places.get(request.model)
            if place is not None and place.limit is not None:
                place.limit.refused(now)
        else:
            station.failure += 0.1 * (1.0 - station.failure)
        if self.terms.is_sticky and self._sessions.get((request.user, request.session_key)) == station.id:
            del self._sessions[request.user, request.session_key]
        if reading is None:
            return self._stations.refresh(station)
        return self._ended_unread(station, request, reading, now, is_loaded=False)

    def _ended_unread(self, station: Station, request: Request, reading: Reading, now: float, is_loaded: bool) -> bool:
        """It ended and no first token was told of."""
        residency = station.residency
        if residency is not None and reading.is_loading and residency.loading == request.model:
            if is_loaded:
                residency.arrived(request.model, now)
            elif not any(other.model == request.model for other in station.reading.values()):
                residency.failed(request.model)
            return self._stations.reside(station)
        return self._stations.refresh(station)

    def _stick(self, request: Request, station: Station) -> None:
        sessions = self._sessions
        session = (request.user, request.session_key)
        sessions[session] = station.id
        sessions.move_to_end(session)
        if len(sessions) > self._rules.sessions:
            sessions.popitem(last=False)
