"""What others say on the bus of how backends are, and what the registry says there of each change: gateways' attempts and
the scheduler's slots come in, health changes go out. What counts is decided in `attempts` and `states`."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from google.protobuf.message import DecodeError

from forebay import subjects
from forebay.bus import Bus, Message
from forebay.clock import Clock, micros
from forebay.metrics import Number
from forebay.wire.v1 import lifecycle_pb2, registry_pb2
from forebay_registry.backend import BackendId, Condition
from forebay_registry.health.attempts import Fault, Tally
from forebay_registry.health.lifecycle import Change, Lifecycle
from forebay_registry.health.patrol import Patrol

log = logging.getLogger(__name__)

_MOST_BACKENDS = 4096


class Reports:
    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        lifecycle: Lifecycle,
        patrol: Patrol,
        *,
        faults: Mapping[Fault, Number] | None = None,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._lifecycle = lifecycle
        self._patrol = patrol
        self._faults = faults or {fault: Number() for fault in Fault}

    async def hear_attempts(self) -> None:
        """Until cancelled; while the bus is away nothing comes, and looks alone decide."""
        async with self._bus.subscribe(subjects.ATTEMPTS_OF_ALL) as messages:
            async for message in messages:
                self._note(message, self.take_attempts(message))

    async def hear_draining(self) -> None:
        """Until cancelled."""
        async with self._bus.subscribe(subjects.DRAINING) as messages:
            async for message in messages:
                self._note(message, self.take_draining(message))

    async def tell(self) -> None:
        """Each change of a state, as it comes, until cancelled. What cannot be told is gone; the history has it."""
        while True:
            await self._lifecycle.changed.wait()
            self._lifecycle.changed.clear()
            while self._lifecycle.untold:
                change = self._lifecycle.untold.popleft()
                await self._bus.publish(subjects.health(change.backend_id), to_change(change).SerializeToString())

    def take_attempts(self, message: Message) -> Fault | None:
        try:
            told = lifecycle_pb2.AttemptsReport.FromString(message.payload)
        except DecodeError:
            return Fault.MALFORMED
        if message.subject.rpartition(".")[2] != told.gateway:
            return Fault.FOREIGN_SUBJECT
        if len(told.backends) > _MOST_BACKENDS or not told.sequence:
            return Fault.MALFORMED
        tallies = [
            (b.backend_id, Tally(b.served, b.refused, b.broken, b.failed, b.silent))
            for b in told.backends
            if self._lifecycle.knows(b.backend_id)
        ]
        now = self._clock.monotonic()
        fault = self._lifecycle.attempts.take(told.gateway, told.started_us, told.sequence, tallies, now, told.worker)
        if fault is None:
            for backend_id, tally in tallies:
                if tally.failures:
                    self._patrol.doubt(BackendId(backend_id), is_refusal=tally.refused > 0)
        return fault

    def take_draining(self, message: Message) -> Fault | None:
        try:
            told = lifecycle_pb2.DrainingReport.FromString(message.payload)
        except DecodeError:
            return Fault.MALFORMED
        self._lifecycle.hear_held({b.backend_id: b.held for b in told.backends[:_MOST_BACKENDS]})
        return None

    def _note(self, message: Message, fault: Fault | None) -> None:
        if fault is None:
            return
        if not self._faults[fault].value:
            fields = {"action": "report_dropped", "subject": message.subject, "why": str(fault)}
            log.warning("report not taken (told once, counted always)", extra=fields)
        self._faults[fault].value += 1


def health_to_wire(condition: Condition) -> registry_pb2.BackendHealth.ValueType:
    return registry_pb2.BackendHealth.Value(f"BACKEND_HEALTH_{condition.name}")


def to_change(change: Change) -> lifecycle_pb2.HealthChange:
    return lifecycle_pb2.HealthChange(
        backend_id=change.backend_id,
        backend=change.backend,
        at_us=micros(change.at),
        before=health_to_wire(change.before),
        after=health_to_wire(change.after),
        cause=change.cause,
        reason=change.reason,
        in_maintenance=change.in_maintenance,
    )
