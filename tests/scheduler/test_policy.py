"""What stories cannot show: leases, epochs, addresses of decisions, and that the core is pure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from forebay.errors import Refusal
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend, ModelFacts
from forebay_scheduler.decisions import (
    CeilingTold,
    Decision,
    Grant,
    Orphan,
    Reject,
    SessionEnded,
    Settled,
    StoreCeilings,
    StoredCeilings,
)
from forebay_scheduler.inquiry import why_waiting
from forebay_scheduler.placing.placement import PlacingRules
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import (
    BackendId,
    Claim,
    Epoch,
    GatewayName,
    Lease,
    LedgerId,
    PoolName,
    Request,
    SessionId,
    Used,
    UserId,
)
from forebay_scheduler.rules import Rules
from forebay_scheduler.terms import Budget, BudgetUnit, Limits, UserTerms

S1, S2 = SessionId(1), SessionId(2)
G1 = GatewayName("g1")
GPU1, GPU2 = BackendId("gpu1"), BackendId("gpu2")
CERTAIN = Rules(placing=PlacingRules(explored=0.0, jitter=0.0))


def backend(name: BackendId, slots: int = 1) -> Backend:
    return Backend(name, PoolName("default"), frozenset({"m"}), slots)


def want(name: str, arrived_at: float = 0.0, width: int = 1) -> Request:
    return Request(LedgerId(name.encode()), UserId("alice"), "m", arrived_at, width=width, started_at_us=7)


def hear(policy: Policy, events: list[ev.Event], now: float) -> list[Decision]:
    """What the policy decides, ceilings aside: the bus stores them, and gateways acknowledge them, at once."""
    told: list[Decision] = []
    decisions = policy.apply(events, now)
    while decisions:
        told += decisions
        answers: list[ev.Event] = []
        for decision in decisions:
            match decision:
                case StoreCeilings(ticket):
                    answers.append(ev.CeilingsStored(ticket))
                case CeilingTold(session, of, _, _, version):
                    answers.append(ev.CeilingAcked(session, of, version, held_on(policy, of)))
        decisions = policy.apply(answers, now) if answers else []
    return [decision for decision in told if not isinstance(decision, StoreCeilings | CeilingTold)]


def held_on(policy: Policy, of: BackendId) -> int:
    return sum(held.slots for held in policy.dispatch.holds if held.backend == of)


def policy_with(*backends: Backend, rules: Rules | None = None) -> Policy:
    policy = Policy(rules or CERTAIN, Epoch(5, 1), 0.0, wall_us=1_767_258_000_000_000)
    hear(policy, [ev.FleetChanged(backends), ev.SessionOpened(S1, G1, 1)], 0.0)
    return policy


def only_grant(decisions: list[Decision]) -> Grant:
    (grant,) = [decision for decision in decisions if isinstance(decision, Grant)]
    return grant


def test_a_grant_says_where_under_which_lease_and_after_how_long() -> None:
    policy = policy_with(backend(GPU1))
    assert hear(policy, [ev.Submit(S1, want("a", arrived_at=1.0))], 3.5) == [
        Grant(S1, LedgerId(b"a"), GPU1, 1, Lease(Epoch(5, 1), 1), 1, queued_s=2.5)
    ]


def test_an_end_is_confirmed_when_a_state_that_holds_it_is_stored_and_not_before() -> None:
    policy = policy_with(backend(GPU1))
    early, _ = policy.save()
    grant = only_grant(hear(policy, [ev.Submit(S1, want("a"))], 0.0))
    assert hear(policy, [ev.Settle(S1, grant.ledger_id, grant.lease)], 0.0) == []
    number, state = policy.save()
    assert state.settled == (grant.ledger_id,)
    assert hear(policy, [ev.StateStored(early)], 0.0) == []
    assert hear(policy, [ev.StateStored(number)], 0.0) == [Settled(S1, grant.ledger_id)]
    hear(policy, [ev.SettledAcked((grant.ledger_id,))], 0.0)
    assert policy.save()[1].settled == ()


def test_a_settle_under_the_lease_of_an_earlier_attempt_frees_nothing() -> None:
    policy = policy_with(backend(GPU1), backend(GPU2))
    first = only_grant(hear(policy, [ev.Submit(S1, want("a"))], 0.0))
    second = only_grant(hear(policy, [ev.Nack(S1, first.ledger_id, first.lease.seq)], 0.0))
    assert hear(policy, [ev.Settle(S1, first.ledger_id, first.lease)], 0.0) == [Settled(S1, first.ledger_id)]
    assert held_on(policy, second.backend) == 1
    assert policy.tally.stale_settles == 1
    hear(policy, [ev.Settle(S1, second.ledger_id, second.lease)], 0.0)
    assert held_on(policy, second.backend) == 0


def test_a_settle_of_another_epoch_frees_nothing() -> None:
    policy = policy_with(backend(GPU1))
    grant = only_grant(hear(policy, [ev.Submit(S1, want("a"))], 0.0))
    hear(policy, [ev.Settle(S1, grant.ledger_id, Lease(Epoch(4, 9), grant.lease.seq))], 0.0)
    assert held_on(policy, GPU1) == 1


def test_another_gateway_can_neither_settle_nor_cancel_what_is_not_its_own() -> None:
    policy = policy_with(backend(GPU1))
    grant = only_grant(hear(policy, [ev.Submit(S1, want("a"))], 0.0))
    hear(policy, [ev.SessionOpened(S2, GatewayName("g2"), 1)], 0.0)
    hear(policy, [ev.Settle(S2, grant.ledger_id, grant.lease), ev.Cancel(S2, grant.ledger_id)], 0.0)
    assert held_on(policy, GPU1) == 1


def test_a_settle_without_a_lease_takes_back_a_grant_that_its_gateway_never_saw() -> None:
    policy = policy_with(backend(GPU1))
    hear(policy, [ev.Submit(S1, want("a"))], 0.0)
    hear(policy, [ev.Settle(S1, LedgerId(b"a"), None)], 0.0)
    assert held_on(policy, GPU1) == 0


def test_events_that_cannot_be_read_change_nothing() -> None:
    policy = policy_with(backend(GPU1))

    def broken() -> Iterator[ev.Event]:
        yield ev.Submit(S1, want("a"))
        raise ValueError("not a frame")

    with pytest.raises(ValueError, match="not a frame"):
        policy.apply(broken(), 0.0)
    assert held_on(policy, GPU1) == 0
    assert not list(policy.queued())


def test_everything_waits_until_the_fleet_is_known() -> None:
    policy = Policy(Rules(), Epoch(1, 1), 0.0)
    assert hear(policy, [ev.SessionOpened(S1, G1, 1), ev.Submit(S1, want("a"))], 0.0) == []
    assert only_grant(hear(policy, [ev.FleetChanged((backend(GPU1),))], 1.0)).queued_s == 1.0


def test_a_stopped_scheduler_grants_nothing_and_still_takes_settles() -> None:
    policy = policy_with(backend(GPU1))
    grant = only_grant(hear(policy, [ev.Submit(S1, want("a"))], 0.0))
    policy.stop()
    decisions = hear(policy, [ev.Submit(S1, want("b")), ev.Settle(S1, grant.ledger_id, grant.lease)], 0.0)
    assert decisions == []
    assert held_on(policy, GPU1) == 0


def test_a_frame_may_carry_more_than_the_queue_holds_if_slots_are_free_for_it() -> None:
    policy = policy_with(backend(GPU1, slots=3), rules=replace(CERTAIN, queue_per_user=1))
    decisions = hear(policy, [ev.Submit(S1, want(str(n), arrived_at=float(n))) for n in range(5)], 5.0)
    assert [type(decision) for decision in decisions] == [Grant, Grant, Grant, Reject]
    refused = decisions[-1]
    assert isinstance(refused, Reject)
    assert (refused.ledger_id, refused.reason) == (b"4", Refusal.QUEUE_FULL)


def test_retries_are_budgeted() -> None:
    backends = [backend(BackendId(f"gpu{n}"), slots=20) for n in range(4)]
    policy = policy_with(*backends, rules=replace(CERTAIN, retry_reserve=1, breaker_failures=100))
    grants = hear(policy, [ev.Submit(S1, want(str(n), arrived_at=float(n))) for n in range(2)], 2.0)
    first, second = [grant for grant in grants if isinstance(grant, Grant)]
    assert only_grant(hear(policy, [ev.Nack(S1, first.ledger_id, first.lease.seq)], 2.0)).attempt == 2
    (refused,) = hear(policy, [ev.Nack(S1, second.ledger_id, second.lease.seq)], 2.0)
    assert isinstance(refused, Reject)
    assert refused.reason is Refusal.ENGINE_FAILED


def test_an_orphan_carries_what_its_ledger_row_needs() -> None:
    policy = policy_with(backend(GPU1))
    hear(policy, [ev.Submit(S1, want("a"))], 2.0)
    hear(policy, [ev.FirstToken(S1, LedgerId(b"a"))], 3.0)
    hear(policy, [ev.Progress(S1, LedgerId(b"a"), 41)], 4.0)
    hear(policy, [ev.SessionLost(S1)], 4.5)
    decisions: list[Decision] = []
    for second in range(5, 70):
        decisions += hear(policy, [ev.Tick()], float(second))
    (orphan,) = decisions
    assert isinstance(orphan, Orphan)
    assert (orphan.gateway, orphan.generation, orphan.backend) == ("g1", 1, "gpu1")
    assert (orphan.queued_s, orphan.ttft_s, orphan.lived_s, orphan.completion_tokens) == (2.0, 3.0, 4.0, 41)
    assert (orphan.request.attempts, orphan.request.started_at_us) == (1, 7)


def test_a_successor_that_tells_how_a_request_ended_spares_it_from_being_an_orphan() -> None:
    policy = policy_with(backend(GPU1, slots=2))
    hear(policy, [ev.Submit(S1, want("a")), ev.Submit(S1, want("b"))], 0.0)
    hear(policy, [ev.SessionOpened(S2, G1, 2), ev.Settle(S2, LedgerId(b"a"), Lease(Epoch(5, 1), 1))], 1.0)
    orphans = [
        decision
        for second in range(2, 70)
        for decision in hear(policy, [ev.Heard(S2), ev.Tick()], float(second))
        if isinstance(decision, Orphan)
    ]
    assert [orphan.request.ledger_id for orphan in orphans] == [b"b"]


def test_a_scheduler_that_slept_itself_takes_nobody_for_silent() -> None:
    policy = policy_with(backend(GPU1))
    hear(policy, [ev.Submit(S1, want("a"))], 0.0)
    assert hear(policy, [ev.Tick()], 500.0) == []
    assert (
        only_grant(hear(policy, [ev.Cancel(S1, LedgerId(b"a")), ev.Submit(S1, want("b", 500.0))], 501.0)).backend
        == GPU1
    )


def test_a_session_that_does_not_speak_for_its_gateway_is_told_once_a_frame() -> None:
    policy = policy_with(backend(GPU1))
    (ended,) = hear(policy, [ev.Submit(S2, want("a")), ev.Submit(S2, want("b"))], 0.0)
    assert isinstance(ended, SessionEnded)
    assert ended.session == S2


def test_stored_ceilings_of_a_gateway_silent_for_longer_than_any_fence_go_into_quarantine_at_once() -> None:
    recovered = [StoredCeilings(G1, 1, {GPU1: 1}, silent_s=500.0)]
    policy = Policy(CERTAIN, Epoch(2, 1), 0.0, recovered=recovered)
    hear(policy, [ev.FleetChanged((backend(GPU1, slots=2),)), ev.SessionOpened(S2, GatewayName("g2"), 1)], 0.0)
    assert only_grant(hear(policy, [ev.Submit(S2, want("a"))], 0.0)).backend == GPU1
    assert policy.quarantined_on(GPU1) == 1
    assert policy.unheard == 0


def test_of_two_stored_processes_of_one_gateway_the_earlier_is_dead() -> None:
    recovered = [StoredCeilings(G1, 2, {GPU1: 1}), StoredCeilings(G1, 1, {GPU1: 2})]
    policy = Policy(CERTAIN, Epoch(2, 1), 0.0, recovered=recovered)
    hear(policy, [ev.FleetChanged((backend(GPU1, slots=4),))], 0.0)
    assert policy.quarantined_on(GPU1) == 2
    assert policy.unheard == 1
    (ended,) = hear(policy, [ev.SessionOpened(S1, G1, 1)], 0.0)
    assert isinstance(ended, SessionEnded)


def test_what_a_gateway_claims_counts_even_beyond_the_cap() -> None:
    policy = Policy(Rules(), Epoch(2, 1), 0.0)
    claims = tuple(Claim(want(name), GPU1, Lease(Epoch(1, 1), n), 1) for n, name in enumerate("ab"))
    hello = ev.SessionOpened(S1, G1, 1, claims, queued=(want("c"),))
    assert hear(policy, [ev.FleetChanged((backend(GPU1),)), hello], 0.0) == []
    assert held_on(policy, GPU1) == 2
    assert not [d for d in hear(policy, [ev.Settle(S1, LedgerId(b"a"), claims[0].lease)], 1.0) if isinstance(d, Grant)]
    assert only_grant(hear(policy, [ev.Settle(S1, LedgerId(b"b"), claims[1].lease)], 1.0)).ledger_id == b"c"


def test_ceilings_of_the_dead_stay_stored_for_a_successor_to_keep_back() -> None:
    policy = policy_with(backend(GPU1, slots=4))
    hear(policy, [ev.Submit(S1, want("a", width=3))], 0.0)
    orders = [d for d in policy.apply([ev.SessionOpened(S2, G1, 2), ev.Submit(S2, want("b"))], 1.0)]
    (order,) = [decision for decision in orders if isinstance(decision, StoreCeilings)]
    stored = {(one.generation, one.is_dead): dict(one.slots) for shard in order.shards.values() for one in shard}
    assert stored[1, True] == {GPU1: 3}
    assert stored[2, False][GPU1] <= 1


def test_a_gateway_given_up_too_early_gets_its_slot_back_once_and_is_counted_once() -> None:
    policy = policy_with(backend(GPU1))
    grant = only_grant(hear(policy, [ev.Submit(S1, want("a"))], 0.0))
    hear(policy, [ev.GatewayDied(G1, 1)], 1.0)
    claim = Claim(want("a"), GPU1, grant.lease, 1)
    hear(policy, [ev.SessionOpened(S2, G1, 1, claims=(claim,))], 2.0)
    assert held_on(policy, GPU1) == 1
    hear(policy, [ev.Settle(S2, grant.ledger_id, grant.lease, used=Used(10, 0, 20))], 3.0)
    assert held_on(policy, GPU1) == 0
    assert policy.tally.stale_settles == 1
    assert only_grant(hear(policy, [ev.Submit(S2, want("b"))], 4.0)).backend == GPU1


def test_one_that_waited_here_and_was_served_without_us_is_counted_once_and_waits_no_more() -> None:
    policy = policy_with(backend(GPU1))
    budget = Budget("b1", BudgetUnit.TOKENS, 10_000)
    hear(policy, [ev.PolicyChanged((UserTerms(UserId("alice"), limits=Limits(budgets=(budget,))),))], 0.0)
    hear(policy, [ev.Submit(S1, want("a")), ev.Submit(S1, want("b"))], 0.0)
    by_itself = Lease(Epoch(0, 0), 1)
    hear(policy, [ev.Settle(S1, LedgerId(b"b"), by_itself, used=Used(100, 0, 20), request=want("b"))], 1.0)
    assert not list(policy.queued())
    (standing,) = policy.dispatch.limits.budgets()
    assert standing.spent == 120
    hear(policy, [ev.Cancel(S1, LedgerId(b"a"))], 2.0)
    (standing,) = policy.dispatch.limits.budgets()
    assert (standing.spent, standing.reserved) == (120, 0)


def test_a_grant_whose_ceiling_cannot_be_raised_in_time_waits_again_at_its_old_place() -> None:
    """The bus does not answer: nothing is told of a grant that no stored ceiling covers, and its slot is not lost."""
    policy = policy_with(backend(GPU1, slots=2))
    policy.apply([ev.SessionOpened(S2, GatewayName("g2"), 1)], 0.0)
    decisions = policy.apply([ev.Submit(S2, want("a"))], 0.0)
    assert not [decision for decision in decisions if isinstance(decision, Grant)]
    assert held_on(policy, GPU1) == 1
    for tenth in range(1, 8):
        policy.apply([ev.Heard(S1), ev.Heard(S2), ev.Tick()], tenth / 10)
    assert held_on(policy, GPU1) == 0
    assert [request.ledger_id for request in policy.queued()] == [b"a"]


def test_what_is_paused_or_behind_a_silent_gateway_says_so() -> None:
    policy = policy_with(backend(GPU1))
    hear(policy, [ev.PolicyChanged(users=(UserTerms(UserId("alice"), is_paused=True),)), ev.Submit(S1, want("a"))], 0.0)
    assert why_waiting(policy.dispatch, want("a")) == ["its user or group is paused"]
    hear(policy, [ev.SessionLost(S1)], 1.0)
    assert why_waiting(policy.dispatch, want("a")) == ["its gateway is out of reach"]


def test_one_wider_than_what_any_backend_runs_of_that_model_at_once_is_told_so_at_once() -> None:
    facts = {"m": ModelFacts(slots=2)}
    policy = policy_with(replace(backend(GPU1, slots=8), facts=facts))
    (refused,) = hear(policy, [ev.Submit(S1, want("a", width=3))], 0.0)
    assert isinstance(refused, Reject)
    assert refused.reason is Refusal.WIDTH_TOO_LARGE
    assert only_grant(hear(policy, [ev.Submit(S1, want("b", width=2))], 0.0)).backend == GPU1


def test_an_event_that_nobody_knows_is_an_error_of_the_programmer() -> None:
    with pytest.raises(TypeError, match=r"no such event|object expected"):  # the second where the core is compiled
        policy_with(backend(GPU1)).apply(["hello"], 0.0)  # type: ignore[list-item]


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
