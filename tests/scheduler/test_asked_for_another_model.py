"""A gateway asks for another model under the same id, once the first asking is over: it is served, and pays for one."""

from __future__ import annotations

from forebay.errors import Refusal
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.decisions import Grant, Reject
from forebay_scheduler.request import LedgerId, PoolName, Request, UserId
from tests.scheduler.one_gateway import GPU1, GPU2, S1, Place, want

ID = LedgerId(b"a" * 16)


def ask(model: str) -> Request:
    return Request(ID, UserId("alice"), model, 0.0, prompt_tokens=100, request_id="call-a")


def place() -> Place:
    """`big` is on one backend, `small` on the other, each with one slot."""
    here = Place()
    fleet = (
        Backend(GPU1, PoolName("default"), frozenset({"big", "m"}), 1),
        Backend(GPU2, PoolName("default"), frozenset({"small"}), 1),
    )
    here.say(0.0, ev.FleetChanged(fleet))
    return here


def end(here: Place) -> object:
    """It answers with `small`. Gives what the scheduler would leave to its successor."""
    assert here.grants[ID].backend == GPU2
    here.settle(3.0, ask("small"), 50)
    here.say(60.0, ev.Tick(60_000_000))
    return here.policy.dispatch.saved()


def test_one_that_was_given_up_in_the_queue_pays_for_the_model_that_answered() -> None:
    left = []
    for waits_for_big in (True, False):
        here = place()
        here.submit(0.0, want("b", user="bob"))
        if waits_for_big:
            here.submit(1.0, ask("big"))
            assert ID not in here.grants
            here.say(2.0, ev.Cancel(S1, ID), ev.Submit(S1, ask("small")))
        else:
            here.submit(2.0, ask("small"))
        here.say(2.0, ev.Cancel(S1, want("b").ledger_id))
        left.append(end(here))
        assert list(here.policy.queued()) == []
    assert left[0] == left[1]


def test_one_whose_slot_was_given_back_unused_pays_for_the_model_that_answered() -> None:
    other = place()
    other.submit(2.0, ask("small"))
    here = place()
    here.submit(1.0, ask("big"))
    assert here.grants[ID].backend == GPU1
    here.say(2.0, ev.Cancel(S1, ID), ev.Submit(S1, ask("small")))
    assert end(here) == end(other)
    here.submit(61.0, want("b"))
    assert here.grants[want("b").ledger_id].backend == GPU1, "the slot is free again"


def test_one_whose_every_attempt_failed_is_asked_for_anew() -> None:
    here = place()
    here.submit(1.0, ask("big"))
    lease = here.grants[ID].lease
    decisions = here.policy.apply((ev.Nack(S1, ID, lease.seq, ev.NackCause.FAILED, 0.0),), 2.0)
    (reject,) = (decision for decision in decisions if isinstance(decision, Reject))
    assert (reject.ledger_id, reject.reason) == (ID, Refusal.ENGINE_FAILED)
    (grant,) = (d for d in here.policy.apply((ev.Submit(S1, ask("small")),), 2.0) if isinstance(d, Grant))
    assert (grant.backend, grant.attempt) == (GPU2, 1)
