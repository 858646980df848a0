"""Which waiting request starts when a backend has room."""

from __future__ import annotations

import random

from forebay_scheduler.backend import Backend
from forebay_scheduler.fairness.shares import Shares
from forebay_scheduler.lines import Line
from forebay_scheduler.matching import Matching
from forebay_scheduler.placing.choices import Choice
from forebay_scheduler.placing.placement import PlacingRules
from forebay_scheduler.placing.station import Station
from forebay_scheduler.placing.stations import Stations
from forebay_scheduler.request import BackendId, LedgerId, PoolName, Request, UserId
from forebay_scheduler.rules import Rules
from forebay_scheduler.terms import PoolTerms

POOL = PoolName("default")
GPU1, GPU2 = BackendId("gpu1"), BackendId("gpu2")
RULES = Rules(placing=PlacingRules(explored=0.0, jitter=0.0))
COST = 1_000_000


class Place:
    """A line of one pool, backends, and a clock that stands still. `barred`: those whose gateway may hold no more;
    `cramped`: those for which there is no room enough anywhere."""

    def __init__(self, window: int | None = None, **slots: int) -> None:
        self.stations = Stations()
        backends = [Backend(BackendId(name), POOL, frozenset({"m", "n"}), count) for name, count in slots.items()]
        self.stations.change(backends, 0.0)
        terms = PoolTerms(POOL, locality_window=window)
        self.line = Line(POOL, RULES, Shares(), self.stations, terms, random.Random(1))
        self.barred: set[str] = set()
        self.cramped: set[str] = set()
        self.matching = Matching(
            self.stations, self.place, self.begin, lambda request: _name(request) in self.barred, pass_window=1500.0
        )
        self.started: list[str] = []
        self.ahead: dict[str, float] = {}

    def place(self, line: Line, request: Request) -> Choice | None:
        if _name(request) in self.barred | self.cramped:
            return None
        return line.placement.choose(request, 0.0)

    def begin(self, line: Line, request: Request, choice: Choice, ahead: float) -> None:
        name = _name(request)
        line.queue.start(request, COST)
        self.stations.take(choice.station, request.model, request.width, 1, 0.0)
        line.placement.note_grant(choice.station, request, choice, 0.0)
        self.started.append(f"{name} on {choice.station.id}")
        self.ahead[name] = ahead

    def station(self, name: BackendId = GPU1) -> Station:
        station = self.stations.get(name)
        assert station is not None
        return station

    def wait(self, *requests: Request) -> None:
        for request in requests:
            self.line.queue.push(request)

    def fill(self, name: BackendId = GPU1) -> list[str]:
        self.started.clear()
        self.matching.fill(self.line, self.station(name))
        return list(self.started)

    def end(self, slots: int, name: BackendId = GPU1) -> None:
        self.stations.give_back(self.station(name), "m", slots, 1, 0.0)


def _name(request: Request) -> str:
    return request.ledger_id.decode()


def want(name: str, *, model: str = "m", width: int = 1, but_not: tuple[BackendId, ...] = ()) -> Request:
    """The user is the first letter."""
    excluded = frozenset(but_not)
    return Request(LedgerId(name.encode()), UserId(name[0]), model, 0.0, width=width, excluded=excluded)


def test_a_backend_is_filled_in_turn() -> None:
    place = Place(gpu1=3)
    place.wait(want("a1"), want("a2"), want("a3"), want("b1"))
    assert place.fill() == ["a1 on gpu1", "b1 on gpu1", "a2 on gpu1"]
    assert len(place.line.queue) == 1


def test_what_waits_for_another_model_is_not_in_the_way() -> None:
    place = Place(gpu1=1)
    place.stations.change([Backend(GPU1, POOL, frozenset({"n"}), 1)], 0.0)
    place.wait(want("a1"), want("b1", model="n"))
    assert place.fill() == ["b1 on gpu1"]


def test_one_whose_gateway_may_hold_no_more_lets_others_pass_and_says_how_far_they_were_ahead() -> None:
    place = Place(gpu1=1)
    place.line.queue.pass_by(want("b0"), COST)
    place.wait(want("a1"), want("b1"))
    place.barred = {"a1"}
    assert place.fill() == ["b1 on gpu1"]
    assert place.ahead["b1"] > 0
    place.barred = set()
    place.end(1)
    assert place.fill() == ["a1 on gpu1"]


