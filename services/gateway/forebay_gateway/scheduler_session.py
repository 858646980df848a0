"""The gateway's one stream to the scheduler: asks of a loop turn go in one frame, grants come to whoever waits for them.

It reconnects for ever. Each new stream opens with the gateway's whole truth: what it holds, who waits and since when, and
the settles that no stored snapshot is known to hold. Without a scheduler requests wait and running ones go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from forebay.clock import Clock
from forebay.errors import ForebayError
from forebay.ops import Ops
from forebay.rpc import Peer
from forebay.wire.v1 import scheduler_pb2, scheduler_pb2_grpc
from forebay_gateway import scheduler_wire as wire
from forebay_gateway.accounting import NOTHING_USED, Outcome, Usage
from forebay_gateway.asking import Ask, Epoch, Grant
from forebay_gateway.engine_errors import Blame
from forebay_gateway.fence import Fence
from forebay_gateway.refused import Refused, as_refusal

log = logging.getLogger(__name__)

_FIRST_RETRY_S, _LAST_RETRY_S = 0.05, 0.5
_BYE_S = 1.0


@dataclass(slots=True)
class _Waiting:
    ask: Ask
    granted: asyncio.Future[Grant]
    excluded: list[str] = field(default_factory=list)
    attempts: int = 0


@dataclass(slots=True)
class _Held:
    ask: Ask
    grant: Grant
    excluded: list[str]
    completion_tokens: int = 0


class SchedulerSession:
    def __init__(
        self,
        peer: Peer,
        *,
        gateway: str,
        generation: int,
        clock: Clock,
        ops: Ops,
        fence_s: float,
        on_revoke: Callable[[bytes, ForebayError], None],
    ) -> None:
        """`on_revoke`: called with the ledger id of a granted request that has to end."""
        self._stub: Any = scheduler_pb2_grpc.SchedulerStub(peer.channel)
        self._metadata = peer.metadata
        self._gateway = gateway
        self._generation = generation
        self._clock = clock
        self._ops = ops
        self._fence = Fence(fence_s)
        self._on_revoke = on_revoke
        self._waiting: dict[bytes, _Waiting] = {}
        self._held: dict[bytes, _Held] = {}
        self._unconfirmed: dict[bytes, scheduler_pb2.Settle] = {}
        self._ceilings: dict[str, scheduler_pb2.Ceiling] = {}
        self._outbox = wire.Outbox()
        self._wake = asyncio.Event()
        self._heartbeat_s = 1.0
        self._seq = 0
        self._acted_upon = 0
        self._epoch: Epoch | None = None
        self._leaving = False
        self._left = asyncio.Event()
        self.is_connected = False
        ops.not_ready("scheduler", "the scheduler has not answered yet")

    # --- asking -----------------------------------------------------------------------------------------------------

    async def ask(self, ask: Ask) -> Grant:
        waiting = _Waiting(ask, asyncio.get_running_loop().create_future())
        self._waiting[ask.ledger_id] = waiting
        self._outbox.submits[ask.ledger_id] = wire.submit_to_wire(ask, self._clock.monotonic(), [], 0)
        self._wake.set()
        return await _granted(waiting)

    async def ask_again(self, grant: Grant, blame: Blame, retry_after_s: float | None) -> Grant:
        held = self._held.pop(grant.ledger_id)
        waiting = _Waiting(
            held.ask,
            asyncio.get_running_loop().create_future(),
            [*held.excluded, grant.backend_id],
            grant.attempt,
        )
        self._waiting[grant.ledger_id] = waiting
        self._outbox.nacks.append(wire.nack_to_wire(grant, blame, retry_after_s))
        self._outbox.progress.pop(grant.ledger_id, None)
        self._wake.set()
        return await _granted(waiting)

    def end(self, ledger_id: bytes, outcome: Outcome, usage: Usage) -> None:
        # What was not asked yet is not asked: a frame's cancels are read before its submits, so both would leave it queued.
        if self._waiting.pop(ledger_id, None) is not None and self._outbox.submits.pop(ledger_id, None) is None:
            self._outbox.cancels[ledger_id] = None
        held = self._held.pop(ledger_id, None)
        if held is not None:
            self._settle(held.grant, outcome, usage)
        self._wake.set()

    def first_token(self, ledger_id: bytes, ttft_ms: int) -> None:
        self._outbox.first_tokens.append(scheduler_pb2.FirstToken(ledger_id=ledger_id, ttft_ms=ttft_ms))
        self._wake.set()

    def progress(self, ledger_id: bytes, completion_tokens: int) -> None:
        held = self._held.get(ledger_id)
        if held is not None:
            held.completion_tokens = completion_tokens
            self._outbox.progress[ledger_id] = completion_tokens
            self._wake.set()

    @property
    def is_past_fence(self) -> bool:
        return self._fence.is_past(self._clock.monotonic())

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def unconfirmed(self) -> int:
        return len(self._unconfirmed)

    def _settle(self, grant: Grant, outcome: Outcome, usage: Usage) -> None:
        settle = wire.settle_to_wire(grant, outcome, usage)
        self._unconfirmed[grant.ledger_id] = settle
        self._outbox.settles.append(settle)
        self._outbox.progress.pop(grant.ledger_id, None)
        self._wake.set()

    # --- the stream -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Holds a session, and another when it ends, until `leave`."""
        retry_s = _FIRST_RETRY_S
        while True:
            why = "the scheduler ended the session"
            began = self._clock.monotonic()
            try:
                await self._hold_session()
            except grpc.aio.AioRpcError as error:
                why = f"{error.code().name}: {error.details()}"
            if self._leaving:
                self._left.set()
                return
            if self.is_connected:
                log.warning("scheduler lost, requests wait", extra={"action": "scheduler_lost", "why": why})
                self.is_connected = False
                if self._clock.monotonic() - began > _LAST_RETRY_S:  # else it sends us away as soon as we come
                    retry_s = _FIRST_RETRY_S
            elif "scheduler" in self._ops.missing:
                self._ops.not_ready("scheduler", f"the scheduler has not answered yet ({why})")
            await asyncio.sleep(retry_s)
            retry_s = min(_LAST_RETRY_S, retry_s * 2)

    async def leave(self) -> None:
        """Says goodbye: what is not settled is over. Waits until the scheduler has read it, but not for long."""
        self._leaving = True
        self._wake.set()
        try:
            async with asyncio.timeout(_BYE_S if self.is_connected else 0):
                await self._left.wait()
        except TimeoutError:
            log.info("left without a goodbye to the scheduler", extra={"action": "scheduler_bye"})

    async def _hold_session(self) -> None:
        call: Any = self._stub.Session(metadata=self._metadata)
        try:
            await self._write(call, self._hello())
            writing = asyncio.create_task(self._write_frames(call), name="scheduler-frames")
            try:
                while True:
                    frame = await call.read()
                    if frame is grpc.aio.EOF:
                        return
                    if not self._receive(frame):
                        return
            finally:
                writing.cancel()
                await asyncio.wait([writing])
        finally:
            call.cancel()

    def _hello(self) -> scheduler_pb2.GatewayFrame:
        now = self._clock.monotonic()
        self._outbox = wire.Outbox()  # all of it is part of the truth below
        self._seq = self._acted_upon = 0
        self._fence.session_begins()
        return scheduler_pb2.GatewayFrame(
            hello=scheduler_pb2.Hello(
                gateway=self._gateway,
                generation=self._generation,
                held=[
                    wire.held_to_wire(h.ask, h.grant, now, h.excluded, h.completion_tokens) for h in self._held.values()
                ],
                queued=[wire.submit_to_wire(w.ask, now, w.excluded, w.attempts) for w in self._waiting.values()],
                unconfirmed=self._unconfirmed.values(),
                ceilings=self._ceilings.values(),
            )
        )

    async def _write_frames(self, call: Any) -> None:
        try:
            while True:
                try:
                    async with asyncio.timeout(self._heartbeat_s):
                        await self._wake.wait()
                    await asyncio.sleep(0)  # whatever else happens in this loop turn goes into the same frame
                except TimeoutError:
                    pass
                self._wake.clear()
                outbox, self._outbox = self._outbox, wire.Outbox()
                frame = outbox.to_frame()
                frame.bye = self._leaving
                await self._write(call, frame)
                if frame.bye:
                    await call.done_writing()
                    return
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            # The reading side meets the same end and says so.
            log.debug("scheduler frame not sent", extra={"action": "scheduler_frame", "error": repr(error)})

    async def _write(self, call: Any, frame: scheduler_pb2.GatewayFrame) -> None:
        self._seq += 1
        frame.seq = self._seq
        frame.ack_seq = self._acted_upon
        if self._epoch is not None:
            frame.epoch.CopyFrom(wire.epoch_to_wire(self._epoch))
        self._fence.sent(self._seq, self._clock.monotonic())
        await call.write(frame)

    def _receive(self, frame: scheduler_pb2.SchedulerFrame) -> bool:
        """False when this leader wants to be left."""
        epoch = wire.epoch_from_wire(frame.epoch)
        if self._epoch is None or (epoch.term_us, epoch.revision) > (self._epoch.term_us, self._epoch.revision):
            self._epoch = epoch
        if frame.HasField("welcome"):
            self._welcome(frame.welcome)
        for grant in frame.grants:
            self._take_grant(wire.grant_from_wire(grant, epoch))
        for reject in frame.rejects:
            self._take_reject(reject)
        for revoke in frame.revokes:
            self._take_revoke(revoke)
        for ledger_id in frame.settled:
            self._unconfirmed.pop(ledger_id, None)
        for ceiling in frame.ceilings:
            self._take_ceiling(ceiling)
        if frame.HasField("renewed_ago_ms"):
            self._fence.heard(frame.ack_seq, frame.renewed_ago_ms / 1000)
        self._acted_upon = frame.seq
        return not frame.draining

    def _welcome(self, welcome: scheduler_pb2.Welcome) -> None:
        self.is_connected = True
        self._ops.ready("scheduler")
        if welcome.heartbeat_ms:
            self._heartbeat_s = welcome.heartbeat_ms / 1000
        if welcome.fence_ms:
            self._fence.fence_s = min(self._fence.fence_s, welcome.fence_ms / 1000)
        log.info(
            "scheduler session",
            extra={"action": "scheduler_session", "held": len(self._held), "waiting": len(self._waiting)},
        )

    def _take_grant(self, grant: Grant) -> None:
        waiting = self._waiting.pop(grant.ledger_id, None)
        if waiting is not None and not waiting.granted.done():
            self._held[grant.ledger_id] = _Held(waiting.ask, grant, waiting.excluded)
            waiting.granted.set_result(grant)
            return
        held = self._held.get(grant.ledger_id)
        if held is None or held.grant.lease != grant.lease or held.grant.epoch != grant.epoch:
            # Its request is over, or runs on another grant: give the slots back.
            if held is None:
                self._settle(grant, Outcome.CANCELLED, NOTHING_USED)
            else:
                self._outbox.settles.append(wire.settle_to_wire(grant, Outcome.CANCELLED, NOTHING_USED))
                self._wake.set()

    def _take_reject(self, reject: scheduler_pb2.Reject) -> None:
        waiting = self._waiting.pop(reject.ledger_id, None)
        if waiting is not None and not waiting.granted.done():
            waiting.granted.set_exception(
                Refused(
                    as_refusal(reject.reason),
                    reject.message or f"The scheduler refused this request ({reject.reason}).",
                    retry_after_s=reject.retry_after_ms / 1000 if reject.retry_after_ms else None,
                )
            )

    def _take_revoke(self, revoke: scheduler_pb2.Revoke) -> None:
        error = Refused(
            as_refusal(revoke.reason), f"Forebay took this request's place back ({revoke.reason}). Send it again."
        )
        waiting = self._waiting.pop(revoke.ledger_id, None)
        if waiting is not None:
            if not waiting.granted.done():
                waiting.granted.set_exception(error)
        elif revoke.ledger_id in self._held:
            self._on_revoke(revoke.ledger_id, error)

    def _take_ceiling(self, ceiling: scheduler_pb2.Ceiling) -> None:
        self._ceilings[ceiling.backend_id] = ceiling
        held = sum(h.ask.width for h in self._held.values() if h.grant.backend_id == ceiling.backend_id)
        self._outbox.ceiling_acks.append(
            scheduler_pb2.CeilingAck(backend_id=ceiling.backend_id, version=ceiling.version, held=held)
        )
        self._wake.set()


async def _granted(waiting: _Waiting) -> Grant:
    try:
        return await waiting.granted
    except asyncio.CancelledError:
        if waiting.granted.done() and not waiting.granted.cancelled():
            waiting.granted.exception()  # a refusal that came in the very turn in which the client went: nobody needs it
        raise
