"""Energy: from counters, from power and time, and whose it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_registry.history.energy import GAP_S, Holding, Meters, Reading, between, shared
from forebay_registry.history.rollup import Energy


def test_a_counter_is_believed_and_its_difference_divided_by_time_over_the_minutes_that_it_spans() -> None:
    portions = between(Reading(50.0, 1_000, 1), Reading(80.0, 1_000 + 3_600_000, 1))
    assert [(p.minute, pytest.approx(p.wh), p.seconds) for p in portions] == [
        (0, pytest.approx(1 / 3), 10.0),
        (60, pytest.approx(2 / 3), 20.0),
    ]
    assert not any(p.is_estimated for p in portions)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (None, None),  # no counter
        (5_000_000, 10),  # the driver was loaded anew
        (0, 10**15),  # more than any GPU draws
    ],
)
def test_without_a_counter_that_can_be_believed_power_and_time_make_an_estimate(
    before: int | None, now: int | None
) -> None:
    (portion,) = between(Reading(0.0, before, 300_000), Reading(10.0, now, 500_000))
    assert portion.is_estimated
    assert portion.wh == pytest.approx(400 * 10 / 3600)


def test_nothing_is_made_up_for_a_gap() -> None:
    assert between(Reading(0.0, None, 300_000), Reading(31.0, None, 300_000)) == []
    assert between(Reading(0.0, 0, None), Reading(GAP_S + 1, 1000, None)) == []
    assert between(Reading(0.0, None, None), Reading(2.0, None, 300_000)) == []
    assert between(Reading(5.0, 0, 1), Reading(5.0, 9, 1)) == []


def test_a_counter_tells_afterwards_what_was_taken_while_nothing_was_heard() -> None:
    portions = between(Reading(0.0, 0, None), Reading(300.0, 300_000_000, None))
    assert [p.minute for p in portions] == [0, 60, 120, 180, 240]
    assert sum(p.wh for p in portions) == pytest.approx(300_000 / 3600)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0.1, 400), st.integers(0, 700)), min_size=1, max_size=20))
def test_whatever_the_rhythm_all_that_was_counted_is_booked_once(steps: list[tuple[float, int]]) -> None:
    meters, at, counter, booked, seconds = Meters(), 7.0, 0, 0.0, 0.0
    meters.read("a", Reading(at, counter, None))
    for wait, watts in steps:
        at += wait
        counter += round(watts * wait * 1000)
        portions = meters.read("a", Reading(at, counter, None))
        booked += sum(p.wh for p in portions)
        seconds += sum(p.seconds for p in portions)
        assert all(p.minute <= at for p in portions)
    assert booked == pytest.approx(counter / 3_600_000)
    assert seconds == pytest.approx(at - 7.0)


def test_a_first_reading_gives_nothing_and_one_from_before_the_start_is_gone_on_from() -> None:
    meters = Meters()
    assert meters.read("a", Reading(0.0, 100, None)) == []
    meters.begin("b", Reading(0.0, 0, None))
    assert sum(p.wh for p in meters.read("b", Reading(36.0, 36_000, None))) == pytest.approx(0.01)


def test_backends_have_the_gpus_they_are_said_to_have_and_the_others_share_the_rest() -> None:
    gpus = {("n", i): Energy(gpu_wh=float(10 * (i + 1)), measured_s=60.0) for i in range(4)}  # 10, 20, 30, 40
    found = shared(
        gpus,
        {"n": 200.0},
        [Holding("a", "n", (0, 1)), Holding("b", "n", (1,)), Holding("c", "n"), Holding("far", "other")],
    )
    assert {name: e.gpu_wh for name, e in found.items()} == {"a": 20.0, "b": 10.0, "c": 70.0}
    assert {name: e.server_wh for name, e in found.items()} == {"a": 40.0, "b": 20.0, "c": 140.0}


def test_a_gpu_of_which_nothing_is_known_and_a_host_that_tells_nothing_leave_it_unknown() -> None:
    gpus = {("n", 0): Energy(), ("n", 1): Energy(gpu_wh=5.0, is_estimated=True)}
    found = shared(gpus, {}, [Holding("a", "n", (0,)), Holding("b", "n", (0, 1))])
    assert "a" not in found
    assert found["b"].gpu_wh == 5.0
    assert found["b"].server_wh is None
    assert found["b"].is_estimated
