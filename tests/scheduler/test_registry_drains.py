"""Drains by the registry's word: what is placed, what is moved, what is ended, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from forebay.clock import ManualClock
from forebay.errors import Refusal
from forebay.wire.v1 import registry_pb2
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend, Drain
from forebay_scheduler.decisions import Reject, Revoke, StoredCeilings
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import Epoch, GatewayName, LedgerId, PoolName
from forebay_scheduler.rules import Rules
from forebay_scheduler.standing import draining, show
from forebay_scheduler.wire import read_backend
from tests.scheduler.one_gateway import GPU1, GPU2, S1, Place, want


class Draining(Place):
    """The same, of which one backend drains."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = want("a"), want("b")
        self.submit(0.0, self.a, self.b)
        (self.on_gpu1,) = [r for r in (self.a, self.b) if self.grants[r.ledger_id].backend == GPU1]

    def drain(self, now: float, drain: Drain | None) -> None:
        gpu1 = Backend(GPU1, PoolName("default"), frozenset({"m"}), 1, drain=drain)
        self.say(now, ev.BackendsReported((gpu1,)))

    def revoked(self, now: float) -> list[tuple[LedgerId, Refusal, bool]]:
        decisions: Iterable[object] = self.policy.apply((ev.Tick(None),), now)
        return [(d.ledger_id, d.reason, d.is_forced) for d in decisions if isinstance(d, Revoke)]


def test_nothing_new_is_placed_there_until_it_is_lifted() -> None:
    place = Draining()
    place.drain(1.0, Drain())
    place.settle(2.0, place.on_gpu1, 10)
    late = want("c")
    place.submit(3.0, late)
    assert late.ledger_id not in place.grants
    place.drain(4.0, None)
    assert place.grants[late.ledger_id].backend == GPU1


def test_after_the_deadline_what_has_no_first_token_goes_elsewhere_and_the_rest_may_finish() -> None:
    place = Draining()
    place.drain(1.0, Drain(10.0))
    assert place.revoked(9.0) == []
    assert place.revoked(10.0) == [(place.on_gpu1.ledger_id, Refusal.DRAINING, False)]
    assert place.revoked(11.0) == [], "told once"
    other = Draining()
    other.say(1.0, ev.FirstToken(S1, other.on_gpu1.ledger_id, 0.1))
    other.drain(2.0, Drain(10.0))
    assert other.revoked(60.0) == []


def test_a_forced_one_ends_also_what_has_begun_even_after_a_mild_one() -> None:
    place = Draining()
    place.say(1.0, ev.FirstToken(S1, place.on_gpu1.ledger_id, 0.1))
    place.drain(2.0, Drain(10.0))
    assert place.revoked(10.0) == []
    place.drain(11.0, Drain(12.0, is_forced=True))
    assert place.revoked(12.0) == [(place.on_gpu1.ledger_id, Refusal.DRAINING, True)]
    assert place.revoked(13.0) == []
    moved = Draining()
    moved.drain(1.0, Drain(2.0))
    assert moved.revoked(2.0) == [(moved.on_gpu1.ledger_id, Refusal.DRAINING, False)]
    moved.drain(3.0, Drain(4.0, is_forced=True))
    assert moved.revoked(4.0) == [(moved.on_gpu1.ledger_id, Refusal.DRAINING, True)]


def test_what_is_held_there_is_told_until_it_is_lifted() -> None:
    place = Draining()
    assert not draining(place.policy).backends
    place.drain(1.0, Drain())
    assert [(b.backend_id, b.held) for b in draining(place.policy).backends] == [(GPU1, 1)]
    shown = {held.backend_id: held for held in show(place.policy, 2.0).held}
    assert (shown[GPU1].draining, shown[GPU1].closed_because, shown[GPU2].draining) == (True, "it is draining", False)
    place.settle(2.0, place.on_gpu1, 10)
    assert [b.held for b in draining(place.policy).backends] == [0]
    place.drain(3.0, None)
    assert not draining(place.policy).backends


@pytest.mark.parametrize(
    ("word", "is_open"),
    [
        ("HEALTHY", True),
        ("DEGRADED", True),
        ("SATURATED", True),
        ("UNKNOWN", False),
        ("STARTING", False),
        ("DRAINING", True),
        ("DRAINED", True),
        ("UNHEALTHY", False),
        ("OFFLINE", False),
    ],
)
def test_each_state_of_the_registry_is_worth_waiting_for_or_not(word: str, is_open: bool) -> None:
    told = registry_pb2.Backend(id="gpu1", enabled=True, slots=1)
    told.health = registry_pb2.BackendHealth.Value(f"BACKEND_HEALTH_{word}")
    assert read_backend(told, ManualClock(100.0)).is_open is is_open


def test_nobody_waits_for_the_end_of_maintenance_or_for_an_engine_that_was_stopped() -> None:
    drained = registry_pb2.Backend(id="gpu1", enabled=True, health=registry_pb2.BACKEND_HEALTH_DRAINED)
    drained.health_cause = "stopped"
    assert not read_backend(drained, ManualClock(1.0)).is_open
    drained.health_cause, drained.maintenance_until_us = "empty", 5_000_000
    assert not read_backend(drained, ManualClock(1.0)).is_open
    place = Draining()
    for backend in (GPU1, GPU2):
        lasting = Backend(backend, PoolName("default"), frozenset({"m"}), 1, drain=Drain(is_lasting=True))
        place.say(1.0, ev.BackendsReported((lasting,)))
    assert draining(place.policy).backends
    late = want("c")
    decisions = place.policy.apply((ev.Submit(S1, late),), 2.0)
    assert [d.reason for d in decisions if isinstance(d, Reject)] == [Refusal.NO_BACKEND]


def test_a_drains_deadline_is_read_on_the_schedulers_own_clock() -> None:
    clock = ManualClock(1_000.0)
    told = registry_pb2.Backend(id="gpu1", health=registry_pb2.BACKEND_HEALTH_DRAINING, draining=True)
    assert read_backend(told, clock).drain == Drain()
    told.drain_deadline_us, told.drain_forced = 1_060_000_000, True
    assert read_backend(told, clock).drain == Drain(clock.monotonic() + 60.0, is_forced=True)


def test_a_new_leader_does_not_call_a_backend_empty_before_its_gateways_have_spoken() -> None:
    drained = Backend(GPU1, PoolName("default"), frozenset({"m"}), 1, drain=Drain())
    stored = StoredCeilings(GatewayName("g1"), 2, {GPU1: 1})
    policy = Policy(Rules(), Epoch(3, 5), 0.0, recovered=[stored])
    policy.apply((ev.FleetChanged((drained,)),), 0.0)
    assert not draining(policy).backends, "nobody knows what runs there"
    policy.apply((ev.SessionOpened(S1, GatewayName("g1"), 2),), 1.0)
    assert [(b.backend_id, b.held) for b in draining(policy).backends] == [(GPU1, 0)]
