"""The version counter: who changes something takes the next number; who watches is woken when there is one.

Postgres carries the news between admin's replicas (NOTIFY, sent by the commit itself). A look at the counter every two
seconds catches what a broken listening connection missed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database
from forebay.errors import Unavailable

log = logging.getLogger(__name__)

CHANNEL = "forebay_admin_version"

_LOOK_S = 2.0
_CALL_S = 5.0
_RETRY_S = 0.25


@dataclass(frozen=True, slots=True)
class Change:
    """An open transaction that holds the counter. Rows that it writes carry `version`."""

    connection: AsyncConnection
    version: int


class Changes:
    """The newest version that this replica has heard of, and a bell."""

    def __init__(self) -> None:
        self._version: int | None = None
        self._moved = asyncio.Event()

    @property
    def version(self) -> int:
        """0 until the database was read."""
        return self._version or 0

    def heard(self, version: int) -> None:
        """The counter stands at `version`. It can be lower than before: the database was restored."""
        if version != self._version:
            self._version = version
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    async def beyond(self, known: int) -> None:
        """Returns when the version is another than `known`, and at once for 0 when the database has been read."""
        while self._version is None or (known != 0 and self._version == known):
            await self._moved.wait()

    @asynccontextmanager
    async def make(self, database: Database) -> AsyncIterator[Change]:
        """A transaction with the next version: committed when left, and then everybody who watches is woken.

        The counter's row is locked from the start, so transactions that change something run one after the other and become
        visible in the order of their versions. Keep them short. Raises Unavailable."""
        async with database.writing() as connection:
            version = int(
                await connection.scalar(text("UPDATE admin.version SET value = value + 1 RETURNING value")) or 0
            )
            await connection.execute(
                text("SELECT pg_notify(:channel, :version)"), {"channel": CHANNEL, "version": str(version)}
            )
            yield Change(connection, version)
        if version > self.version:
            self.heard(version)

    async def follow(self, url: str, tell: Callable[[str | None], None]) -> None:
        """Listens for ever. `tell` hears None while Postgres answers, else why it does not."""
        while True:
            try:
                await self._listen(url, tell)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                tell(f"PostgreSQL is away: {error or type(error).__name__}")
                log.warning("database away, streams stay open", extra={"action": "listen_lost", "error": repr(error)})
            await asyncio.sleep(_RETRY_S)

    async def _listen(self, url: str, tell: Callable[[str | None], None]) -> None:
        connection = await asyncpg.connect(
            url, timeout=_CALL_S, command_timeout=_CALL_S, server_settings={"application_name": "forebay-admin-listen"}
        )
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, self._on_news)
            while not lost.is_set():
                await self._look(connection)
                tell(None)
                try:
                    async with asyncio.timeout(_LOOK_S):
                        await lost.wait()
                except TimeoutError:
                    continue
            raise ConnectionResetError("the listening connection ended")
        finally:
            # terminate, not close: the other side may be gone, and there is nothing to say to it.
            connection.terminate()

    async def _look(self, connection: asyncpg.Connection) -> None:
        before = self.version
        value = await connection.fetchval("SELECT value FROM admin.version")
        # News may have come while the answer travelled, so an older number counts only against what we knew when we asked.
        if value < before or value > self.version:
            self.heard(value)

    def _on_news(self, _connection: Any, _process: int, _channel: str, payload: object) -> None:
        version = int(str(payload))
        if version > self.version:
            self.heard(version)


async def current_version(connection: AsyncConnection) -> int:
    """The counter as this transaction sees it. Read it before the rows: every row up to it is then visible."""
    value = await connection.scalar(text("SELECT value FROM admin.version"))
    if value is None:
        raise Unavailable("The database holds no version counter; its schema is not complete.")
    return int(value)
