"""The gateway's one stream to the scheduler that leads: one frame for all that is to be said in a turn of the loop, and for
what nobody waits for one in 20 ms, since each frame costs as much as a request.

It reconnects for ever, to whichever of its addresses leads. Each new stream opens with the gateway's whole truth. What is
granted, asked and held is `places`' business; here is who is listened to: no leader older than the newest one seen, and none
that has fallen silent."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from forebay.clock import Clock
from forebay.ops import Ops
from forebay.rpc import Peer
from forebay.wire.v1 import scheduler_pb2, scheduler_pb2_grpc
from forebay_gateway.slots import scheduler_wire as wire
from forebay_gateway.slots.asking import Epoch
from forebay_gateway.slots.fence import Fence
from forebay_gateway.slots.places import Places
from forebay_gateway.slots.scheduler_addresses import SchedulerAddresses

log = logging.getLogger(__name__)

_STOOD_S = 0.5
"""A session that stood for so long was a real one, and the next may be looked for quickly."""
_SILENT_BEATS = 2.5
_BYE_S = 1.0
_HAND_BACK_S = 0.2
_REMEMBERED_BEATS = 64
_SOON_S = 0.02
_LOOK_S = 0.25
"""How often a gateway without a scheduler looks whether anything can begin that could not before."""
_UNRENEWED, _LOOK_AGAIN = 0.5, 0.25
"""Of the fence: the age of a lead's last renewal at which another leader is looked for, and how often after that."""


