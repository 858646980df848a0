"""What a leader leaves is read by its successor as it was."""

from __future__ import annotations

from dataclasses import replace

from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler.limits.limits import RateFilled, SpentSoFar
from forebay_scheduler.request import BackendId, LedgerId, PoolName
from forebay_scheduler.saved import NOTHING_SAVED, SavedState
from forebay_scheduler.state_wire import read_state, state_to_wire

AT_US = 1_767_258_000_000_000
STATE = SavedState(
    ahead={PoolName("default"): (("standard\x1fu:alice", -512_000), ("standard\x1fu:bob", 7))},
    spent=(SpentSoFar("user:alice", "b1", 5, 123_456), SpentSoFar("key:k", "b2", 5, 1, (0, 7))),
    rates=(RateFilled("key:k1", "requests", 99), RateFilled("key:k1", "tokens", 100)),
    settled=(LedgerId(b"a" * 16), LedgerId(b"b" * 16)),
    lengths={"m": 301.5},
    drains={BackendId("gpu1"): None, BackendId("gpu2"): 30.0},
    found_limits=((BackendId("gpu3"), "m", 6.5),),
    prefills=((BackendId("gpu3"), "m", [1.0, 2.5]),),
)


def test_a_state_comes_back_as_it_was() -> None:
    told = scheduler_pb2.SchedulerState.FromString(state_to_wire(STATE, AT_US).SerializeToString())
    assert read_state(told, AT_US) == replace(STATE, stored_at_us=AT_US, wall_us=AT_US)


def test_nothing_comes_back_as_nothing() -> None:
    assert read_state(state_to_wire(NOTHING_SAVED, AT_US), AT_US) == replace(
        NOTHING_SAVED, stored_at_us=AT_US, wall_us=AT_US
    )


def test_a_deadline_that_passed_while_nobody_led_has_passed() -> None:
    state = read_state(state_to_wire(STATE, AT_US), AT_US + 45_000_000)
    assert state.drains == {"gpu1": None, "gpu2": -15.0}


def test_a_budget_that_was_paid_back_is_not_stored_as_a_debt_of_ours() -> None:
    told = state_to_wire(replace(STATE, spent=(SpentSoFar("user:alice", "b1", 5, -3),)), AT_US)
    assert [one.amount for one in told.spent] == [0]


def test_what_a_later_scheduler_stored_and_this_one_does_not_know_is_left_out() -> None:
    told = state_to_wire(STATE, AT_US)
    told.rates.add(subject="key:k1", rate="images", full_until_us=1)
    told.pools[0].nodes.append("standard\x1fu:carol")
    read = read_state(told, AT_US)
    assert read.rates == STATE.rates
    assert read.ahead == STATE.ahead
