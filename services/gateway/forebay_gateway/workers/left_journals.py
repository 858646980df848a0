"""Publishes what lies in the journals of workers that are no more: after a start with fewer of them, nobody else would."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from forebay.bus import Bus
from forebay.errors import CannotStart
from forebay_gateway.config import GatewaySettings
from forebay_gateway.ledger.journal import close_lost, hold_directory, open_journal
from forebay_gateway.ledger.records import RecordPublisher
from forebay_gateway.ledger.usage_record import as_lost

log = logging.getLogger(__name__)

_TRY_S = 60.0
_BUSY_S = 5.0


async def publish_left(journals: Sequence[Path], settings: GatewaySettings, bus: Bus) -> None:
    """By a process that holds `settings.journal_dir`, under the name of that gateway. Ends when all is published."""
    for directory in journals:
        while True:
            try:
                await _publish(directory, settings, bus)
                break
            except CannotStart as error:  # its worker may still be about to end, or the disk be full
                log.warning("a journal is left", extra={"action": "journal_left", "why": error.message})
                await asyncio.sleep(_BUSY_S)


async def _publish(directory: Path, settings: GatewaySettings, bus: Bus) -> None:
    held = nullcontext() if directory == settings.journal_dir else hold_directory(directory)
    with held:
        journal = await asyncio.to_thread(
            open_journal, directory, settings.journal_segment_bytes, settings.journal_segments
        )
        try:
            lost = close_lost(journal, as_lost)
            log.info(
                "journal of a worker that is no more",
                extra={
                    "action": "journal",
                    "directory": str(directory),
                    "unpublished": journal.unpublished,
                    "lost_requests": lost,
                },
            )
            publisher = RecordPublisher(journal, bus, settings.name)
            while await publisher.flush(_TRY_S):
                pass
        finally:
            await journal.leave()