class SchedulerSession:
    def __init__(
        self,
        peers: Mapping[str, Peer],
        places: Places,
        fence: Fence,
        *,
        gateway: str,
        generation: int,
        clock: Clock,
        ops: Ops,
        local_after_s: float = 2.0,
    ) -> None:
        """`peers`: by address."""
        self._peers = peers
        self._addresses = SchedulerAddresses(tuple(peers))
        self._places = places
        self._fence = fence
        self._gateway = gateway
        self._generation = generation
        self._clock = clock
        self._ops = ops
        self._local_after_s = local_after_s
        self._wake = asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None
        """When what may wait is said at the latest."""
        places.wake, places.wake_soon = self._wake.set, self._wake_soon
        self._heartbeat_s = 1.0
        self._seq = 0
        self._acted_upon = 0
        self._answered = 0
        """The newest of our frames that the scheduler has acted upon."""
        self._beats: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED_BEATS)
        """Heartbeats' frame numbers and when they were sent: what is lent in answer to one counts from there."""
        self._beat_is_due = False
        self._unread: deque[tuple[int, wire.Outbox]] = deque()
        """Frames with something that somebody waits to be acted upon."""
        self._epoch: Epoch | None = None
        self._look_elsewhere_at = -math.inf
        """The newest seen."""
        self._heard_at = clock.monotonic()
        """When a leader last said anything."""
        self._gave_up: str = ""
        """Why this side ends the call that stands."""
        self._is_last_frame = False
        self._leaving = False
        self._left = asyncio.Event()
        self.is_connected = False
        ops.not_ready("scheduler", "the scheduler has not answered yet")

    async def run(self) -> None:
        """Holds a session, and another when it ends, until `leave`."""
        looking = asyncio.create_task(self._look_for_local_work(), name="local-work")
        try:
            while True:
                began = self._clock.monotonic()
                why = await self._try()
                if self._leaving:
                    self._left.set()
                    return
                if self.is_connected:
                    log.warning(
                        "scheduler lost",
                        extra={"action": "scheduler_lost", "why": why, "address": self._addresses.current},
                    )
                    self.is_connected = False
                    if self._clock.monotonic() - began > _STOOD_S:  # else it sends us away as soon as we come
                        self._addresses.stood()
                elif "scheduler" in self._ops.missing:
                    self._ops.not_ready("scheduler", f"the scheduler has not answered yet ({why})")
                await asyncio.sleep(self._addresses.failed(why))
        finally:
            looking.cancel()

    async def leave(self) -> None:
        """Says goodbye: what is not settled is over. Waits until the scheduler has read it, but not for long."""
        self._leaving = True
        self._wake.set()
        try:
            async with asyncio.timeout(_BYE_S if self.is_connected else 0):
                await self._left.wait()
        except TimeoutError:
            log.info("left without a goodbye to the scheduler", extra={"action": "scheduler_bye"})

    async def _look_for_local_work(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_S, max(0.01, self._local_after_s / 4)))
            if self.is_connected:
                continue
            if self._clock.monotonic() - self._heard_at >= self._local_after_s:
                self._places.begin_local()
            self._places.look_again()

    # --- one stream -------------------------------------------------------------------------------------------------

    async def _try(self) -> str:
        """One session with the current address. Gives why it ended."""
        peer = self._peers[self._addresses.current]
        self._gave_up, self._is_last_frame = "", False
        if not await _is_reached(peer.channel, self._addresses.patience_s):
            return "it cannot be reached"
        stub: Any = scheduler_pb2_grpc.SchedulerStub(peer.channel)
        call: Any = stub.Session(metadata=peer.metadata)
        loop = asyncio.get_running_loop()
        self._beat_is_due = False
        impatience = loop.call_later(self._addresses.patience_s, self._give_up, call, "it does not answer")
        try:
            await self._hold_session(call, impatience)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        except asyncio.InvalidStateError:
            return "it ended the call at once"
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._gave_up or (task is not None and task.cancelling()):
                raise
            return self._gave_up
        finally:
            impatience.cancel()
            call.cancel()
            self._places.session_over()
            self._note_acted_upon(math.inf)
        return self._gave_up or "it ended the session"

    async def _hold_session(self, call: Any, impatience: asyncio.TimerHandle) -> None:
        self._seq = self._acted_upon = self._answered = 0
        self._beats.clear()
        self._fence.session_begins()
        hello = self._places.hello(self._gateway, self._generation)
        await self._write(call, scheduler_pb2.GatewayFrame(hello=hello))
        writing = asyncio.create_task(self._write_frames(call), name="scheduler-frames")
        beating: list[asyncio.Task[None]] = []
        try:
            while True:
                frame = await call.read()
                if frame is grpc.aio.EOF:
                    return
                if not self._receive(frame):
                    break
                self._heard_at = self._clock.monotonic()
                if not beating:
                    impatience.cancel()
                    beating.append(asyncio.create_task(self._beat(call), name="scheduler-heartbeat"))
                    beating.append(asyncio.create_task(self._end_in_silence(call), name="scheduler-silence"))
            if self._is_last_frame:
                self._wake.set()
                await asyncio.wait([writing], timeout=_HAND_BACK_S)
        finally:
            self._forget_soon()
            for task in beating:
                task.cancel()
            writing.cancel()
            await asyncio.wait([writing])

    def _give_up(self, call: Any, why: str) -> None:
        self._gave_up = why
        call.cancel()

    async def _beat(self, call: Any) -> None:
        """A frame at least so often, and more often while something is lent: it lasts about as long as one beat."""
        while True:
            self._beat_is_due = True
            self._wake.set()
            await asyncio.sleep(self._heartbeat_s / 2)
            if not self._places.has_credits:  # what this beat was answered with would else be over before the next
                await asyncio.sleep(self._heartbeat_s / 2)

    async def _end_in_silence(self, call: Any) -> None:
        """A leader that says nothing, or does not answer several heartbeats, is not waited for: it may be cut off, and
        another lead already, or what we say may not reach it."""
        while True:
            now = self._clock.monotonic()
            allowed_s = max(self._local_after_s, _SILENT_BEATS * self._heartbeat_s)
            silent_s = now - min(self._heard_at, self._unanswered_since)
            if silent_s >= allowed_s:
                what = "said nothing" if now - self._heard_at >= allowed_s else "answered no heartbeat"
                self._give_up(call, f"it has {what} for {silent_s:.1f} s")
                return
            await asyncio.sleep(allowed_s - silent_s)

    @property
    def _unanswered_since(self) -> float:
        """When the oldest heartbeat that was not answered was sent."""
        return next((sent_at for seq, sent_at in self._beats if seq > self._answered), math.inf)

    async def _write_frames(self, call: Any) -> None:
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(0)  # whatever else happens in this loop turn goes into the same frame
                self._wake.clear()
                self._forget_soon()
                outbox = self._places.take_outbox()
                if outbox.is_empty and not (self._beat_is_due or self._leaving or self._is_last_frame):
                    continue
                frame = outbox.to_frame()
                if outbox.withdrawn:
                    self._unread.append((self._seq + 1, outbox))
                    self._beat_is_due = True  # a heartbeat is answered at once
                frame.heartbeat, self._beat_is_due = self._beat_is_due, False
                is_last = (self._leaving or self._is_last_frame) and not self._places.has_news
                frame.bye = self._leaving and is_last
                await self._write(call, frame)
                if is_last:
                    await call.done_writing()
                    return
                if self._leaving or self._is_last_frame:
                    self._wake.set()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            # The reading side meets the same end and says so.
            log.debug("scheduler frame not sent", extra={"action": "scheduler_frame", "error": repr(error)})

    def _wake_soon(self) -> None:
        if self._soon is None and not self._wake.is_set():
            self._soon = asyncio.get_running_loop().call_later(_SOON_S, self._wake.set)

    def _forget_soon(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    async def _write(self, call: Any, frame: scheduler_pb2.GatewayFrame) -> None:
        self._seq += 1
        frame.seq = self._seq
        frame.ack_seq = self._acted_upon
        if self._epoch is not None:
            frame.epoch.term_us, frame.epoch.revision = self._epoch.term_us, self._epoch.revision
        now = self._clock.monotonic()
        self._fence.sent(self._seq, now)
        if frame.heartbeat or self._seq == 1:
            self._beats.append((self._seq, now))
        await call.write(frame)

    # --- what the scheduler says --------------------------------------------------------------------------------------

    def _receive(self, frame: scheduler_pb2.SchedulerFrame) -> bool:
        """False when this leader is to be left."""
        epoch = wire.epoch_from_wire(frame.epoch)
        if self._epoch is not None and epoch < self._epoch:
            self._leave_old_leader(frame, epoch)
            return False
        self._epoch = epoch
        places = self._places
        if frame.HasField("welcome"):
            self._welcome(frame.welcome, epoch)
        for ceiling in frame.ceilings:  # before the grants, which may need them
            places.take_ceiling(wire.ceiling_from_wire(ceiling))
        for grant in frame.grants:
            places.take_grant(wire.grant_from_wire(grant, epoch))
        for reject in frame.rejects:
            places.take_reject(reject)
        for revoke in frame.revokes:
            places.take_revoke(revoke.ledger_id, revoke.reason, is_forced=revoke.force)
        for cutoff in frame.cutoffs:
            places.take_cutoff(cutoff.ledger_id, cutoff.reason)
        if frame.settled:
            places.take_settled(frame.settled)
        if frame.credits or frame.allotments:
            self._take_lent(frame)
        if frame.HasField("renewed_ago_ms"):
            self._fence.heard(frame.ack_seq, frame.renewed_ago_ms / 1000)
        self._acted_upon, self._answered = frame.seq, frame.ack_seq
        self._note_acted_upon(frame.ack_seq)
        if frame.draining:
            self._gave_up = "it leads no longer"
        elif frame.HasField("renewed_ago_ms") and self._may_have_successor(frame.renewed_ago_ms / 1000):
            self._gave_up = f"it has not renewed its lead for {frame.renewed_ago_ms / 1000:.1f} s"
        return not self._gave_up

    def _note_acted_upon(self, seq: float) -> None:
        while self._unread and self._unread[0][0] <= seq:
            self._unread.popleft()[1].acted_upon()

    def _welcome(self, welcome: scheduler_pb2.Welcome, epoch: Epoch) -> None:
        self.is_connected = True
        self._ops.ready("scheduler")
        if welcome.heartbeat_ms:
            self._heartbeat_s = welcome.heartbeat_ms / 1000
        if welcome.fence_ms:
            self._fence.fence_s = min(self._fence.fence_s, welcome.fence_ms / 1000)
        self._places.welcomed(epoch)
        log.info(
            "scheduler session",
            extra={
                "action": "scheduler_session",
                "address": self._addresses.current,
                "held": self._places.held,
                "waiting": self._places.waiting,
            },
        )

    def _leave_old_leader(self, frame: scheduler_pb2.SchedulerFrame, epoch: Epoch) -> None:
        """It does not know yet that it leads no longer. What it grants is not used, and it is told so."""
        log.warning("an old leader is left", extra={"action": "old_leader", "address": self._addresses.current})
        self._gave_up = "another has taken the lead since"
        for grant in frame.grants:
            self._places.hand_back(wire.grant_from_wire(grant, epoch))
        self._is_last_frame = True

    def _may_have_successor(self, renewed_ago_s: float) -> bool:
        """A leader that is cut off from the bus does not know whether another leads, and leads us into the fence. Only the
        others can say; where none of them leads, it is returned to."""
        now = self._clock.monotonic()
        fence_s = self._fence.fence_s
        if len(self._peers) == 1 or renewed_ago_s < fence_s * _UNRENEWED or now < self._look_elsewhere_at:
            return False
        self._look_elsewhere_at = now + fence_s * _LOOK_AGAIN
        return True

    def _take_lent(self, frame: scheduler_pb2.SchedulerFrame) -> None:
        sent_at = dict(self._beats)
        for credit in frame.credits:
            beat_at = sent_at.get(credit.heartbeat_seq)
            if credit.recall or beat_at is None:
                self._places.recall_credit(credit.id)
            else:
                self._places.take_credit(wire.credit_from_wire(credit, beat_at))
        for allotment in frame.allotments:
            beat_at = sent_at.get(allotment.heartbeat_seq)
            if allotment.recall or beat_at is None:
                self._places.recall_allotment(allotment.id)
            else:
                self._places.take_allotment(wire.allotment_from_wire(allotment, beat_at))


async def _is_reached(channel: grpc.aio.Channel, within_s: float) -> bool:
    """Whether there is a connection. Looked at before anything is said: from the Hello on nothing may begin here by
    itself, and a dead machine would hold that up for as long as connecting takes."""
    try:
        async with asyncio.timeout(within_s):
            while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                    return False
                await channel.wait_for_state_change(state)
    except TimeoutError:
        return False
    return True
