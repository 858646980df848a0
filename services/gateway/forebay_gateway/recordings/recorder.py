"""Takes down requests and answers beside the relay, and sends them to admin. Nobody waits for it: what does not fit into its
memory while the bus is away or slow is dropped, and counted."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import deque
from dataclasses import dataclass

from forebay import subjects
from forebay.bus import Bus
from forebay.clock import micros
from forebay.errors import Unavailable
from forebay.metrics import Metrics
from forebay.wire.v1 import key_terms_pb2, recordings_pb2, types_pb2
from forebay_gateway.accounting import Entry
from forebay_gateway.callers.key_terms import AuditPolicy
from forebay_gateway.callers.principals import Principal
from forebay_gateway.ledger.usage_record import OUTCOMES
from forebay_gateway.recordings.tape import Recording, Room, Tape, recorded_by

log = logging.getLogger(__name__)

MOST_BODY_BYTES = 224 * 1024
"""Two of them, should they not become smaller at all, fit into one message."""
_MOST_BATCH_BYTES = 480 * 1024
_LEVEL = 3
_FIRST_RETRY_S, _LAST_RETRY_S = 0.2, 5.0
_POLICIES = {
    AuditPolicy.METADATA: key_terms_pb2.AUDIT_POLICY_METADATA,
    AuditPolicy.FULL: key_terms_pb2.AUDIT_POLICY_FULL,
    AuditPolicy.SAMPLED: key_terms_pb2.AUDIT_POLICY_SAMPLED,
}


@dataclass(frozen=True, slots=True)
class _Waiting:
    recording: Recording
    told: recordings_pb2.Recording


class Recorder:
    def __init__(
        self, bus: Bus, gateway: str, metrics: Metrics, *, body_bytes: int = MOST_BODY_BYTES, held_bytes: int = 64 << 20
    ) -> None:
        """`body_bytes`: the most that is kept of a request, and of an answer. `held_bytes`: of all, until they are sent."""
        self._bus = bus
        self._gateway = gateway
        self._body_bytes = min(body_bytes, MOST_BODY_BYTES)
        self._room = Room(held_bytes)
        self._most_waiting = 4096
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        results = metrics.counter("forebay_gateway_recordings", "Recordings by what became of them.", ("result",))
        self._sent, self._dropped = results.child("sent"), results.child("dropped")
        metrics.gauge(
            "forebay_gateway_recordings_held_bytes",
            "Of requests and answers that are taken down and not sent yet.",
            (),
            lambda: [((), float(self._room.held_bytes))],
        )

    def begin(self, principal: Principal, ledger_id: bytes, address: str) -> Recording | None:
        """None: nothing of this request is kept."""
        policy = recorded_by(principal.terms, ledger_id)
        if policy is None:
            return None
        most = 0 if policy is AuditPolicy.METADATA else self._body_bytes
        return Recording(policy, address, Tape(self._room, most), Tape(self._room, most))

    def end(self, recording: Recording, entry: Entry) -> None:
        """The request is over. No await."""
        if len(self._waiting) >= self._most_waiting:
            self._forget(recording)
            self._dropped.value += 1
            return
        self._waiting.append(_Waiting(recording, _told(recording, entry, self._gateway)))
        self._arrived.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._arrived.wait()
            await self._send_waiting()

    async def flush(self, within_s: float) -> None:
        """Sends what waits, as far as time allows."""
        try:
            async with asyncio.timeout(within_s):
                await self._send_waiting()
        except TimeoutError:
            log.warning("recordings are lost", extra={"action": "recordings_lost", "recordings": len(self._waiting)})

    async def _send_waiting(self) -> None:
        retry_s = _FIRST_RETRY_S
        while self._waiting:
            batch = await self._gather()
            payload = recordings_pb2.RecordingBatch(recordings=[one.told for one in batch]).SerializeToString()
            try:
                await self._bus.append(subjects.recordings(self._gateway), payload)
            except Unavailable as error:
                if retry_s == _FIRST_RETRY_S:
                    log.warning("recordings wait", extra={"action": "recordings_wait", "why": error.message})
                await asyncio.sleep(retry_s)
                retry_s = min(_LAST_RETRY_S, retry_s * 2)
                continue
            retry_s = _FIRST_RETRY_S
            for _ in batch:
                self._forget(self._waiting.popleft().recording)
            self._sent.value += len(batch)
        self._arrived.clear()

    async def _gather(self) -> list[_Waiting]:
        """The oldest, as many as fit into one message; at least one."""
        batch: list[_Waiting] = []
        size = 0
        for one in tuple(self._waiting):
            if not one.told.request and not one.told.answer:
                bodies = one.recording.request.taken(), one.recording.answer.taken()
                if any(bodies):
                    # On a thread: a quarter of a megabyte takes milliseconds, in which every stream would stand still.
                    one.told.request, one.told.answer = await asyncio.to_thread(_packed, bodies)
            size += one.told.ByteSize() + 8
            if batch and size > _MOST_BATCH_BYTES:
                break
            batch.append(one)
        return batch

    def _forget(self, recording: Recording) -> None:
        recording.request.wipe()
        recording.answer.wipe()


def _packed(bodies: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    request, answer = (zlib.compress(body, _LEVEL) if body else b"" for body in bodies)
    return request, answer


def _told(recording: Recording, entry: Entry, gateway: str) -> recordings_pb2.Recording:
    return recordings_pb2.Recording(
        ledger_id=entry.ledger_id,
        request_id=entry.request_id,
        gateway=gateway,
        key_id=entry.key_id,
        user_id=entry.user_id,
        group_id=entry.group_id,
        model_requested=entry.model_requested,
        model=entry.model,
        route=entry.route,
        stream=entry.stream,
        policy=_POLICIES[recording.policy],
        outcome=OUTCOMES[entry.outcome] if entry.outcome is not None else types_pb2.OUTCOME_UNSPECIFIED,
        reason=entry.reason,
        http_status=entry.http_status,
        started_at_us=micros(entry.started_at),
        duration_ms=entry.duration_ms,
        address=recording.address,
        request_bytes=recording.body_bytes or recording.request.size,
        answer_bytes=recording.answer.size,
        request_cut=recording.request.is_cut,
        answer_cut=recording.answer.is_cut,
    )
