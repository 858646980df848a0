"""Which replica of admin runs batches: the one that holds a lock in Postgres, on a connection of its own.

It keeps two from doing the same work. That no line is done twice does not rest on it: what a line is changes in its row, and
only from what the one who changes it believes it to be."""

from __future__ import annotations

import logging
from enum import StrEnum

import asyncpg

log = logging.getLogger(__name__)

_KEY = 0x464F5247  # any number; every admin replica uses this one
_CALL_S = 5.0
# A machine that vanished says nothing: Postgres has to find out, or nobody would get the lock for hours.
_KEEPALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
_LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # What the driver says of a connection that ended in the middle of a word.
    asyncpg.InternalClientError,
)


class Holder(StrEnum):
    WE = "we"
    ANOTHER = "another"
    UNKNOWN = "unknown"
    """Postgres does not answer."""


class RunnerLock:
    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None
        self._is_ours = False

    async def look(self) -> Holder:
        """Takes it when it is free. Never fails."""
        try:
            if self._connection is None:
                self._connection = await asyncpg.connect(
                    self._url,
                    timeout=_CALL_S,
                    command_timeout=_CALL_S,
                    server_settings={"application_name": "forebay-admin-batches", **_KEEPALIVE},
                )
            if self._is_ours:
                await self._connection.fetchval("SELECT 1")
            else:
                self._is_ours = await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", _KEY)
                if self._is_ours:
                    log.info("this replica runs batches", extra={"action": "batch_lock"})
        except _LOST as error:
            log.debug("lock of batches unknown", extra={"action": "batch_lock_unknown", "error": repr(error)})
            self.leave()
            return Holder.UNKNOWN
        return Holder.WE if self._is_ours else Holder.ANOTHER

    def leave(self) -> None:
        """Without a word, since the other side may be gone."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection, self._is_ours = None, False
