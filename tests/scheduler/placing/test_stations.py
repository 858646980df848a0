"""Capacity against brute force: after any sequence of events, what is shown as free is what has room."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from forebay_scheduler.backend import Backend, ModelFacts
from forebay_scheduler.placing.prefix_index import PrefixIndex
from forebay_scheduler.placing.station import TOP_LEVEL, Station
from forebay_scheduler.placing.stations import Stations
from forebay_scheduler.request import BackendId, LedgerId, PoolName, Request, UserId

POOL = PoolName("default")
MODELS = ("m", "n")


def a_backend(name: str, slots: int = 4, **facts: object) -> Backend:
    return replace(Backend(BackendId(name), POOL, frozenset(MODELS), slots), **facts)  # type: ignore[arg-type]


def some_stations(*backends: Backend) -> Stations:
    stations = Stations(PrefixIndex())
    stations.change(backends, now=0.0)
    return stations


def station(stations: Stations, name: str) -> Station:
    found = stations.get(BackendId(name))
    assert found is not None
    return found


def want(name: str = "r", model: str = "m", width: int = 1, **more: object) -> Request:
    return replace(Request(LedgerId(name.encode()), UserId("alice"), model, 0.0, width=width), **more)  # type: ignore[arg-type]


def free(stations: Stations, model: str = "m") -> set[str]:
    serving = stations.serving(POOL, model)
    return set() if serving is None else {str(station.id) for station in serving.free}


def test_slots_are_counted_by_width() -> None:
    stations = some_stations(a_backend("b", 4))
    stations.take(station(stations, "b"), "m", 3, 0, now=0.0)
    assert stations.fits(station(stations, "b"), want(width=1), 0)
    assert not stations.fits(station(stations, "b"), want(width=2), 0)
    stations.take(station(stations, "b"), "n", 1, 0, now=0.0)
    assert free(stations) == set()
    assert stations.give_back(station(stations, "b"), "n", 1, 0, now=1.0)
    assert free(stations) == {"b"}


def test_a_model_may_have_fewer_slots_than_its_backend() -> None:
    stations = some_stations(a_backend("b", 4, facts={"m": ModelFacts(slots=1)}))
    stations.take(station(stations, "b"), "m", 1, 0, now=0.0)
    assert free(stations, "m") == set()
    assert free(stations, "n") == {"b"}


def test_a_cap_lowered_below_what_is_used_gives_nothing_until_there_is_room() -> None:
    stations = some_stations(a_backend("b", 4))
    for _ in range(3):
        stations.take(station(stations, "b"), "m", 1, 0, now=0.0)
    assert stations.change([a_backend("b", 2)], now=1.0) == []
    assert not stations.give_back(station(stations, "b"), "m", 1, 0, now=2.0)
    assert free(stations) == set()
    assert stations.give_back(station(stations, "b"), "m", 1, 0, now=3.0)
    assert free(stations) == {"b"}


def test_the_cache_is_filled_to_nine_tenths() -> None:
    stations = some_stations(a_backend("b", 8, kv_tokens=1000))
    stations.take(station(stations, "b"), "m", 1, 500, now=0.0)
    assert stations.fits(station(stations, "b"), want(), 400)
    assert not stations.fits(station(stations, "b"), want(), 401)


def test_a_prompt_larger_than_the_cache_may_try_an_idle_engine() -> None:
    stations = some_stations(a_backend("b", 8, kv_tokens=1000))
    assert stations.fits(station(stations, "b"), want(), 5000)


def test_requests_a_minute_close_a_backend_until_it_is_time() -> None:
    stations = some_stations(a_backend("b", 8, requests_per_minute=2))
    stations.take(station(stations, "b"), "m", 1, 0, now=0.0)
    assert free(stations) == set()
    wake = stations.next_wake
    assert wake is not None
    assert 0.0 < wake <= 60.0
    assert stations.wake(wake - 0.01) == []
    assert stations.wake(wake) == [station(stations, "b")]
    assert free(stations) == {"b"}


def test_a_backend_that_leaves_and_returns_still_has_what_runs_there() -> None:
    stations = some_stations(a_backend("b", 1))
    there = station(stations, "b")
    stations.take(there, "m", 1, 10, now=0.0)
    stations.change([], now=1.0)
    assert stations.get(BackendId("b")) is None
    assert stations.find(BackendId("b")) is there
    assert stations.change([a_backend("b", 1)], now=2.0) == []
    stations.give_back(there, "m", 1, 10, now=3.0)
    assert free(stations) == {"b"}


def test_a_backend_that_left_is_forgotten_when_its_last_request_ends() -> None:
    stations = some_stations(a_backend("b", 1))
    there = station(stations, "b")
    stations.take(there, "m", 1, 10, now=0.0)
    stations.change([], now=1.0)
    assert not stations.give_back(there, "m", 1, 10, now=3.0)
    assert stations.find(BackendId("b")) is None


def test_why_a_backend_is_closed_is_told_in_words() -> None:
    stations = some_stations(
        a_backend("full", 0),
        a_backend("rests"),
        a_backend("drains", enabled=False),
        a_backend("sick", healthy=False),
        a_backend("paced", requests_per_minute=1),
        a_backend("kept"),
        a_backend("open"),
    )
    stations.set_closed(station(stations, "rests"), "it rests")
    stations.keep_for(station(stations, "kept"), want(width=4))
    stations.take(station(stations, "paced"), "m", 1, 0, now=0.0)
    assert {str(here.id): stations.why_closed(here) for here in stations} == {
        "full": "all slots are taken",
        "rests": "it rests",
        "drains": "it drains",
        "sick": "it is not healthy",
        "paced": "its requests a minute are used up",
        "kept": "it is kept for a wide request",
        "open": "",
    }


def test_a_wide_request_keeps_the_backend_that_is_nearest_to_having_room() -> None:
    stations = some_stations(a_backend("a", 4), a_backend("b", 4), a_backend("small", 3))
    wide = want("wide", width=4)
    stations.take(station(stations, "a"), "m", 3, 0, now=0.0)
    stations.take(station(stations, "b"), "m", 2, 0, now=0.0)
    nearest = stations.nearest(wide)
    assert nearest is station(stations, "b")
    stations.keep_for(nearest, wide)
    assert free(stations) == {"a", "small"}
    stations.give_back(nearest, "m", 2, 0, now=1.0)
    assert not stations.fits(nearest, want("narrow"), 0)
    assert stations.fits(nearest, wide, 0)
    assert stations.let_go(nearest)
    assert free(stations) == {"a", "b", "small"}


def test_what_is_kept_is_let_go_when_the_backend_closes_or_leaves() -> None:
    stations = some_stations(a_backend("a", 4), a_backend("b", 4))
    wide, other = want("wide", width=4), want("other", width=4)
    stations.keep_for(station(stations, "a"), wide)
    stations.set_closed(station(stations, "a"), "drains")
    assert stations.kept_for(wide) is None
    stations.keep_for(station(stations, "b"), other)
    stations.change([a_backend("a", 4)], now=1.0)
    assert stations.kept_for(other) is None


def test_an_excluded_backend_is_not_kept() -> None:
    stations = some_stations(a_backend("a", 4))
    assert stations.nearest(want(width=4, excluded=frozenset({BackendId("a")}))) is None


def test_what_was_learnt_survives_the_leader() -> None:
    assumed = a_backend("b", 100, slots_assumed=True)
    stations = some_stations(assumed)
    limit = station(stations, "b").places["m"].limit
    assert limit is not None
    limit.found = 17.0
    station(stations, "b").places["m"].fit.observe(1000, 0, 0.5)
    successor = Stations(PrefixIndex())
    successor.restore(stations.found_limits(), stations.prefill_fits())
    successor.change([assumed], now=0.0)
    place = station(successor, "b").places["m"]
    assert place.limit is not None
    assert place.limit.slots == 17
    assert place.fit.sums() == station(stations, "b").places["m"].fit.sums()


facts = st.builds(
    Backend,
    id=st.sampled_from([BackendId("a"), BackendId("b"), BackendId("c")]),
    pool=st.sampled_from([POOL, PoolName("other")]),
    models=st.sets(st.sampled_from(MODELS), min_size=1).map(frozenset),
    slots=st.integers(0, 5),
    healthy=st.sampled_from([True, True, False]),
    enabled=st.sampled_from([True, True, False]),
    kv_tokens=st.sampled_from([None, 1000]),
    requests_per_minute=st.sampled_from([None, 30]),
    facts=st.sampled_from([{}, {"m": ModelFacts(slots=2)}]),
)


class AnySequence(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.stations = Stations(PrefixIndex())
        self.now = 0.0
        self.running: list[tuple[Station, str, int, int]] = []
        self.closed: dict[str, str] = {}

    @rule(fleet=st.lists(facts, max_size=3, unique_by=lambda backend: backend.id))
    def fleet_changes(self, fleet: list[Backend]) -> None:
        self.stations.change(fleet, self.now)

    @rule(which=st.integers(0, 2), model=st.sampled_from(MODELS), width=st.integers(1, 3), tokens=st.integers(0, 600))
    def starts_where_it_fits(self, which: int, model: str, width: int, tokens: int) -> None:
        here = list(self.stations)
        if not here:
            return
        chosen = here[which % len(here)]
        asked = want(model=model, width=width, pool=chosen.facts.pool)
        if not self.stations.fits(chosen, asked, tokens):
            return
        had = chosen.used
        self.stations.take(chosen, model, width, tokens, self.now)
        self.running.append((chosen, model, width, tokens))
        assert had + width + chosen.aside <= chosen.facts.slots
        assert chosen.closed is None
        assert chosen.facts.is_open

    @rule(which=st.integers(0, 2), model=st.sampled_from(MODELS), width=st.integers(1, 3))
    def somebody_claims(self, which: int, model: str, width: int) -> None:
        here = list(self.stations)
        if here:
            chosen = here[which % len(here)]
            self.stations.take(chosen, model, width, 100, self.now)
            self.running.append((chosen, model, width, 100))

    @rule(which=st.integers(0, 50))
    def ends(self, which: int) -> None:
        if self.running:
            self.stations.give_back(*self.running.pop(which % len(self.running)), self.now)

    @rule(which=st.integers(0, 2), because=st.sampled_from([None, "rests"]))
    def closes(self, which: int, because: str | None) -> None:
        here = list(self.stations)
        if here:
            self.stations.set_closed(here[which % len(here)], because)

    @rule(which=st.integers(0, 2), slots=st.integers(0, 3))
    def slots_of_the_dead(self, which: int, slots: int) -> None:
        here = list(self.stations)
        if here:
            self.stations.set_aside(here[which % len(here)], slots)

    @rule(model=st.sampled_from(MODELS))
    def a_wide_one_keeps(self, model: str) -> None:
        asked = want("wide", model=model, width=3)
        kept = self.stations.kept_for(asked)
        if kept is not None:
            self.stations.let_go(kept)
            return
        nearest = self.stations.nearest(asked)
        if nearest is not None:
            self.stations.keep_for(nearest, asked)

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.stations.wake(self.now)

    @invariant()
    def counters_are_what_runs(self) -> None:
        if not hasattr(self, "stations"):
            return
        for here in self.stations:
            mine = [entry for entry in self.running if entry[0] is here]
            assert here.used == sum(width for _, _, width, _ in mine)
            assert here.tokens == sum(tokens for _, _, _, tokens in mine)
            assert here.running == len(mine)
            for model, place in here.places.items():
                assert place.used == sum(width for _, of, width, _ in mine if of == model)

    @invariant()
    def what_is_shown_is_what_has_room(self) -> None:
        if not hasattr(self, "stations"):
            return
        for pool in (POOL, PoolName("other")):
            for model in MODELS:
                serving = self.stations.serving(pool, model)
                truth: dict[Station, int] = {}
                for here in self.stations:
                    room = 0
                    while room < 10 and self._has_room(here, pool, model, room + 1):
                        room += 1
                    if room and here.kept_for is None:
                        truth[here] = room
                assert (set() if serving is None else set(serving.free)) == set(truth)
                if serving is None:
                    continue
                assert set(serving.stations) == {
                    here for here in self.stations if here.facts.pool == pool and model in here.facts.models
                }
                assert serving.free_mask == serving.room_mask == sum(here.bit for here in truth)
                for level in range(TOP_LEVEL + 1):
                    here_mask = sum(here.bit for here, room in truth.items() if room == level)
                    assert serving.levels[level] == here_mask
                    assert bool(serving.occupied >> level & 1) == bool(here_mask)

    def _has_room(self, here: Station, pool: PoolName, model: str, width: int) -> bool:
        backend = here.facts
        mine = [entry for entry in self.running if entry[0] is here]
        cap = backend.facts[model].slots if model in backend.facts else None
        of_model = sum(width for _, of, width, _ in mine if of == model)
        return (
            backend.pool == pool
            and model in backend.models
            and backend.is_open
            and here.closed is None
            and sum(width for _, _, width, _ in mine) + here.aside + width <= backend.slots
            and (cap is None or of_model + width <= cap)
            and (not mine or backend.kv_tokens is None or sum(entry[3] for entry in mine) < 0.9 * backend.kv_tokens)
            and not (here.pace is not None and here.pace.next_at > self.now)
        )


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(deadline=None, max_examples=40, stateful_step_count=25)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.integers(1, 8))
def test_the_stations_wide_enough_are_those_with_the_slots(slots: list[int], width: int) -> None:
    stations = some_stations(*(a_backend(f"b{number}", count) for number, count in enumerate(slots)))
    serving = stations.serving(POOL, "m")
    assert serving is not None
    wide = {here.id for here in stations if serving.wide_enough(width) & here.bit}
    assert wide == {f"b{number}" for number, count in enumerate(slots) if count >= width}
    assert serving.widest == max(slots)
