"""Who holds which slots, and what of it an engine has certainly counted."""

from __future__ import annotations

from forebay_scheduler.fairness.fair_queue import FairQueue
from forebay_scheduler.fairness.shares import Shares
from forebay_scheduler.holds import Held, Holds
from forebay_scheduler.request import BackendId, Epoch, GatewayName, Lease, LedgerId, Process, Request, UserId

GPU = BackendId("gpu1")
G1: Process = (GatewayName("g1"), 1)
QUEUE = FairQueue(Shares())


def held(name: str, since: float, *, width: int = 1, is_told: bool = True) -> Held:
    request = Request(LedgerId(name.encode()), UserId("ann"), "m", since, width=width)
    lease = Lease(Epoch(1, 1), ord(name))
    return Held(request, GPU, lease, 1, G1, since, QUEUE.pass_by(request, 1), 1, station=None, is_told=is_told)


def test_what_is_given_back_is_held_no_more() -> None:
    holds = Holds()
    one = held("a", 0.0)
    holds.take(one)
    assert holds.of(G1) == [one]
    assert holds.count_of(G1) == 1
    holds.give_back(one)
    assert len(holds) == 0
    assert holds.of(G1) == []


def test_a_generation_that_began_in_the_moment_of_the_count_is_not_taken_to_be_in_it() -> None:
    holds = Holds()
    one = held("l", 100.5, width=2)
    holds.take(one)
    assert holds.running_at(GPU, 101.0) == 0
    assert holds.running_at(GPU, 101.5) == 2
    one.first_token_at = 101.0
    assert holds.running_at(GPU, 101.0) == 0
    assert holds.running_at(GPU, 101.1) == 2


def test_a_grant_that_its_gateway_was_not_told_of_runs_nowhere() -> None:
    holds = Holds()
    holds.take(held("u", 0.0, is_told=False))
    assert holds.running_at(GPU, 500.0) == 0
