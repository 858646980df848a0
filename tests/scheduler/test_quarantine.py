"""A dead gateway's slots, until its engines are done with them."""

from __future__ import annotations

from forebay_scheduler.backend import Backend
from forebay_scheduler.quarantine import FactsOf, Quarantine, Quarantined
from forebay_scheduler.request import BackendId, GatewayName, PoolName, Process

GPU = BackendId("gpu1")
G1: Process = (GatewayName("g1"), 1)


def quarantine(slots: int = 2, since: float = 100.0, process: Process = G1) -> Quarantine:
    kept = Quarantine()
    keep(kept, slots, since, process)
    return kept


def keep(kept: Quarantine, slots: int, since: float, process: Process) -> None:
    kept.add(Quarantined(GPU, slots, process, since, blind_until=since + 10, limit=since + 600))


def engine(running: int | None, measured_at: float = 0.0) -> FactsOf:
    facts = Backend(GPU, PoolName("default"), frozenset("m"), 4, running=running, measured_at=measured_at)
    return lambda backend: facts


def nothing_known(backend: BackendId, at: float) -> int:
    return 0


def test_slots_return_as_far_as_the_engines_count_has_room_for_them() -> None:
    kept = quarantine()
    assert kept.release(engine(running=1, measured_at=101.0), nothing_known, 102.0) == [(G1, GPU, 1)]
    assert kept.slots_on(GPU) == 1


def test_what_is_known_to_run_is_not_held_against_the_dead() -> None:
    kept = quarantine()
    kept.release(engine(running=3, measured_at=101.0), lambda backend, at: 3, 102.0)
    assert kept.slots_on(GPU) == 0


def test_a_count_from_before_the_death_proves_nothing() -> None:
    kept = quarantine()
    assert kept.release(engine(running=0, measured_at=100.0), nothing_known, 101.0) == []
    assert kept.slots_on(GPU) == 2


def test_without_a_count_slots_return_after_a_while() -> None:
    kept = quarantine()
    assert kept.release(engine(running=None), nothing_known, 109.9) == []
    assert kept.release(engine(running=None), nothing_known, 110.0) == [(G1, GPU, 2)]
    assert kept.release(engine(running=None), nothing_known, 111.0) == []


def test_a_count_that_nobody_renews_is_no_count() -> None:
    kept = quarantine()
    assert kept.release(engine(running=2, measured_at=99.0), nothing_known, 110.0) == [(G1, GPU, 2)]


def test_a_count_that_disagrees_keeps_the_slots_for_as_long_as_it_does_within_reason() -> None:
    kept = quarantine()
    assert kept.release(engine(running=4, measured_at=300.0), nothing_known, 301.0) == []
    assert kept.release(engine(running=4, measured_at=699.0), nothing_known, 700.0) == [(G1, GPU, 2)]


def test_a_backend_that_left_the_fleet_has_no_count() -> None:
    kept = quarantine()
    assert kept.release(lambda backend: None, nothing_known, 110.0) == [(G1, GPU, 2)]


def test_a_process_that_speaks_again_gets_its_quarantine_lifted() -> None:
    kept = quarantine()
    kept.drop((GatewayName("g1"), 2))
    assert kept.slots_on(GPU) == 2
    kept.drop(G1)
    assert kept.slots_on(GPU) == 0


def test_of_two_that_died_the_one_that_has_waited_longer_gets_its_slots_first() -> None:
    kept = quarantine(slots=2, since=100.0)
    later: Process = (GatewayName("g2"), 1)
    keep(kept, 2, 105.0, later)
    assert kept.release(engine(running=2, measured_at=106.0), nothing_known, 106.0) == [(G1, GPU, 2)]
    assert kept.slots_on(GPU) == 2