def test_one_that_fits_nowhere_is_passed_only_by_those_who_are_nearly_as_little_served() -> None:
    place = Place(gpu1=4)
    place.line.queue.pass_by(want("b0"), COST)
    place.line.queue.pass_by(want("c0"), 2 * COST)
    place.wait(want("a1"), want("b1"), want("c1"))
    place.cramped = {"a1"}
    assert place.fill() == ["b1 on gpu1"], "a thousand tokens ahead; the next would be two thousand"
    place.cramped = set()
    assert place.fill()[0] == "a1 on gpu1"


def test_behind_one_that_this_backend_has_failed_others_of_its_line_may_start() -> None:
    place = Place(gpu1=1, gpu2=1)
    place.stations.take(place.station(GPU2), "m", 1, 1, 0.0)
    place.wait(want("a1", but_not=(GPU1,)), want("a2"))
    assert place.fill() == ["a2 on gpu1"]
    place.end(1, GPU2)
    assert place.fill(GPU2) == ["a1 on gpu2"]


def test_for_a_wide_one_a_backend_is_kept_until_it_fits() -> None:
    place = Place(gpu1=3)
    place.stations.take(place.station(), "m", 3, 1, 0.0)
    place.wait(want("w1", width=2), want("a1"), want("b1"))
    place.end(1)
    assert place.fill() == []
    assert place.station().kept_for == b"w1"
    place.end(1)
    assert place.fill() == ["w1 on gpu1"], "and nobody else in the same turn"


def test_what_is_kept_for_one_that_went_is_for_all_again() -> None:
    place = Place(gpu1=3)
    place.stations.take(place.station(), "m", 2, 1, 0.0)
    wide = want("w1", width=2)
    place.wait(wide, want("a1"))
    assert place.fill() == []
    place.line.queue.remove(wide.ledger_id)
    assert place.fill() == ["a1 on gpu1"]
    assert place.station().kept_for is None


def test_only_one_backend_is_kept_for_one_request() -> None:
    place = Place(gpu1=2, gpu2=2)
    for name in (GPU1, GPU2):
        place.stations.take(place.station(name), "m", 1, 1, 0.0)
    place.wait(want("w1", width=2), want("a1"))
    place.fill(GPU1)
    place.fill(GPU2)
    kept = [station.id for station in place.stations if station.kept_for is not None]
    assert len(kept) == 1
    (other,) = {GPU1, GPU2} - set(kept)
    assert place.started == [f"a1 on {other}"] or place.station(other).used == 2


def _with_prefix(request: Request, *blocks: int) -> Request:
    request.prefix_hashes = blocks
    request.prompt_tokens = 100 * len(blocks)
    return request


def _cache(place: Place, *blocks: int) -> None:
    """gpu1 has read a prompt that begins so."""
    before = _with_prefix(want("z0"), *blocks)
    choice = place.line.placement.choose(before, 0.0)
    assert choice is not None
    place.line.placement.note_grant(choice.station, before, choice, 0.0)
    place.line.placement.note_first_token(choice.station, before, 0.1, 0.0)


def test_one_whose_prompt_is_cached_there_goes_first_within_the_window() -> None:
    place = Place(gpu1=1)
    _cache(place, 1, 2, 3, 4, 5, 6)
    place.wait(want("a1"), _with_prefix(want("b1"), 1, 2, 3, 4, 5, 6, 7))
    assert place.fill() == ["b1 on gpu1"]


def test_beyond_the_window_it_is_the_turn_that_counts() -> None:
    place = Place(gpu1=1)
    _cache(place, 1, 2, 3, 4, 5, 6)
    place.line.queue.pass_by(want("b0"), 5 * COST)
    place.wait(want("a1"), _with_prefix(want("b1"), 1, 2, 3, 4, 5, 6, 7))
    assert place.fill() == ["a1 on gpu1"]


def test_without_a_window_a_cached_prefix_is_no_reason() -> None:
    place = Place(window=0, gpu1=1)
    _cache(place, 1, 2, 3, 4, 5, 6)
    place.wait(want("a1"), _with_prefix(want("b1"), 1, 2, 3, 4, 5, 6, 7))
    assert place.fill() == ["a1 on gpu1"]


def test_what_comes_to_wait_starts_wherever_there_is_room() -> None:
    place = Place(gpu1=1, gpu2=1)
    place.wait(want("a1"), want("b1"), want("c1"))
    serving = place.stations.serving(POOL, "m")
    assert serving is not None
    place.matching.serve(place.line, "m", serving)
    assert sorted(place.started) == ["a1 on gpu1", "b1 on gpu2"]
    assert len(place.line.queue) == 1
