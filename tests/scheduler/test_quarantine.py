"""A dead gateway's slots, until its engines are done with them."""

from __future__ import annotations

from forebay_scheduler.backend import Backend, Fleet
from forebay_scheduler.holds import Holds
from forebay_scheduler.quarantine import Quarantine, Quarantined
from forebay_scheduler.request import BackendId, Epoch, GatewayName, Held, Lease, LedgerId, PoolName, Request, UserId
from forebay_scheduler.rules import Rules

GPU = BackendId("gpu1")


def quarantine(slots: int = 2, since: float = 100.0) -> Quarantine:
    kept = Quarantine()
    kept.add(Quarantined(GPU, slots, GatewayName("g1"), 1, since, blind_until=since + 10, limit=since + 600))
    return kept


def fleet(running: int | None, measured_at: float = 0.0) -> Fleet:
    return Fleet([Backend(GPU, PoolName("default"), frozenset("m"), 4, running=running, measured_at=measured_at)])


def nothing_known(backend: BackendId, at: float) -> int:
    return 0


def test_slots_return_as_far_as_the_engines_count_has_room_for_them() -> None:
    kept = quarantine()
    assert kept.release(fleet(running=1, measured_at=101.0), nothing_known, 102.0) == {GPU}
    assert kept.slots_on(GPU) == 1


def test_what_is_known_to_run_is_not_held_against_the_dead() -> None:
    kept = quarantine()
    kept.release(fleet(running=3, measured_at=101.0), lambda backend, at: 3, 102.0)
    assert kept.slots_on(GPU) == 0


def test_a_count_from_before_the_death_proves_nothing() -> None:
    kept = quarantine()
    assert kept.release(fleet(running=0, measured_at=100.0), nothing_known, 101.0) == set()
    assert kept.slots_on(GPU) == 2


def test_without_a_count_slots_return_after_a_while() -> None:
    kept = quarantine()
    assert kept.release(fleet(running=None), nothing_known, 109.9) == set()
    assert kept.release(fleet(running=None), nothing_known, 110.0) == {GPU}


def test_a_count_that_nobody_renews_is_no_count() -> None:
    kept = quarantine()
    assert kept.release(fleet(running=2, measured_at=99.0), nothing_known, 110.0) == {GPU}


def test_a_count_that_disagrees_keeps_the_slots_for_as_long_as_it_does_within_reason() -> None:
    kept = quarantine()
    assert kept.release(fleet(running=4, measured_at=300.0), nothing_known, 301.0) == set()
    assert kept.release(fleet(running=4, measured_at=699.0), nothing_known, 700.0) == {GPU}


def test_a_backend_that_left_the_fleet_has_no_count() -> None:
    kept = quarantine()
    assert kept.release(Fleet(), nothing_known, 110.0) == {GPU}


def test_a_process_that_speaks_again_gets_its_quarantine_lifted() -> None:
    kept = quarantine()
    assert kept.drop(GatewayName("g1"), 2) == set()
    assert kept.drop(GatewayName("g1"), 1) == {GPU}
    assert kept.slots_on(GPU) == 0


def test_a_generation_that_began_in_the_moment_of_the_count_is_not_taken_to_be_in_it() -> None:
    holds = Holds(Rules())
    dead = Request(LedgerId(b"d" * 16), UserId("ann"), "m", 90.0, width=3)
    live = Request(LedgerId(b"l" * 16), UserId("bob"), "m", 100.0)
    lease = Lease(Epoch(1, 1), 1)
    holds.take(Held(dead, GPU, lease, 1, GatewayName("g1"), 1, since=90.0))
    holds.bury(GatewayName("g1"), 1, 100.0)
    holds.take(Held(live, GPU, Lease(Epoch(1, 1), 2), 1, GatewayName("g2"), 1, since=100.5, first_token_at=101.0))
    # The engine counted two of the dead one's three; the live one began in that very moment and may not be among them.
    holds.release(fleet(running=2, measured_at=101.0), 101.0)
    assert holds.quarantined_on(GPU) == 2
