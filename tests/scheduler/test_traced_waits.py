"""The scheduler's span of a traced request: from when it hears of it to what it decides."""

from __future__ import annotations

import pytest

from forebay.errors import Refusal
from forebay.traces.context import Place
from forebay.traces.spans import ALL, Sampling, Span, Traces
from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler.decisions import Grant, Reject
from forebay_scheduler.request import BackendId, Epoch, Lease, LedgerId, SessionId
from forebay_scheduler.traced_waits import TracedWaits

ONE, TWO = LedgerId(b"1" * 16), LedgerId(b"2" * 16)
ABOVE = Place(b"t" * 16, b"above it")
SESSION = SessionId(1)


class Clock:
    at = 100.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def traces() -> Traces:
    return Traces(Sampling(ALL, heeds_parent=True), 1000, lambda: None, 1000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def waits(traces: Traces, clock: Clock) -> TracedWaits:
    return TracedWaits(traces, clock)


def submit(ledger_id: bytes = ONE, traced: bytes = ABOVE.packed) -> scheduler_pb2.Submit:
    return scheduler_pb2.Submit(ledger_id=ledger_id, pool="default", model="m", traced=traced)


def frame(**fields: object) -> scheduler_pb2.GatewayFrame:
    return scheduler_pb2.GatewayFrame(**fields)  # type: ignore[arg-type]


def grant(ledger_id: LedgerId = ONE, attempt: int = 1) -> Grant:
    return Grant(SESSION, ledger_id, BackendId("b1"), attempt, Lease(Epoch(1, 1), 1), 1, 0.25)


def only(traces: Traces) -> Span:
    (told,) = traces.take(10)
    return told


def test_a_grant_ends_the_span_that_its_request_began(traces: Traces, clock: Clock, waits: TracedWaits) -> None:
    waits.note(frame(submits=[submit(), submit(TWO, traced=b"")]))
    clock.at = 103.0
    waits.granted(grant())
    waits.granted(grant(TWO))
    told = only(traces)
    assert (told.name, told.place.trace, told.parent) == ("schedule", ABOVE.trace, ABOVE.span)
    assert (told.began, told.ended, told.error) == (100.0, 103.0, "")
    assert told.attributes == {
        "forebay.pool": "default",
        "gen_ai.request.model": "m",
        "forebay.outcome": "granted",
        "forebay.backend": "b1",
        "forebay.attempt": 1,
        "forebay.queue_ms": 250,
    }


def test_a_refusal_is_told_by_its_word(traces: Traces, waits: TracedWaits) -> None:
    waits.note(frame(submits=[submit()]))
    waits.refused(Reject(SESSION, ONE, Refusal.QUEUE_FULL, 1.0, "full"))
    assert only(traces).error == "queue_full"


def test_one_that_is_cancelled_is_told_once(traces: Traces, waits: TracedWaits) -> None:
    waits.note(frame(submits=[submit()]))
    waits.note(frame(cancels=[scheduler_pb2.Cancel(ledger_id=ONE)]))
    waits.granted(grant())
    assert only(traces).attributes["forebay.outcome"] == "cancelled"


def test_one_that_an_engine_failed_waits_once_more(traces: Traces, waits: TracedWaits) -> None:
    waits.note(frame(submits=[submit()]))
    waits.granted(grant())
    waits.note(frame(nacks=[scheduler_pb2.Nack(ledger_id=ONE, traced=ABOVE.packed)]))
    waits.granted(grant(attempt=2))
    assert [told.attributes["forebay.attempt"] for told in traces.take(10)] == [1, 2]


def test_one_that_waited_for_another_leader_is_known_from_the_hello(traces: Traces, waits: TracedWaits) -> None:
    waits.note(frame(hello=scheduler_pb2.Hello(gateway="g", queued=[submit()])))
    waits.granted(grant())
    assert only(traces).parent == ABOVE.span


def test_a_context_of_another_length_is_none(traces: Traces, waits: TracedWaits) -> None:
    waits.note(frame(submits=[submit(traced=b"short")]))
    waits.granted(grant())
    assert traces.take(10) == []
