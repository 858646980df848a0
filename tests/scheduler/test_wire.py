"""What frames are read as."""

from __future__ import annotations

import pytest

from forebay.ledger_id import new_ledger_id
from forebay.wire.v1 import scheduler_pb2, types_pb2
from forebay_scheduler import events as ev
from forebay_scheduler.request import SessionId
from forebay_scheduler.wire import read_frame


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
