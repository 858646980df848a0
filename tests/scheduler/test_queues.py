"""What waits, and what is remembered of it."""

from __future__ import annotations

from forebay_scheduler import events as ev
from forebay_scheduler.decisions import Grant
from forebay_scheduler.request import GatewayName, LedgerId, SessionId
from tests.scheduler.test_policy import GPU1, S1, backend, hear, policy_with, want


def test_of_those_that_have_started_no_moment_of_giving_up_is_kept() -> None:
    policy = policy_with(backend(GPU1, slots=1))
    (running,) = hear(policy, [ev.Submit(S1, want("first"))], 0.0)
    hear(policy, [ev.Submit(S1, want("0"))], 0.0)
    for count in range(1, 5000):
        assert isinstance(running, Grant)
        settle = ev.Settle(S1, running.ledger_id, running.lease)
        (running,) = hear(policy, [settle, ev.Submit(S1, want(str(count)))], 0.0)
        assert isinstance(running, Grant)
        assert running.ledger_id == LedgerId(str(count - 1).encode())
    queues = policy.dispatch.queues
    assert len(queues._expiries) < 2000
    assert [request.ledger_id for _, request in queues.expired(now=1e9)] == [LedgerId(b"4999")]


def test_a_gateway_that_comes_back_often_has_one_moment_for_each_request() -> None:
    policy = policy_with(backend(GPU1, slots=1))
    waiting = tuple(want(str(count)) for count in range(400))
    for session in range(2, 12):
        number = SessionId(session)
        policy.apply([ev.SessionOpened(number, GatewayName("g1"), 1, queued=waiting), ev.SessionLost(number)], 0.0)
    queues = policy.dispatch.queues
    queues._sweep_expiries()
    assert len(queues._expiries) == 400
