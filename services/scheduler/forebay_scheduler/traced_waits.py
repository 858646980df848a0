"""Traced requests of one session that wait for the scheduler to decide, and the span of each, from when it was heard of to
the decision. The core knows nothing of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from forebay.clock import Clock
from forebay.traces.context import Place, unpacked
from forebay.traces.spans import Kind, Span, Traces, Value, new_span_id
from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler.decisions import Grant, Reject

_MOST = 10_000
"""Of one session. Of more, only these are told of."""


class _Waiting(NamedTuple):
    above: Place
    since: float
    """Seconds since the epoch."""
    pool: str
    model: str


class TracedWaits:
    def __init__(self, traces: Traces, clock: Clock) -> None:
        self._traces = traces
        self._clock = clock
        self._waiting: dict[bytes, _Waiting] = {}

    def note(self, frame: scheduler_pb2.GatewayFrame) -> None:
        """Before the core hears of it, so that what is decided at once is known."""
        self._note_submits(frame.hello.queued if frame.HasField("hello") else frame.submits)
        for nack in frame.nacks:
            above = unpacked(nack.traced)
            if above is not None:
                self._wait(nack.ledger_id, _Waiting(above, self._clock.now(), "", ""))
        if self._waiting:
            for cancel in frame.cancels:
                waiting = self._waiting.pop(cancel.ledger_id, None)
                if waiting is not None:
                    self._tell(waiting, {"forebay.outcome": "cancelled"})

    def _note_submits(self, submits: Iterable[scheduler_pb2.Submit]) -> None:
        for submit in submits:
            above = unpacked(submit.traced)
            if above is not None:
                now = self._clock.now()
                self._wait(submit.ledger_id, _Waiting(above, now, submit.pool or "default", submit.model))

    def _wait(self, ledger_id: bytes, waiting: _Waiting) -> None:
        if len(self._waiting) < _MOST:
            self._waiting.setdefault(ledger_id, waiting)

    def granted(self, grant: Grant) -> None:
        waiting = self._waiting.pop(grant.ledger_id, None)
        if waiting is not None:
            self._tell(
                waiting,
                {
                    "forebay.outcome": "granted",
                    "forebay.backend": grant.backend,
                    "forebay.attempt": grant.attempt,
                    "forebay.queue_ms": round(grant.queued_s * 1000),
                },
            )

    def refused(self, reject: Reject) -> None:
        waiting = self._waiting.pop(reject.ledger_id, None)
        if waiting is not None:
            self._tell(waiting, {"forebay.outcome": "refused"}, str(reject.reason))

    def _tell(self, waiting: _Waiting, attributes: dict[str, Value], error: str = "") -> None:
        named = {"forebay.pool": waiting.pool, "gen_ai.request.model": waiting.model} if waiting.pool else {}
        self._traces.tell(
            Span(
                "schedule",
                Kind.INTERNAL,
                waiting.above._replace(span=new_span_id()),
                waiting.above.span,
                waiting.since,
                self._clock.now(),
                {**named, **attributes},
                error,
                has_remote_parent=True,
            )
        )
