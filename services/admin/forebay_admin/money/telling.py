"""Keeps the scheduler's money in step with ours: prices whose time has come, and balances that were charged for more than it
counts. Any replica may do it; what one has done the next one finds done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import Unavailable
from forebay_admin.changes import Changes
from forebay_admin.money.balance_store import balances_of, note_told, open_accounts, told_micros
from forebay_admin.money.balances import Balance
from forebay_admin.money.price_store import begin_version, due_versions

log = logging.getLogger(__name__)

EVERY_S = 2.0


class Telling:
    def __init__(self, database: Database, changes: Changes, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock

    async def keep(self) -> None:
        """For ever."""
        while True:
            try:
                await self.once()
            except Unavailable as error:
                log.debug("the scheduler is not told", extra={"action": "money_wait", "why": error.message})
            await asyncio.sleep(EVERY_S)

    async def once(self) -> None:
        """Raises Unavailable."""
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        async with self._database.reading() as connection:
            if not await due_versions(connection, now) and not await _untold(connection):
                return
        async with self._changes.make(self._database) as change:
            for version in await due_versions(change.connection, now):
                await begin_version(change, version, now)
                log.info(
                    "a price begins", extra={"action": "price_begins", "model": version.model, "price": version.id}
                )
            for balance in await _untold(change.connection):
                await note_told(change, balance)


async def _untold(connection: AsyncConnection) -> Sequence[Balance]:
    """Those whose charges the scheduler's own count falls short of, or goes beyond, otherwise than it was told."""
    told = await told_micros(connection)
    if not told:
        return ()
    accounts = await open_accounts(connection)
    return [
        balance
        for balance in await balances_of(connection, list(accounts.values()))
        if balance.charged_micros - balance.counted_micros != told.get(balance.account.id, 0)
    ]
