"""Who holds which key, in this replica's memory: admin's own ear on the changes that it streams to the gateways."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database
from forebay_admin.changes import Changes
from forebay_admin.keys.key_store import principals_since
from forebay_admin.keys.keys import Principal
from forebay_admin.updates import updates
from forebay_admin.versions import Since

_CATCH_UP_S = 2.0


@dataclass(frozen=True, slots=True)
class _Update:
    version: int
    is_snapshot: bool
    principals: Mapping[str, Principal]


class Directory:
    """Key ids → principals."""

    def __init__(self) -> None:
        self._principals: dict[str, Principal] = {}
        self._version = 0
        self._moved = asyncio.Condition()

    @property
    def is_loaded(self) -> bool:
        return self._version > 0

    def find(self, key_id: str) -> Principal | None:
        return self._principals.get(key_id)

    async def follow(self, database: Database, changes: Changes) -> None:
        """For ever."""
        async for update in updates(database, changes, 0, _read):
            if update.is_snapshot:
                self._principals = dict(update.principals)
            else:
                self._principals.update(update.principals)
            async with self._moved:
                self._version = update.version
                self._moved.notify_all()

    async def loaded(self) -> None:
        """Returns when there is something to decide by."""
        await self._until(1)

    async def caught_up(self, version: int) -> None:
        """Returns when this replica decides by `version`, so that whoever was just given a key can use it here at once; and
        after two seconds anyway, since the change itself is committed."""
        try:
            async with asyncio.timeout(_CATCH_UP_S):
                await self._until(version)
        except TimeoutError:
            return

    async def _until(self, version: int) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: self._version >= version)


async def _read(connection: AsyncConnection, since: Since, current: int) -> _Update:
    principals = await principals_since(connection, since.after)
    return _Update(current, since.is_snapshot, {p.key_id: p for p in principals})
