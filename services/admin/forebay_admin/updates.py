"""What a watcher is sent over time: a snapshot, then each change, and silence while Postgres is away. Which rows those are
the watcher says; that something changed `changes` hears.

A watcher that is up to date is sent an empty update at once: only so does it know that it is heard, and that what it keeps
is as good as new."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database
from forebay.errors import Unavailable
from forebay_admin.changes import Changes, current_version
from forebay_admin.versions import Since, what_to_send

log = logging.getLogger(__name__)

_RETRY_S = 0.25


class _Update(Protocol):
    @property
    def version(self) -> int: ...


U = TypeVar("U", bound=_Update)
Read = Callable[[AsyncConnection, Since, int], Awaitable[U]]
"""(transaction, what to send, the version that this brings the watcher to) → the update."""


async def updates(database: Database, changes: Changes, known: int, read: Read[U]) -> AsyncIterator[U]:
    """For ever: what a watcher that knows version `known` is to be sent. An empty update tells the version only."""
    is_first = True
    while True:
        await changes.beyond(0 if is_first else known)
        try:
            async with database.reading() as connection:
                current = await current_version(connection)
                since = what_to_send(known, current)
                if since is None and is_first:
                    since = Since(after=known, is_snapshot=False)
                update = await read(connection, since, current) if since is not None else None
        except Unavailable as error:
            log.debug("watcher waits for the database", extra={"action": "watch_wait", "why": error.message})
            await asyncio.sleep(_RETRY_S)
            continue
        if update is None:
            # The bell rang for a number that this database does not show (yet): do not spin on it.
            await asyncio.sleep(_RETRY_S)
            continue
        yield update
        known, is_first = update.version, False
