"""The sessions of gateways: frames in become events for the core, its decisions become frames out, one for a loop turn.

What is decided is the core's business; here it is only asked, in the turn in which something happened."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from forebay.clock import Clock, micros
from forebay.errors import BadInput
from forebay.metrics import Histogram
from forebay.traces.spans import Traces
from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler import events as ev
from forebay_scheduler import wire
from forebay_scheduler.decisions import (
    AllotmentLent,
    CeilingTold,
    CreditLent,
    Cutoff,
    Decision,
    Grant,
    Orphan,
    Reject,
    Revoke,
    SessionEnded,
    Settled,
    StoreCeilings,
)
from forebay_scheduler.fencing import epoch_to_wire
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import LedgerId, SessionId
from forebay_scheduler.traced_waits import TracedWaits

log = logging.getLogger(__name__)

_TICK_S = 0.1


class _Outgoing:
    """What one session is to be told with its next frame."""

    def __init__(self, traced: TracedWaits | None = None) -> None:
        self.traced = traced
        self.frame = scheduler_pb2.SchedulerFrame()
        self.wake = asyncio.Event()
        self.acted_upon = 0
        self.ended: str | None = None
        """Why the stream is to be closed, once it is."""
        self._unread: deque[tuple[int, tuple[LedgerId, ...]]] = deque()
        """Which frames confirmed which settles, until the gateway has read them."""

    def take(self, seq: int) -> scheduler_pb2.SchedulerFrame:
        frame, self.frame = self.frame, scheduler_pb2.SchedulerFrame()
        self.wake.clear()
        if frame.settled:
            self._unread.append((seq, tuple(map(LedgerId, frame.settled))))
        return frame

    def read_up_to(self, seq: int) -> Iterator[ev.SettledAcked]:
        while self._unread and self._unread[0][0] <= seq:
            yield ev.SettledAcked(self._unread.popleft()[1])


class Sessions:
    """Of one term as the leader."""

    def __init__(
        self,
        policy: Policy,
        clock: Clock,
        *,
        heartbeat_s: float,
        fence_s: float,
        renewed_ago_s: Callable[[], float],
        queue_seconds: Histogram,
        traces: Traces | None = None,
    ) -> None:
        """`traces`: None: no request is traced."""
        self._traces = traces
        self.policy = policy
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._fence_s = fence_s
        self._renewed_ago_s = renewed_ago_s
        self._queued = queue_seconds.child()
        self._numbers = itertools.count(1)
        self._sessions: dict[SessionId, _Outgoing] = {}
        self._is_draining = False
        self.orphans: deque[Orphan] = deque()
        """Rows to be written for gateways that are lost. `orphans.publish` empties it."""
        self.to_store: StoreCeilings | None = None
        """The newest order: it has all that is in those before it."""
        self.has_order = asyncio.Event()

    # --- events in, decisions out ---------------------------------------------------------------------------------------

    def apply(self, events: Iterable[ev.Event]) -> None:
        """In the loop turn in which they happened. No await in here."""
        for decision in self.policy.apply(events, self._clock.monotonic()):
            self._tell(decision)

    def _tell(self, decision: Decision) -> None:
        if isinstance(decision, Orphan):
            self.orphans.append(decision)
            return
        if isinstance(decision, StoreCeilings):
            self.to_store = decision
            self.has_order.set()
            return
        session = self._sessions.get(decision.session)
        if session is None:
            return  # its stream is gone; the gateway's next Hello brings both sides together again
        frame = session.frame
        match decision:
            case Grant():
                self._queued.observe(decision.queued_s)
                wire.add_grant(frame, decision)
                if session.traced is not None:
                    session.traced.granted(decision)
            case Settled():
                frame.settled.append(decision.ledger_id)
            case Reject():
                wire.add_reject(frame, decision)
                if session.traced is not None:
                    session.traced.refused(decision)
            case Revoke():
                frame.revokes.add(ledger_id=decision.ledger_id, reason=decision.reason, force=decision.is_forced)
            case Cutoff():
                frame.cutoffs.add(ledger_id=decision.ledger_id, reason=decision.reason)
            case CeilingTold():
                wire.add_ceiling(frame, decision)
            case CreditLent():
                wire.add_credit(frame, decision)
            case AllotmentLent():
                wire.add_allotment(frame, decision)
            case SessionEnded():
                session.ended = decision.message
        session.wake.set()

    async def tick(self) -> None:
        """Lets time pass in the core: deadlines, silences, quarantines. Until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            self.apply((ev.Tick(micros(self._clock.now())),))

    def drain(self) -> None:
        """No more grants; gateways are told to look for another leader."""
        self.policy.stop()
        self._is_draining = True
        for session in self._sessions.values():
            session.wake.set()

    # --- the stream -----------------------------------------------------------------------------------------------------

    async def hold(
        self, request_iterator: AsyncIterator[scheduler_pb2.GatewayFrame]
    ) -> AsyncIterator[scheduler_pb2.SchedulerFrame]:
        """One gateway's session, until either side ends it."""
        frames = aiter(request_iterator)
        first = await anext(frames, None)
        if first is None or not first.HasField("hello"):
            raise BadInput("A session opens with Hello.")
        number = SessionId(next(self._numbers))
        traced = None if self._traces is None else TracedWaits(self._traces, self._clock)
        outgoing = self._sessions[number] = _Outgoing(traced)
        outgoing.frame.welcome.heartbeat_ms = round(self._heartbeat_s * 1000)
        outgoing.frame.welcome.fence_ms = round(self._fence_s * 1000)
        outgoing.wake.set()
        reading = asyncio.create_task(self._read(number, outgoing, first, frames), name="session-read")
        try:
            async for frame in self._write(outgoing, reading):
                yield frame
            if reading.done():
                reading.result()  # a frame that made no sense: its error is the call's
        finally:
            reading.cancel()
            del self._sessions[number]
            self.apply((ev.SessionLost(number),))

    async def _read(
        self,
        number: SessionId,
        outgoing: _Outgoing,
        first: scheduler_pb2.GatewayFrame,
        frames: AsyncIterator[scheduler_pb2.GatewayFrame],
    ) -> None:
        now = self._clock.monotonic()
        hello = wire.read_hello(first.hello, number, now)
        log.info(
            "gateway session",
            extra={
                "action": "session",
                "gateway": hello.gateway,
                "generation": hello.generation,
                "held": len(hello.claims),
                "waiting": len(hello.queued),
            },
        )
        if outgoing.traced is not None:
            outgoing.traced.note(first)
        self.apply((hello,))
        outgoing.acted_upon = first.seq
        async for frame in frames:
            if outgoing.traced is not None:
                outgoing.traced.note(frame)
            self.apply((*wire.read_frame(frame, number, self._clock.monotonic()), *outgoing.read_up_to(frame.ack_seq)))
            outgoing.acted_upon = frame.seq
            if frame.heartbeat:
                outgoing.wake.set()

    async def _write(
        self, outgoing: _Outgoing, reading: asyncio.Task[None]
    ) -> AsyncIterator[scheduler_pb2.SchedulerFrame]:
        """Until the gateway has ended its side, or its session is ended here."""
        reading.add_done_callback(lambda _: outgoing.wake.set())
        seq = 0
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await outgoing.wake.wait()
                await asyncio.sleep(0)  # whatever else is decided in this loop turn goes into the same frame
            except TimeoutError:
                pass
            seq += 1
            frame = outgoing.take(seq)
            frame.seq, frame.ack_seq = seq, outgoing.acted_upon
            frame.epoch.CopyFrom(epoch_to_wire(self.policy.epoch))
            frame.renewed_ago_ms = max(0, round(self._renewed_ago_s() * 1000))
            frame.draining = self._is_draining
            yield frame
            if reading.done() or self._is_draining:
                return
            if outgoing.ended is not None:
                log.info("session ended", extra={"action": "session_ended", "why": outgoing.ended})
                return
