"""What frames are read as."""

from __future__ import annotations

import pytest

from forebay.errors import BadInput
from forebay.ledger_id import new_ledger_id
from forebay.wire.v1 import scheduler_pb2, types_pb2
from forebay_scheduler import events as ev
from forebay_scheduler.request import BackendId, Epoch, Lease, SessionId, Used
from forebay_scheduler.wire import read_frame, read_hello


@pytest.mark.parametrize(
    ("outcome", "is_success"),
    [(types_pb2.OUTCOME_FINISHED, True), (types_pb2.OUTCOME_FAILED, False), (types_pb2.OUTCOME_CANCELLED, False)],
    ids=["finished", "failed", "cancelled"],
)
def test_only_a_finished_answer_speaks_for_its_backend(outcome: types_pb2.Outcome.ValueType, is_success: bool) -> None:
    """A client that gives up on an engine that hangs, or a grant that came too late, proves nothing."""
    settle = scheduler_pb2.Settle(ledger_id=new_ledger_id(1.0), lease=1, outcome=outcome)
    frame = scheduler_pb2.GatewayFrame(settles=[settle])
    (told,) = [event for event in read_frame(frame, SessionId(1), 0.0) if isinstance(event, ev.Settle)]
    assert told.is_success is is_success


def test_what_a_frame_frees_is_read_before_what_it_asks_for_and_a_goodbye_last() -> None:
    one = new_ledger_id(1.0)
    frame = scheduler_pb2.GatewayFrame(
        seq=9,
        heartbeat=True,
        bye=True,
        submits=[scheduler_pb2.Submit(ledger_id=one, model="m", width=1)],
        settles=[scheduler_pb2.Settle(ledger_id=one, lease=1)],
        cancels=[scheduler_pb2.Cancel(ledger_id=one)],
        ceiling_acks=[scheduler_pb2.CeilingAck(backend_id="gpu1", version=3, held=2)],
    )
    told = read_frame(frame, SessionId(1), 0.0)
    assert [type(event) for event in told] == [
        ev.Heard,
        ev.Settle,
        ev.Cancel,
        ev.CeilingAcked,
        ev.Submit,
        ev.Beat,
        ev.GatewayLeft,
    ]
    assert told[3] == ev.CeilingAcked(SessionId(1), BackendId("gpu1"), 3, 2)
    assert told[5] == ev.Beat(SessionId(1), 9)


def test_a_hello_is_a_gateways_whole_truth() -> None:
    held, queued, ended = new_ledger_id(1.0), new_ledger_id(2.0), new_ledger_id(3.0)
    epoch = scheduler_pb2.Epoch(term_us=5, revision=6)
    hello = scheduler_pb2.Hello(
        gateway="g1",
        generation=4,
        held=[
            scheduler_pb2.Held(
                request=scheduler_pb2.Submit(ledger_id=held, model="m", user_id="alice", width=2, age_ms=1500),
                backend_id="gpu1",
                lease=7,
                epoch=epoch,
                attempt=2,
                completion_tokens=30,
            )
        ],
        queued=[scheduler_pb2.Submit(ledger_id=queued, model="m", width=1)],
        ceilings=[scheduler_pb2.Ceiling(backend_id="gpu1", slots=3, version=9)],
        unconfirmed=[
            scheduler_pb2.Settle(
                ledger_id=ended,
                lease=8,
                epoch=epoch,
                outcome=types_pb2.OUTCOME_FINISHED,
                usage=types_pb2.TokenUsage(prompt_tokens=10, cached_prompt_tokens=4, completion_tokens=20),
                request=scheduler_pb2.Submit(ledger_id=ended, model="m", user_id="bob", width=1),
            )
        ],
    )
    told = read_hello(hello, SessionId(1), 100.0)
    (claim,) = told.claims
    assert (claim.request.ledger_id, claim.request.width, claim.request.arrived_at) == (held, 2, 98.5)
    assert (claim.backend, claim.lease, claim.attempt) == ("gpu1", Lease(Epoch(5, 6), 7), 2)
    assert claim.completion_tokens == 30
    assert [request.ledger_id for request in told.queued] == [queued]
    assert told.ceilings == (("gpu1", 3),)
    (settle,) = told.settles
    assert (settle.lease, settle.used) == (Lease(Epoch(5, 6), 8), Used(10, 4, 20))
    assert settle.request is not None
    assert settle.request.user == "bob"


def test_what_a_gateway_began_without_a_leader_bears_no_leaders_epoch() -> None:
    request = scheduler_pb2.Submit(ledger_id=new_ledger_id(1.0), model="m", width=1)
    local = scheduler_pb2.Held(request=request, backend_id="gpu1", lease=1, attempt=1)
    (claim,) = read_hello(scheduler_pb2.Hello(gateway="g1", held=[local]), SessionId(1), 0.0).claims
    assert claim.is_local


@pytest.mark.parametrize(
    "frame",
    [
        scheduler_pb2.GatewayFrame(cancels=[scheduler_pb2.Cancel(ledger_id=b"short")]),
        scheduler_pb2.GatewayFrame(settles=[scheduler_pb2.Settle(ledger_id=b"")]),
        scheduler_pb2.GatewayFrame(submits=[scheduler_pb2.Submit(ledger_id=b"x" * 17, model="m", width=1)]),
    ],
    ids=["cancel", "settle", "submit"],
)
def test_an_id_that_is_none_is_bad_input(frame: scheduler_pb2.GatewayFrame) -> None:
    with pytest.raises(BadInput):
        read_frame(frame, SessionId(1), 0.0)


def test_a_session_without_a_name_is_bad_input() -> None:
    with pytest.raises(BadInput, match="name its gateway"):
        read_hello(scheduler_pb2.Hello(), SessionId(1), 0.0)
