"""Tells the registry how attempts at backends ended: counts, at most every second, and at once when a backend fails first.

Hints that nobody waits for: while the bus is away they are lost, and the registry's own looks decide as ever."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from enum import StrEnum

from forebay import subjects
from forebay.bus import Bus
from forebay.clock import Clock, micros
from forebay.wire.v1 import lifecycle_pb2

EVERY_S = 1.0


class How(StrEnum):
    """How an attempt ended; what is the client's fault says nothing of the engine and is none of these."""

    SERVED = "served"
    REFUSED = "refused"
    """No connection could be made."""
    BROKEN = "broken"
    """The connection ended too early."""
    FAILED = "failed"
    """It answered with an error of its own."""
    SILENT = "silent"
    """It was given up after it had said nothing for too long."""


class AttemptNews:
    def __init__(self, bus: Bus, gateway: str, clock: Clock, *, worker: int = 0) -> None:
        """`worker`: which of a gateway's several processes this is."""
        self._bus = bus
        self._gateway = gateway
        self._worker = worker
        self._clock = clock
        self._started_us = micros(clock.now())
        self._sequence = 0
        self._counts = _none()
        self._hurried_at: dict[str, float] = {}
        """Backend → when a failure of it was last told at once, on the monotonic clock."""
        self._hurry = asyncio.Event()

    def note(self, backend_id: str, how: How) -> None:
        self._counts[backend_id][how] += 1
        if how is not How.SERVED:
            now = self._clock.monotonic()
            if now - self._hurried_at.get(backend_id, float("-inf")) >= EVERY_S:
                self._hurried_at[backend_id] = now
                self._hurry.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._hurry.wait()
            self._hurry.clear()
            if self._counts:
                await self._bus.publish(subjects.attempts(self._gateway), self._report().SerializeToString())

    def _report(self) -> lifecycle_pb2.AttemptsReport:
        counts, self._counts = self._counts, _none()
        self._hurried_at = {backend_id: at for backend_id, at in self._hurried_at.items() if backend_id in counts}
        self._sequence += 1
        return lifecycle_pb2.AttemptsReport(
            gateway=self._gateway,
            started_us=self._started_us,
            sequence=self._sequence,
            worker=self._worker,
            backends=[
                lifecycle_pb2.BackendAttempts(backend_id=backend_id, **{str(how): n for how, n in told.items()})
                for backend_id, told in counts.items()
            ],
        )


def _none() -> defaultdict[str, defaultdict[How, int]]:
    return defaultdict(lambda: defaultdict(int))
