"""Whether this process itself keeps time. One that is short of a processor hears answers late, and would take a whole fleet
for dead that is merely not listened to."""

from __future__ import annotations

import asyncio

from forebay.clock import Clock

BEAT_S = 0.25
LATE_S = 0.5


class Pulse:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._late_at = float("-inf")

    def was_late_since(self, moment: float) -> bool:
        """`moment` is on the monotonic clock."""
        return self._late_at >= moment

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            due = self._clock.monotonic() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self.note(self._clock.monotonic() - due)

    def note(self, late_s: float) -> None:
        """A beat came that much too late."""
        if late_s >= LATE_S:
            self._late_at = self._clock.monotonic()
