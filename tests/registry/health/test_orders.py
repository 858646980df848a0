"""What keeps backends empty, and what a clock that is set does to it: as little as can be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forebay.errors import BadInput
from forebay_registry.backend import BackendId, Desired, NodeId
from forebay_registry.health.orders import (
    Drain,
    KeptEmpty,
    Scope,
    SteadyTime,
    Window,
    demand_drain,
    demand_window,
    kept_empty,
)

GPU = Desired(BackendId("be-1"), "gpu", "http://gpu", None, "night", 0, NodeId("no-1"), "ada", 0.0)
WINDOW = Window("mw-1", Scope.NODE, "no-1", 1000.0, 2000.0, 0, "new driver", "bob", 0.0)


def drains(*given: Drain) -> dict[tuple[Scope, str], Drain]:
    return {(drain.scope, drain.subject): drain for drain in given}


def test_a_drain_holds_until_it_is_lifted_and_says_whose_it_is() -> None:
    own = Drain(Scope.BACKEND, "be-1", 10.0, "ada", reason="too hot")
    assert kept_empty(GPU, drains(own), (), 1e9) == KeptEmpty("It is drained by ada: too hot.")
    of_node = Drain(Scope.NODE, "no-1", 10.0, "ada")
    assert kept_empty(GPU, drains(of_node), (), 20.0) == KeptEmpty("Its node is drained by ada.")
    assert kept_empty(replace(GPU, node_id=None), drains(of_node), (), 20.0) is None
    assert kept_empty(GPU, drains(replace(own, subject="be-2")), (), 20.0) is None


def test_of_several_deadlines_the_first_counts_and_force_once_it_is_due() -> None:
    soft = Drain(Scope.BACKEND, "be-1", 0.0, "ada", ends_at=100.0)
    hard = Drain(Scope.NODE, "no-1", 0.0, "bob", ends_at=200.0, is_forced=True)
    before = kept_empty(GPU, drains(soft, hard), (), 50.0)
    assert before is not None
    assert (before.deadline, before.is_forced) == (100.0, False)
    between = kept_empty(GPU, drains(soft, hard), (), 150.0)
    assert between is not None
    assert not between.is_forced
    after = kept_empty(GPU, drains(soft, hard), (), 200.0)
    assert after is not None
    assert (after.deadline, after.is_forced) == (100.0, True)


def test_a_window_keeps_its_backends_empty_while_it_is_open_and_before_it_when_it_says_so() -> None:
    def at(window: Window, now: float) -> KeptEmpty | None:
        return kept_empty(GPU, {}, (window,), now)

    assert at(WINDOW, 999.9) is None
    assert at(WINDOW, 1000.0) == KeptEmpty(
        "Its node is under maintenance, by bob: new driver.", None, is_forced=False, maintenance_until=2000.0
    )
    assert at(WINDOW, 2000.0) is None
    early = replace(WINDOW, drain_before_s=600)
    drains_first = at(early, 400.0)
    assert drains_first is not None
    assert (drains_first.deadline, drains_first.is_forced) == (1000.0, True)
    assert at(early, 399.9) is None
    assert at(replace(WINDOW, scope=Scope.POOL, subject="night"), 1500.0) is not None
    assert at(replace(WINDOW, scope=Scope.POOL, subject="day"), 1500.0) is None
    assert at(replace(WINDOW, scope=Scope.BACKEND, subject="be-1"), 1500.0) is not None


def test_orders_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BadInput, match="needs a deadline"):
        demand_drain(None, is_forced=True, reason="")
    with pytest.raises(BadInput, match="one line"):
        demand_drain(None, is_forced=False, reason="two\nlines")
    demand_window(WINDOW, 0, 0.0)
    for window, why in (
        (replace(WINDOW, ends_at=1000.0), "ends before it begins"),
        (replace(WINDOW, ends_at=1e9), "a year at most"),
        (replace(WINDOW, drain_before_s=90_000), "a day at most"),
    ):
        with pytest.raises(BadInput, match=why):
            demand_window(window, 0, 0.0)
    with pytest.raises(BadInput, match="over already"):
        demand_window(WINDOW, 0, 3000.0)
    with pytest.raises(BadInput, match="remove some"):
        demand_window(WINDOW, 1000, 0.0)


def test_a_clock_that_jumps_and_is_set_right_again_changes_nothing() -> None:
    steady = SteadyTime()
    assert steady.read(1000.0, 0.0) == 1000.0
    assert steady.read(1010.4, 10.0) == 1010.4, "a clock that drifts is followed"
    assert steady.read(9011.0, 11.0) == pytest.approx(1011.4)
    assert steady.is_in_doubt
    assert steady.read(9060.0, 60.0) == pytest.approx(1060.4)
    assert steady.read(1070.4, 70.0) == pytest.approx(1070.4)
    assert not steady.is_in_doubt


def test_a_step_that_lasts_is_believed_after_a_minute() -> None:
    steady = SteadyTime()
    steady.read(1000.0, 0.0)
    steady.read(4600.0, 0.0)
    assert steady.read(4659.0, 59.0) == 1059.0
    assert steady.read(4660.0, 60.0) == 4660.0
    back = steady.read(1061.0, 61.0)
    assert back == 4661.0, "and so is a step back"
    assert steady.read(1121.0, 121.0) == 1121.0
