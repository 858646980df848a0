"""Being the leader: the epoch under which grants are given, and the renewals that gateways measure their fence from.

One scheduler leads everything. A second one that starts takes the lead, and the first finds out at its next renewal."""

from __future__ import annotations

import asyncio
import logging
import os

from forebay.bus import Bucket, Bus, WrongRevision
from forebay.clock import Clock, micros
from forebay.errors import Unavailable
from forebay.ops import Ops
from forebay.subjects import LEADER_BUCKET
from forebay_scheduler.request import Epoch

log = logging.getLogger(__name__)

_KEY = "leader"
_RETRY_S = 0.25


class Leadership:
    def __init__(self, bus: Bus, clock: Clock, ops: Ops, renew_every_s: float) -> None:
        self._bus = bus
        self._clock = clock
        self._ops = ops
        self._every_s = renew_every_s
        self._bucket: Bucket | None = None
        self._revision = 0
        self._mark = os.urandom(16)
        """Ours alone: without it the first write of a successor would look like a write of ours."""
        self._renewed_at = clock.monotonic()
        self._is_lost = asyncio.Event()

    async def take(self) -> Epoch:
        """Waits for the bus as long as it takes: without it nobody could prove that we lead."""
        self._ops.not_ready("bus", "NATS, which says who leads, has not answered yet")
        while True:
            await self._bus.wait_connected()
            began = self._clock.monotonic()
            try:
                bucket = await self._bus.bucket(LEADER_BUCKET)
                self._revision = await bucket.put(_KEY, self._mark)
            except Unavailable as error:
                log.info("waiting for the leader bucket", extra={"action": "lead_wait", "why": error.message})
                await asyncio.sleep(_RETRY_S)
                continue
            self._bucket, self._renewed_at = bucket, began
            self._ops.ready("bus")
            epoch = Epoch(micros(bucket.created_at), self._revision)
            log.info("leading", extra={"action": "lead", "term_us": epoch.term_us, "revision": epoch.revision})
            return epoch

    @property
    def renewed_ago_s(self) -> float:
        """Since the last successful renewal began."""
        return self._clock.monotonic() - self._renewed_at

    async def renew(self) -> None:
        """Until another scheduler has taken the lead. While the bus is away, renewals only grow old."""
        assert self._bucket is not None
        while True:
            await asyncio.sleep(self._every_s)
            began = self._clock.monotonic()
            try:
                self._revision = await self._bucket.update(_KEY, self._mark, self._revision)
            except WrongRevision:
                if not await self._is_our_own_lost_write():
                    return
            except Unavailable as error:
                log.debug("renewal failed", extra={"action": "lead_renew", "why": error.message})
                continue
            self._renewed_at = began

    async def _is_our_own_lost_write(self) -> bool:
        """A write whose answer was lost looks like somebody else's until it is read."""
        assert self._bucket is not None
        try:
            entry = await self._bucket.get(_KEY)
        except Unavailable:
            return True  # nothing is proven; the next renewal asks again
        if entry is None or entry.value != self._mark:
            return False
        self._revision = entry.revision
        return True
