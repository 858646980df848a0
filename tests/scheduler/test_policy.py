"""What stories cannot show: leases, epochs, addresses of decisions, and that the core is pure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from forebay.errors import Refusal
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.decisions import Decision, Grant, Orphan, Reject, SessionEnded, Settled
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import (
    BackendId,
    Claim,
    Epoch,
    GatewayName,
    Holding,
    Lease,
    LedgerId,
    PoolName,
    Request,
    SessionId,
    UserId,
)
from forebay_scheduler.rules import Rules

S1, S2 = SessionId(1), SessionId(2)
G1 = GatewayName("g1")
GPU1, GPU2 = BackendId("gpu1"), BackendId("gpu2")


def backend(name: BackendId, slots: int = 1) -> Backend:
    return Backend(name, PoolName("default"), frozenset({"m"}), slots)


def want(name: str, arrived_at: float = 0.0, width: int = 1) -> Request:
    return Request(LedgerId(name.encode()), UserId("alice"), "m", arrived_at, width=width, started_at_us=7)


def policy_with(*backends: Backend, rules: Rules | None = None) -> Policy:
    policy = Policy(rules or Rules(), Epoch(5, 1), 0.0)
    policy.apply([ev.FleetChanged(backends), ev.SessionOpened(S1, G1, 1)], 0.0)
    return policy


def only_grant(decisions: list[Decision]) -> Grant:
    (grant,) = [decision for decision in decisions if isinstance(decision, Grant)]
    return grant


def test_a_grant_says_where_under_which_lease_and_after_how_long() -> None:
    policy = policy_with(backend(GPU1))
    assert policy.apply([ev.Submit(S1, want("a", arrived_at=1.0))], 3.5) == [
        Grant(S1, LedgerId(b"a"), GPU1, 1, Lease(Epoch(5, 1), 1), 1, queued_s=2.5)
    ]


def test_a_settle_under_the_lease_of_an_earlier_attempt_frees_nothing() -> None:
    policy = policy_with(backend(GPU1), backend(GPU2))
    first = only_grant(policy.apply([ev.Submit(S1, want("a"))], 0.0))
    second = only_grant(policy.apply([ev.Nack(S1, first.ledger_id, first.lease.seq)], 0.0))
    assert policy.apply([ev.Settle(S1, first.ledger_id, first.lease)], 0.0) == [Settled(S1, first.ledger_id)]
    assert policy.holds.live_on(second.backend) == 1
    assert policy.tally.stale_settles == 1
    policy.apply([ev.Settle(S1, second.ledger_id, second.lease)], 0.0)
    assert policy.holds.live_on(second.backend) == 0


def test_a_settle_of_another_epoch_frees_nothing() -> None:
    policy = policy_with(backend(GPU1))
    grant = only_grant(policy.apply([ev.Submit(S1, want("a"))], 0.0))
    policy.apply([ev.Settle(S1, grant.ledger_id, Lease(Epoch(4, 9), grant.lease.seq))], 0.0)
    assert policy.holds.live_on(GPU1) == 1


def test_another_gateway_can_neither_settle_nor_cancel_what_is_not_its_own() -> None:
    policy = policy_with(backend(GPU1))
    grant = only_grant(policy.apply([ev.Submit(S1, want("a"))], 0.0))
    policy.apply([ev.SessionOpened(S2, GatewayName("g2"), 1)], 0.0)
    policy.apply([ev.Settle(S2, grant.ledger_id, grant.lease), ev.Cancel(S2, grant.ledger_id)], 0.0)
    assert policy.holds.live_on(GPU1) == 1


def test_a_settle_without_a_lease_takes_back_a_grant_that_its_gateway_never_saw() -> None:
    policy = policy_with(backend(GPU1))
    policy.apply([ev.Submit(S1, want("a"))], 0.0)
    policy.apply([ev.Settle(S1, LedgerId(b"a"), None)], 0.0)
    assert policy.holds.live_on(GPU1) == 0


def test_events_that_cannot_be_read_change_nothing() -> None:
    policy = policy_with(backend(GPU1))

    def broken() -> Iterator[ev.Event]:
        yield ev.Submit(S1, want("a"))
        raise ValueError("not a frame")

    with pytest.raises(ValueError, match="not a frame"):
        policy.apply(broken(), 0.0)
    assert policy.holds.live_on(GPU1) == 0
    assert not list(policy.queued())


def test_everything_waits_until_the_fleet_is_known() -> None:
    policy = Policy(Rules(), Epoch(1, 1), 0.0)
    assert policy.apply([ev.SessionOpened(S1, G1, 1), ev.Submit(S1, want("a"))], 0.0) == []
    assert only_grant(policy.apply([ev.FleetChanged((backend(GPU1),))], 1.0)).queued_s == 1.0


def test_a_stopped_scheduler_grants_nothing_and_still_takes_settles() -> None:
    policy = policy_with(backend(GPU1))
    grant = only_grant(policy.apply([ev.Submit(S1, want("a"))], 0.0))
    policy.stop()
    decisions = policy.apply([ev.Submit(S1, want("b")), ev.Settle(S1, grant.ledger_id, grant.lease)], 0.0)
    assert decisions == [Settled(S1, grant.ledger_id)]


def test_a_frame_may_carry_more_than_the_queue_holds_if_slots_are_free_for_it() -> None:
    policy = policy_with(backend(GPU1, slots=3), rules=Rules(queue_per_user=1))
    decisions = policy.apply([ev.Submit(S1, want(str(n), arrived_at=float(n))) for n in range(5)], 5.0)
    assert [type(decision) for decision in decisions] == [Grant, Grant, Grant, Reject]
    refused = decisions[-1]
    assert isinstance(refused, Reject)
    assert (refused.ledger_id, refused.reason) == (b"4", Refusal.QUEUE_FULL)


def test_retries_are_budgeted() -> None:
    backends = [backend(BackendId(f"gpu{n}"), slots=20) for n in range(4)]
    policy = policy_with(*backends, rules=Rules(retry_reserve=1, breaker_failures=100))
    grants = policy.apply([ev.Submit(S1, want(str(n), arrived_at=float(n))) for n in range(2)], 2.0)
    first, second = [grant for grant in grants if isinstance(grant, Grant)]
    assert only_grant(policy.apply([ev.Nack(S1, first.ledger_id, first.lease.seq)], 2.0)).attempt == 2
    (refused,) = policy.apply([ev.Nack(S1, second.ledger_id, second.lease.seq)], 2.0)
    assert isinstance(refused, Reject)
    assert refused.reason is Refusal.ENGINE_FAILED


def test_an_orphan_carries_what_its_ledger_row_needs() -> None:
    policy = policy_with(backend(GPU1))
    policy.apply([ev.Submit(S1, want("a"))], 2.0)
    policy.apply([ev.FirstToken(S1, LedgerId(b"a"))], 3.0)
    policy.apply([ev.Progress(S1, LedgerId(b"a"), 41)], 4.0)
    policy.apply([ev.SessionLost(S1)], 4.5)
    decisions: list[Decision] = []
    for second in range(5, 70):
        decisions += policy.apply([ev.Tick()], float(second))
    (orphan,) = decisions
    assert isinstance(orphan, Orphan)
    assert (orphan.gateway, orphan.generation, orphan.backend) == ("g1", 1, "gpu1")
    assert (orphan.queued_s, orphan.ttft_s, orphan.lived_s, orphan.completion_tokens) == (2.0, 3.0, 4.0, 41)
    assert (orphan.request.attempts, orphan.request.started_at_us) == (1, 7)


def test_a_successor_that_tells_how_a_request_ended_spares_it_from_being_an_orphan() -> None:
    policy = policy_with(backend(GPU1, slots=2))
    policy.apply([ev.Submit(S1, want("a")), ev.Submit(S1, want("b"))], 0.0)
    policy.apply([ev.SessionOpened(S2, G1, 2), ev.Settle(S2, LedgerId(b"a"), Lease(Epoch(5, 1), 1))], 1.0)
    orphans = [
        decision
        for second in range(2, 70)
        for decision in policy.apply([ev.Heard(S2)], float(second))
        if isinstance(decision, Orphan)
    ]
    assert [orphan.request.ledger_id for orphan in orphans] == [b"b"]


def test_a_scheduler_that_slept_itself_takes_nobody_for_silent() -> None:
    policy = policy_with(backend(GPU1))
    policy.apply([ev.Submit(S1, want("a"))], 0.0)
    assert policy.apply([ev.Tick()], 500.0) == []
    assert (
        only_grant(policy.apply([ev.Cancel(S1, LedgerId(b"a")), ev.Submit(S1, want("b", 500.0))], 501.0)).backend
        == GPU1
    )


def test_a_session_that_does_not_speak_for_its_gateway_is_told_once_a_frame() -> None:
    policy = policy_with(backend(GPU1))
    (ended,) = policy.apply([ev.Submit(S2, want("a")), ev.Submit(S2, want("b"))], 0.0)
    assert isinstance(ended, SessionEnded)
    assert ended.session == S2


def test_a_snapshot_older_than_any_fence_keeps_nobody_waiting() -> None:
    recovered = [Holding(G1, 1, {GPU1: 1}, silent_s=500.0)]
    policy = Policy(Rules(), Epoch(2, 1), 0.0, recovered=recovered)
    policy.apply([ev.FleetChanged((backend(GPU1, slots=2),)), ev.SessionOpened(S2, GatewayName("g2"), 1)], 0.0)
    assert only_grant(policy.apply([ev.Submit(S2, want("a"))], 0.0)).backend == GPU1
    assert policy.holds.quarantined_on(GPU1) == 1


def test_what_a_gateway_claims_counts_even_beyond_the_cap() -> None:
    policy = Policy(Rules(), Epoch(2, 1), 0.0)
    claims = tuple(Claim(want(name), GPU1, Lease(Epoch(1, 1), n), 1) for n, name in enumerate("ab"))
    hello = ev.SessionOpened(S1, G1, 1, claims, queued=(want("c"),))
    assert policy.apply([ev.FleetChanged((backend(GPU1),)), hello], 0.0) == []
    assert policy.holds.live_on(GPU1) == 2
    assert not [d for d in policy.apply([ev.Settle(S1, LedgerId(b"a"), claims[0].lease)], 1.0) if isinstance(d, Grant)]
    assert only_grant(policy.apply([ev.Settle(S1, LedgerId(b"b"), claims[1].lease)], 1.0)).ledger_id == b"c"


def test_what_a_successor_must_keep_back_names_the_dead_too() -> None:
    policy = policy_with(backend(GPU1, slots=4))
    policy.apply([ev.Submit(S1, want("a", width=3))], 0.0)
    policy.apply([ev.SessionOpened(S2, G1, 2), ev.Submit(S2, want("b"))], 1.0)
    assert sorted(policy.holdings(), key=lambda holding: holding.generation) == [
        Holding(G1, 1, {GPU1: 3}, 0.0, is_dead=True),
        Holding(G1, 2, {GPU1: 1}, 0.0),
    ]


def test_the_core_reaches_no_loop_no_network_and_no_clock() -> None:
    forbidden = [
        "asyncio",
        "grpc",
        "nats",
        "google.protobuf",
        "forebay.wire",
        "forebay.clock",
        "time.monotonic",
        "socket",
    ]
    code = f"import sys, forebay_scheduler.policy; print([m for m in {forbidden!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
