"""Removes what clients' content leaves behind: things that have expired, and blobs without a row. One replica at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import Unavailable
from forebay_admin.content.blob_store import BlobStore
from forebay_admin.content.content import BlobName
from forebay_admin.content.content_store import blobs_with_rows, remove_expired

log = logging.getLogger(__name__)

ORPHAN_S = 3600.0
"""How old a blob without a row must be: while it is younger, its upload may still be under way."""

_EVERY_S = 180.0
_AT_ONCE = 1000
_SWEEP_LOCK = 0x464F5246  # any number; every admin replica uses this one


class ContentSweep:
    def __init__(
        self, database: Database, blobs: BlobStore, clock: Clock, others: Callable[[], Awaitable[int]] | None = None
    ) -> None:
        """`others`: removes what else has files there and has expired, and says how much that was."""
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._others = others

    async def keep(self) -> None:
        """For ever."""
        while True:
            try:
                await self.sweep()
            except (Unavailable, DBAPIError) as error:  # the rest of admin goes on whatever Postgres says to this
                log.warning("content not swept", extra={"action": "content_sweep", "why": str(error)})
            await asyncio.sleep(_EVERY_S)

    async def sweep(self) -> None:
        """Once. Does nothing while another replica does it. Raises Unavailable."""
        expired = await self._remove_expired()
        if self._others is not None:
            expired += await self._others()
        orphans = await self._remove_orphans()
        if expired or orphans:
            log.info("content swept", extra={"action": "content_sweep", "expired": expired, "orphans": orphans})

    async def _remove_expired(self) -> int:
        """In short transactions, so that clients wait for none of them."""
        total = 0
        while True:
            async with self._database.writing() as connection:
                if not await _is_ours(connection):
                    return total
                removed = await remove_expired(connection, datetime.fromtimestamp(self._clock.now(), UTC), _AT_ONCE)
            await self._delete(removed.blobs)
            total += removed.things
            if removed.things < _AT_ONCE:
                return total

    async def _remove_orphans(self) -> int:
        async with self._database.reading() as connection:
            if not await _is_ours(connection):
                return 0
            left = await self._blobs.names_before(self._clock.now() - ORPHAN_S)
            orphans: list[BlobName] = []
            for start in range(0, len(left), _AT_ONCE):
                some = left[start : start + _AT_ONCE]
                known = await blobs_with_rows(connection, some)
                orphans += [name for name in some if name not in known]
            await self._delete(orphans)
        return len(orphans)

    async def _delete(self, blobs: Sequence[BlobName]) -> None:
        for name in blobs:
            await self._blobs.delete(name)


async def _is_ours(connection: AsyncConnection) -> bool:
    """Until the transaction ends."""
    return bool(await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _SWEEP_LOCK}))
