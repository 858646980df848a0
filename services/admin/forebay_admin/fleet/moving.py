"""Backends that move to another address leave their keys behind: a key goes to the address it was given for, and nowhere
else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import datetime

from forebay.database import Database
from forebay.errors import ForebayError, Unavailable
from forebay_admin.changes import Changes
from forebay_admin.fleet.credential_store import CredentialStore


@asynccontextmanager
async def without_keys(
    database: Database, changes: Changes, credentials: CredentialStore, backend_ids: Collection[str], now: datetime
) -> AsyncIterator[None]:
    """Around the move. Where it is refused they have their keys again; where nobody can tell whether it was made, they do
    not."""
    if not backend_ids:
        yield
        return
    async with changes.make(database) as change:
        taken = await credentials.take(change, backend_ids, now)
    try:
        yield
    except Unavailable:
        raise
    except ForebayError:
        async with changes.make(database) as change:
            await credentials.give_back(change, taken)
        raise
