"""The scheduler's gRPC calls: answered from this term's sessions while it leads, refused while it stands by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from forebay.clock import Clock, micros
from forebay.errors import NotFound, Unavailable
from forebay.wire.v1 import scheduler_pb2, scheduler_pb2_grpc
from forebay_scheduler import explaining, standing
from forebay_scheduler.events import DrainAsked, Event
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import BackendId
from forebay_scheduler.sessions import Sessions
from forebay_scheduler.state_wire import state_to_wire

_RECENT = 200
"""Explanations in a dump."""


class Doorway(scheduler_pb2_grpc.SchedulerServicer):
    def __init__(self, clock: Clock, leader: Callable[[], str]) -> None:
        """`leader`: where the one that leads can be reached, as far as is known; empty when it is not."""
        self._clock = clock
        self._leader = leader
        self.sessions: Sessions | None = None
        """None while another leads."""

    def begin(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def end(self) -> None:
        self.sessions = None

    @property
    def leading(self) -> list[Policy]:
        """The core of this term: one while this scheduler leads, none while it stands by."""
        return [] if self.sessions is None else [self.sessions.policy]

    def apply(self, events: Iterable[Event]) -> None:
        """What the fleet and the policy tell: for the core of this term, if there is one."""
        if self.sessions is not None:
            self.sessions.apply(events)

    def _leading(self) -> Sessions:
        if self.sessions is None:
            leader = self._leader()
            where = f"the one at {leader} leads" if leader else "it is not known yet which one leads"
            raise Unavailable(f"This scheduler stands by; {where}.")
        return self.sessions

    async def Session(
        self, request_iterator: AsyncIterator[scheduler_pb2.GatewayFrame], context: Any
    ) -> AsyncIterator[scheduler_pb2.SchedulerFrame]:
        async for frame in self._leading().hold(request_iterator):
            yield frame

    async def ShowQueue(self, request: scheduler_pb2.ShowQueueRequest, context: Any) -> scheduler_pb2.ShowQueueResponse:
        return standing.show(self._leading().policy, self._clock.monotonic())

    async def Explain(self, request: scheduler_pb2.ExplainRequest, context: Any) -> scheduler_pb2.ExplainResponse:
        policy = self._leading().policy
        found = explaining.find(policy, request.request_id, request.ledger_id)
        if not found:
            raise NotFound(
                f"Nothing is known here of request {request.request_id or request.ledger_id.hex()}. The scheduler remembers "
                f"the last {len(policy.dispatch.log)} requests since it leads; `forebay usage` has all that have ended."
            )
        now = self._clock.monotonic()
        return scheduler_pb2.ExplainResponse(explanations=[explaining.explain(policy, story, now) for story in found])

    async def Drain(self, request: scheduler_pb2.DrainRequest, context: Any) -> scheduler_pb2.DrainResponse:
        sessions = self._leading()
        backend = BackendId(request.backend_id)
        if sessions.policy.dispatch.stations.get(backend) is None:
            raise NotFound(f"There is no backend {backend}.")
        sessions.apply((DrainAsked(backend, request.deadline_s or None, request.undo),))
        running = sum(held.slots for held in sessions.policy.dispatch.holds if held.backend == backend)
        return scheduler_pb2.DrainResponse(running=running, drained=not running and not request.undo)

    async def Dump(self, request: scheduler_pb2.DumpRequest, context: Any) -> scheduler_pb2.DumpResponse:
        policy, now = self._leading().policy, self._clock.monotonic()
        return scheduler_pb2.DumpResponse(
            queue=standing.show(policy, now),
            state=state_to_wire(policy.dispatch.saved(), micros(self._clock.now())),
            recent=[explaining.explain(policy, story, now) for story in list(policy.dispatch.log)[-_RECENT:]],
        )
