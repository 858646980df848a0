"""Admin's calls to the scheduler. There may be several, of which one leads and the others say that they do not: each is
asked in turn, the one that answered last first, until one answers as leader or the time is over. A new leader is there
within seconds of the old one's end, so it is worth asking again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import grpc.aio
from google.protobuf.message import Message

from forebay.errors import ForebayError, NotAllowed, NotAuthenticated, NotFound, Unavailable
from forebay.rpc import Peer, as_forebay_error
from forebay.wire.v1 import scheduler_pb2, scheduler_pb2_grpc

CALL_S = 5.0
"""Longer than it takes a standby to follow a leader that died."""
_ONE_S = 2.0
_PAUSE_S = 0.2

R = TypeVar("R", bound=Message)


Role = Literal["leading", "standby", "away"]


@dataclass(frozen=True, slots=True)
class SchedulerStanding:
    role: Role
    detail: str = ""
    """What it says, or why it says nothing."""
    queue: scheduler_pb2.ShowQueueResponse | None = None


class SchedulerClient:
    """Each call raises what the scheduler raises, and Unavailable while none leads."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        """One for each scheduler; at least one."""
        self._stubs = [(scheduler_pb2_grpc.SchedulerStub(peer.channel), peer.metadata) for peer in peers]
        self._led = 0

    async def queue(self) -> scheduler_pb2.ShowQueueResponse:
        return await self._call(lambda stub: stub.ShowQueue, scheduler_pb2.ShowQueueRequest())

    async def explain(self, *, request_id: str = "", ledger_id: bytes = b"") -> Sequence[scheduler_pb2.Explanation]:
        """None when the scheduler does not know the request (any more)."""
        request = scheduler_pb2.ExplainRequest(request_id=request_id, ledger_id=ledger_id)
        try:
            answer: scheduler_pb2.ExplainResponse = await self._call(lambda stub: stub.Explain, request)
        except NotFound:
            return ()
        return answer.explanations

    async def drain(self, actor: str, backend_id: str, deadline_s: int, *, undo: bool) -> scheduler_pb2.DrainResponse:
        request = scheduler_pb2.DrainRequest(actor=actor, backend_id=backend_id, deadline_s=deadline_s, undo=undo)
        return await self._call(lambda stub: stub.Drain, request)

    async def dump(self) -> scheduler_pb2.DumpResponse:
        return await self._call(lambda stub: stub.Dump, scheduler_pb2.DumpRequest())

    async def standings(self) -> list[SchedulerStanding]:
        """How each stands, all asked at once and once; one that leads says along with it how its queue is."""
        return list(await asyncio.gather(*(self._standing(stub, metadata) for stub, metadata in self._stubs)))

    async def _standing(self, stub: Any, metadata: Any) -> SchedulerStanding:
        try:
            queue = await stub.ShowQueue(scheduler_pb2.ShowQueueRequest(), metadata=metadata, timeout=_ONE_S)
        except grpc.aio.AioRpcError as error:
            told = _told(error)
            role: Role = "standby" if _says_itself(error) and isinstance(told, Unavailable) else "away"
            return SchedulerStanding(role, told.message)
        return SchedulerStanding("leading", queue=queue)

    async def _call(self, method: Callable[[Any], Callable[..., Awaitable[R]]], request: Message) -> R:
        ends = time.monotonic() + CALL_S
        away: Unavailable | None = None
        while True:
            for turn in range(len(self._stubs)):
                which = (self._led + turn) % len(self._stubs)
                stub, metadata = self._stubs[which]
                left_s = ends - time.monotonic()
                timeout = left_s if len(self._stubs) == 1 else min(_ONE_S, left_s)
                try:
                    answer = await method(stub)(request, metadata=metadata, timeout=max(timeout, 0.01))
                except grpc.aio.AioRpcError as error:
                    told = _told(error)
                    if not isinstance(told, Unavailable):
                        raise told from error
                    if away is None or _says_itself(error):  # which says more than that its time was over
                        away = told
                else:
                    self._led = which
                    return answer
            if away is not None and time.monotonic() + _PAUSE_S >= ends:
                raise Unavailable(f"No scheduler answers as the one that leads: {away.message}", retry_after_s=2.0)
            await asyncio.sleep(_PAUSE_S)


def _says_itself(error: grpc.aio.AioRpcError) -> bool:
    """It is the scheduler's own word, and not gRPC's."""
    return any(name == "forebay-reason" for name, _ in error.trailing_metadata() or ())


def _told(error: grpc.aio.AioRpcError) -> ForebayError:
    told = as_forebay_error(error)
    if isinstance(told, NotAuthenticated | NotAllowed):
        return ForebayError(f"The scheduler does not let admin in: {told.message}")
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return ForebayError("The scheduler is of a version that does not know this call.")
    return told
