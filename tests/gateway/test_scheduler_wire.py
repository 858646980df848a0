"""What is asked of the scheduler is written in parts, and says what was asked."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.wire.v1 import scheduler_pb2, types_pb2
from forebay_gateway.callers.principals import Band
from forebay_gateway.slots.asking import Ask
from forebay_gateway.slots.credits import Lent
from forebay_gateway.slots.scheduler_wire import credit_start_to_wire, submit_to_wire

LENT = Lent(4, "b-1", "default", "llama3", 2, 10.0, 7, 100)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"band": Band.BATCH, "group_id": "", "is_plain": True},
        {"width": 3, "max_output_tokens": 64, "deadline_ms": 500, "session_key": "s", "prefix_hashes": (1, 1 << 63)},
    ],
    ids=["streamed", "plain", "wide"],
)
def test_an_ask_is_told_field_by_field(more: dict[str, Any]) -> None:
    ask = Ask(bytes(16), "req-1", "default", "llama3", "k", "u", "g", Band.STANDARD, 1, 5, 0, 0, "", 1.5, 2.0)._replace(
        **more
    )
    told = scheduler_pb2.Submit(
        ledger_id=ask.ledger_id,
        request_id="req-1",
        pool="default",
        model="llama3",
        key_id="k",
        user_id="u",
        group_id=ask.group_id,
        band=types_pb2.BAND_BATCH if ask.band is Band.BATCH else types_pb2.BAND_STANDARD,
        width=ask.width,
        prompt_tokens=5,
        max_output_tokens=ask.max_output_tokens,
        deadline_ms=ask.deadline_ms,
        session_key=ask.session_key,
        started_at_us=1_500_000,
        age_ms=250,
        prefix_hashes=ask.prefix_hashes,
        plain=ask.is_plain,
    )
    assert credit_start_to_wire(ask, 2.25, LENT, 7) == scheduler_pb2.CreditStart(
        credit_id=4, lease=7, backend_id="b-1", request=told
    )
    told.excluded_backends.append("b-2")
    told.attempts = 1
    assert submit_to_wire(ask, 2.25, ("b-2",), 1) == told
