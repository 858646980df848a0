"""The database of one that leads: each transaction that writes checks, before anything else, that its epoch is still the
newest, and keeps the next one from beginning until it has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database
from forebay_registry.leadership.lead import Lead
from forebay_registry.leadership.standing import Fenced

# FOR SHARE: who takes the lead waits for this transaction, and this one for who is taking it.
_CHECK = text("SELECT epoch FROM registry.leadership FOR SHARE")


class FencedDatabase(Database):
    """Like any other, but `writing` also raises StandsBy, Adrift and Fenced, all of them Unavailable."""

    def __init__(self, url: str, schema: str, lead: Lead) -> None:
        super().__init__(url, schema)
        self._lead = lead

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        ours = self._lead.demand()
        async with super().writing() as connection:
            newest = (await connection.execute(_CHECK)).scalar_one()
            if newest != ours:
                self._lead.fenced(newest)
                raise Fenced(f"{Fenced.__doc__} Its epoch is {newest}, ours was {ours}.", retry_after_s=1.0)
            yield connection


@asynccontextmanager
async def open_fenced_database(url: str, schema: str, lead: Lead) -> AsyncIterator[FencedDatabase]:
    """As `forebay.database.open_database`."""
    database = FencedDatabase(url, schema, lead)
    try:
        yield database
    finally:
        await database.close()
