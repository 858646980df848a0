"""Models that an engine swaps: when one is loaded, at whose cost, and why a request waits for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from forebay_scheduler.backend import Backend, ModelFacts
from forebay_scheduler.placing.choices import Choice
from forebay_scheduler.placing.placement import Placement, PlacingRules
from forebay_scheduler.placing.prefix_index import PrefixIndex
from forebay_scheduler.placing.station import Station
from forebay_scheduler.placing.stations import Stations
from forebay_scheduler.request import BackendId, LedgerId, PoolName, Request, Used, UserId
from forebay_scheduler.terms import PoolTerms

POOL = PoolName("default")
THERE, ABSENT = ModelFacts(is_loaded=True), ModelFacts(is_loaded=False)


def an_engine(name: str, at_once: int = 1, slots: int = 2, **loaded: bool | None) -> Backend:
    facts = {model: ModelFacts(is_loaded=is_loaded) for model, is_loaded in loaded.items()}
    models = frozenset({"x", "y", "z"})
    return Backend(BackendId(name), POOL, models, slots, models_at_once=at_once, measured_at=0.0, facts=facts)


class Cluster:
    def __init__(self, *backends: Backend) -> None:
        self.stations = Stations(PrefixIndex())
        self.stations.change(backends, now=0.0)
        self.waiting: Counter[str] = Counter()
        self.placement = Placement(
            self.stations,
            PoolTerms(POOL),
            Random(1),
            PlacingRules(explored=0.0, jitter=0.0),
            waiting=self.waiting.__getitem__,
        )

    def station(self, name: str) -> Station:
        station = self.stations.get(BackendId(name))
        assert station is not None
        return station

    def choose(self, model: str, now: float, arrived_at: float | None = None) -> Choice | None:
        return self.placement.choose(want(model, now if arrived_at is None else arrived_at), now)

    def start(self, model: str, now: float, arrived_at: float | None = None) -> tuple[Request, Station]:
        request = want(model, now if arrived_at is None else arrived_at)
        choice = self.placement.choose(request, now)
        assert choice is not None
        self.stations.take(choice.station, model, 1, 0, now)
        self.placement.note_grant(choice.station, request, choice, now)
        return request, choice.station

    def answer(self, request: Request, station: Station, first_at: float, end_at: float) -> None:
        self.placement.note_first_token(station, request, 1.0, first_at)
        self.placement.note_end(station, request, Used(0, 0, 10), end_at, is_success=True)
        self.stations.give_back(station, request.model, 1, 0, end_at)


def want(model: str, arrived_at: float, width: int = 1) -> Request:
    ledger_id = LedgerId(f"{model}{arrived_at}".encode())
    return Request(ledger_id, UserId("alice"), model, arrived_at, width=width)


def test_a_request_goes_where_its_model_is_loaded() -> None:
    cluster = Cluster(an_engine("a", x=True, y=False), an_engine("b", x=False, y=True))
    choice = cluster.choose("y", 100.0)
    assert choice is not None
    assert (choice.station.id, choice.load_model) == ("b", False)


def test_what_nobody_said_is_not_loaded_may_be() -> None:
    cluster = Cluster(an_engine("a", x=True))
    choice = cluster.choose("y", 100.0)
    assert choice is not None
    assert not choice.load_model


def test_a_model_is_loaded_where_there_is_room_for_one_more() -> None:
    cluster = Cluster(an_engine("a", at_once=2, x=True, y=False))
    choice = cluster.choose("y", 1.0)
    assert choice is not None
    assert choice.load_model
    assert choice.victim is None
    assert choice.ttft_s >= 8.0


def test_an_idle_model_that_nobody_wants_makes_room_after_a_minute() -> None:
    cluster = Cluster(an_engine("a", x=True, y=False))
    assert cluster.choose("y", 30.0) is None
    assert cluster.placement.why_waiting(want("y", 30.0), 30.0) == ["the loaded models have just been loaded"]
    choice = cluster.choose("y", 60.0)
    assert choice is not None
    assert (choice.load_model, choice.victim) == (True, "x")


def test_it_is_asked_again_when_the_minute_is_over() -> None:
    cluster = Cluster(an_engine("a", x=True, y=False))
    assert cluster.choose("y", 50.0) is None
    assert cluster.stations.next_wake == 60.0
    assert cluster.stations.wake(60.0) == [cluster.station("a")]


def test_a_model_in_use_is_not_a_victim() -> None:
    cluster = Cluster(an_engine("a", x=True, y=False))
    cluster.start("x", 70.0)
    assert cluster.choose("y", 71.0) is None
    assert cluster.placement.why_waiting(want("y", 71.0), 71.0) == ["all loaded models are in use"]


def test_a_model_that_others_wait_for_is_not_a_victim_until_the_head_has_waited_twenty_seconds() -> None:
    cluster = Cluster(an_engine("a", x=True, y=False))
    cluster.waiting["x"] = 3
    assert cluster.choose("y", 100.0) is None
    assert cluster.placement.why_waiting(want("y", 100.0), 100.0) == ["requests wait for the models that are loaded"]
    assert cluster.stations.next_wake == 120.0
    choice = cluster.choose("y", 120.0, arrived_at=100.0)
    assert choice is not None
    assert choice.victim == "x"


def test_the_victim_is_the_one_that_was_used_longest_ago() -> None:
    cluster = Cluster(an_engine("a", at_once=2, slots=4, x=True, y=True, z=False))
    request, station = cluster.start("x", 70.0)
    cluster.answer(request, station, 71.0, 72.0)
    choice = cluster.choose("z", 100.0)
    assert choice is not None
    assert choice.victim == "y"


def test_only_one_model_is_loaded_at_a_time() -> None:
    cluster = Cluster(an_engine("a", at_once=3, slots=4, x=True, y=False, z=False))
    cluster.start("y", 70.0)
    assert cluster.choose("z", 71.0) is None
    assert cluster.placement.why_waiting(want("z", 71.0), 71.0) == ["another model is being loaded there"]


def test_requests_for_a_model_that_is_being_loaded_join_it() -> None:
    cluster = Cluster(an_engine("a", slots=4, x=True, y=False))
    cluster.start("y", 70.0)
    choice = cluster.choose("y", 71.0)
    assert choice is not None
    assert not choice.load_model


def test_how_long_a_load_takes_is_learnt() -> None:
    cluster = Cluster(an_engine("a", x=True, y=False))
    request, station = cluster.start("y", 70.0)
    cluster.answer(request, station, 73.0, 74.0)
    assert station.residency is not None
    assert station.residency.load_s("y") == 3.0
    assert station.residency.loaded == {"y": 73.0}


def test_a_load_that_fails_is_not_believed() -> None:
    cluster = Cluster(an_engine("a", x=True, y=False))
    request, station = cluster.start("y", 70.0)
    cluster.placement.note_failure(station, request, 75.0, is_busy=False)
    cluster.stations.give_back(station, "y", 1, 0, 75.0)
    choice = cluster.choose("y", 76.0)
    assert choice is not None
    assert choice.load_model


def test_when_no_victim_is_idle_one_is_drained_for_a_head_that_waited_long_enough() -> None:
    cluster = Cluster(an_engine("a", x=True, y=False))
    request, station = cluster.start("x", 70.0)
    cluster.waiting.update(x=5, y=1)
    assert cluster.choose("y", 90.0, arrived_at=70.0) is None
    assert cluster.choose("x", 90.0) is None, "what would keep the victim busy waits"
    cluster.answer(request, station, 91.0, 92.0)
    choice = cluster.choose("y", 92.0, arrived_at=70.0)
    assert choice is not None
    assert choice.victim == "x"


def test_a_drained_model_comes_back_when_nobody_wants_the_swap_any_more() -> None:
    cluster = Cluster(an_engine("a", x=True, y=False))
    cluster.start("x", 70.0)
    cluster.waiting.update(x=5, y=1)
    assert cluster.choose("y", 90.0, arrived_at=70.0) is None
    cluster.waiting["y"] = 0
    choice = cluster.choose("x", 91.0)
    assert choice is not None
    assert not choice.load_model


def test_a_busy_model_is_loaded_a_second_time_only_when_its_queue_is_worth_it() -> None:
    cluster = Cluster(an_engine("a", slots=1, x=True, y=False), an_engine("b", slots=1, x=False, y=True))
    cluster.start("x", 100.0)
    cluster.waiting["x"] = 1
    assert cluster.choose("x", 101.0) is None
    assert cluster.placement.why_waiting(want("x", 101.0), 101.0) == [
        "waiting for a loaded copy is quicker than loading another"
    ]
    cluster.waiting["x"] = 10
    choice = cluster.choose("x", 101.0)
    assert choice is not None
    assert (choice.station.id, choice.victim) == ("b", "y")


def test_the_engines_own_list_counts_except_for_what_began_after_it() -> None:
    cluster = Cluster(an_engine("a", slots=4, x=True, y=False))
    request, station = cluster.start("y", 70.0)
    stale = replace(an_engine("a", slots=4, x=True, y=False), measured_at=69.0)
    cluster.stations.change([stale], now=71.0)
    assert station.residency is not None
    assert station.residency.loading == "y"
    cluster.answer(request, station, 75.0, 76.0)
    evicted = replace(an_engine("a", slots=4, x=False, y=False), measured_at=80.0)
    cluster.stations.change([evicted], now=81.0)
    choice = cluster.choose("y", 82.0)
    assert choice is not None
    assert choice.load_model
    assert choice.victim is None


def test_a_load_that_takes_for_ever_is_waited_for_and_wakes_nobody() -> None:
    cluster = Cluster(an_engine("a", at_once=1, slots=4, x=True, y=False))
    request, station = cluster.start("y", 100.0)
    for later in (1_000.0, 2_000.0):
        cluster.stations.refresh(station)
        woken = cluster.stations.wake(later)  # and comes back at all
        assert woken in ([], [station])
    cluster.answer(request, station, 2_000.0, 2_001.0)
    choice = cluster.choose("y", 2_002.0)
    assert choice is not None
    assert not choice.load_model
