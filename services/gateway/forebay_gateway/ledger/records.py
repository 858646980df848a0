"""Publishes closed records to the bus, in batches, until each is acknowledged. Meanwhile they wait in the journal."""

from __future__ import annotations

import asyncio
import logging

from forebay import subjects
from forebay.bus import Bus
from forebay.errors import Unavailable
from forebay_gateway.ledger.journal import Journal
from forebay_gateway.ledger.usage_record import batch

log = logging.getLogger(__name__)

MOST_RECORDS = 500
MOST_BYTES = 480 * 1024  # leaves room below the bus's limit for framing
_GATHER_S = 0.05
_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 2.0


class RecordPublisher:
    def __init__(self, journal: Journal, bus: Bus, gateway: str) -> None:
        self._journal = journal
        self._bus = bus
        self._subject = subjects.usage(gateway)

    async def run(self) -> None:
        """For ever."""
        retry_s = _FIRST_RETRY_S
        while True:
            await self._journal.closed.wait()
            await asyncio.sleep(_GATHER_S)
            try:
                await self._publish_batch()
            except Unavailable as error:
                if retry_s == _FIRST_RETRY_S:
                    log.warning("usage records wait", extra={"action": "usage_wait", "why": error.message})
                await asyncio.sleep(retry_s)
                retry_s = min(_LAST_RETRY_S, retry_s * 2)
            else:
                retry_s = _FIRST_RETRY_S

    async def flush(self, within_s: float) -> int:
        """Publishes what is left, as far as time allows; gives the number of records that stay in the journal."""
        try:
            async with asyncio.timeout(within_s):
                while self._journal.unpublished:
                    try:
                        await self._publish_batch()
                    except Unavailable:
                        await asyncio.sleep(_FIRST_RETRY_S)
        except TimeoutError:
            log.warning(
                "usage records stay in the journal",
                extra={"action": "usage_left", "records": self._journal.unpublished},
            )
        return self._journal.unpublished

    async def _publish_batch(self) -> None:
        chosen = self._journal.oldest(MOST_RECORDS, MOST_BYTES)
        if not chosen:
            return
        await self._bus.append(self._subject, batch([payload for _, payload in chosen]))
        self._journal.acknowledge([ledger_id for ledger_id, _ in chosen])
