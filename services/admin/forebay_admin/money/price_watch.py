"""The price book in this replica's memory, anew whenever a price was set: the ledger's clerk goes by it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database
from forebay_admin.abreast import Abreast
from forebay_admin.changes import Changes
from forebay_admin.money.price_book import PriceBook
from forebay_admin.money.price_store import all_versions, changed_at
from forebay_admin.updates import updates
from forebay_admin.versions import Since


@dataclass(frozen=True, slots=True)
class _Update:
    version: int
    book: PriceBook | None
    """None: no price has changed."""


class PriceWatch(Abreast):
    def __init__(self) -> None:
        super().__init__()
        self._book = PriceBook()

    @property
    def book(self) -> PriceBook:
        return self._book

    async def follow(self, database: Database, changes: Changes) -> None:
        """For ever."""
        async for update in updates(database, changes, 0, _read):
            if update.book is not None:
                self._book = update.book
            await self._reach(update.version)


async def _read(connection: AsyncConnection, since: Since, current: int) -> _Update:
    if not since.is_snapshot and await changed_at(connection) <= since.after:
        return _Update(current, None)
    return _Update(current, PriceBook(await all_versions(connection)))
