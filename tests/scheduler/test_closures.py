"""Which backends get nothing now, and why."""

from __future__ import annotations

from dataclasses import replace

from forebay_scheduler.backend import Backend, Drain
from forebay_scheduler.breaker import Breaker
from forebay_scheduler.closures import DRAINING, OFF, RESTING, UNWELL, Closures
from forebay_scheduler.placing.station import Station
from forebay_scheduler.placing.stations import Stations
from forebay_scheduler.request import BackendId, LedgerId, PoolName

GPU = BackendId("gpu1")
WELL = Backend(GPU, PoolName("default"), frozenset({"m"}), 2)
ONE, TWO = LedgerId(b"1"), LedgerId(b"2")


class Place:
    """One backend and its closures."""

    def __init__(self) -> None:
        self.stations = Stations()
        self.stations.change([WELL], 0.0)
        self.closures = Closures(self.stations, Breaker(failures=3, rest_s=5.0))

    @property
    def station(self) -> Station:
        station = self.stations.get(GPU)
        assert station is not None
        return station

    def is_now(self, facts: Backend, now: float = 0.0) -> bool:
        self.stations.change([facts], now)
        return self.closures.review(self.station, now)

    def fail(self, now: float) -> None:
        for _ in range(3):
            self.closures.note_failure(self.station, ONE, now)

    @property
    def has_room(self) -> bool:
        serving = self.stations.serving(PoolName("default"), "m")
        return serving is not None and bool(serving.free)


def test_a_backend_that_is_well_is_open() -> None:
    place = Place()
    assert not place.closures.review(place.station, 0.0)
    assert place.station.closed is None
    assert place.has_room


def test_what_is_closed_says_why_and_the_graver_reason_first() -> None:
    place = Place()
    place.closures.drains[GPU] = None
    assert not place.is_now(WELL)
    assert place.station.closed == DRAINING
    place.is_now(replace(WELL, enabled=False))
    assert place.station.closed == OFF
    place.is_now(replace(WELL, enabled=False, healthy=False))
    assert place.station.closed == UNWELL
    assert not place.has_room
    assert not place.is_now(WELL)
    del place.closures.drains[GPU]
    assert place.is_now(WELL), "told as opened, once"
    assert not place.is_now(WELL)
    assert place.has_room


def test_a_drain_by_the_registrys_word_closes_it_and_is_due_by_its_deadline() -> None:
    place = Place()
    place.is_now(replace(WELL, drain=Drain()))
    assert (place.station.closed, place.closures.is_draining(GPU), place.has_room) == (DRAINING, True, False)
    assert place.closures.due(1e9) == {}, "without a deadline all may finish"
    place.is_now(replace(WELL, drain=Drain(10.0)))
    assert (place.closures.due(9.9), place.closures.due(10.0)) == ({}, {GPU: False})
    place.is_now(replace(WELL, drain=Drain(10.0, is_forced=True)))
    assert place.closures.due(10.0) == {GPU: True}
    assert place.is_now(WELL), "and opens when it is lifted"
    assert not place.closures.is_draining(GPU)


def test_three_failures_close_it_and_its_rest_opens_it_by_time_alone() -> None:
    place = Place()
    place.fail(10.0)
    assert place.station.closed == RESTING
    assert place.closures.wake(14.9) == []
    assert place.closures.wake(15.0) == [place.station]
    assert place.station.closed is None
    assert place.closures.wake(16.0) == []


def test_while_one_request_is_on_trial_it_gets_no_other() -> None:
    place = Place()
    place.fail(0.0)
    place.closures.wake(5.0)
    place.closures.note_grant(place.station, TWO, 5.0)
    assert place.station.closed == RESTING
    assert place.closures.note_success(place.station, TWO, 6.0)
    assert place.station.closed is None


def test_a_trial_without_a_verdict_opens_it_for_the_next() -> None:
    place = Place()
    place.fail(0.0)
    place.closures.wake(5.0)
    place.closures.note_grant(place.station, TWO, 5.0)
    assert place.closures.note_end(place.station, TWO, 6.0)
    assert place.station.closed is None


def test_a_rest_that_ends_while_it_is_unwell_opens_nothing() -> None:
    place = Place()
    place.fail(0.0)
    place.is_now(replace(WELL, healthy=False), 1.0)
    assert place.closures.wake(5.0) == []
    assert place.station.closed == UNWELL
    assert place.is_now(WELL, 6.0)


def test_a_pause_that_it_asked_for_closes_it_for_as_long() -> None:
    place = Place()
    place.closures.pause(place.station, 2.0, 0.0)
    assert place.station.closed == RESTING
    assert place.closures.wake(2.0) == [place.station]


def test_one_that_left_while_it_rested_wakes_nobody() -> None:
    place = Place()
    place.fail(0.0)
    place.stations.change([], 1.0)
    place.closures.keep_only(set())
    assert place.closures.wake(60.0) == []
