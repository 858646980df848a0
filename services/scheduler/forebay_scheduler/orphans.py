"""Writes the ledger rows of requests whose gateways were lost and did not return to write them.

A gateway that does return publishes its own rows; of two with the same id the ledger keeps the first."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from forebay.bus import Bus
from forebay.errors import Unavailable
from forebay.subjects import usage
from forebay.wire.v1 import usage_pb2
from forebay_scheduler.decisions import Orphan
from forebay_scheduler.wire import orphan_to_wire

log = logging.getLogger(__name__)

_EVERY_S = 0.5
_MOST = 500
"""Rows in one message."""


async def publish(orphans: deque[Orphan], bus: Bus) -> None:
    """Takes rows from `orphans` once the bus has stored them. Until cancelled."""
    while True:
        await asyncio.sleep(_EVERY_S)
        while orphans:
            batch = [orphans[index] for index in range(min(_MOST, len(orphans)))]
            records = usage_pb2.UsageBatch(records=[orphan_to_wire(orphan) for orphan in batch])
            try:
                await bus.append(usage("scheduler"), records.SerializeToString())
            except Unavailable as error:
                log.debug("orphan rows wait", extra={"action": "orphans_wait", "why": error.message})
                break
            for _ in batch:
                orphans.popleft()
            log.info("rows of lost gateways written", extra={"action": "orphans", "rows": len(batch)})
