"""Who holds which key, in this replica's memory: admin's own ear on the changes that it streams to the gateways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database
from forebay_admin.abreast import Abreast
from forebay_admin.changes import Changes
from forebay_admin.keys.keys import Principal
from forebay_admin.keys.principal_store import principals_since
from forebay_admin.updates import updates
from forebay_admin.versions import Since


@dataclass(frozen=True, slots=True)
class _Update:
    version: int
    is_snapshot: bool
    principals: Mapping[str, Principal]


class Directory(Abreast):
    """Key ids → principals."""

    def __init__(self) -> None:
        super().__init__()
        self._principals: dict[str, Principal] = {}

    def find(self, key_id: str) -> Principal | None:
        return self._principals.get(key_id)

    async def follow(self, database: Database, changes: Changes) -> None:
        """For ever."""
        async for update in updates(database, changes, 0, _read):
            if update.is_snapshot:
                self._principals = dict(update.principals)
            else:
                self._principals.update(update.principals)
            await self._reach(update.version)


async def _read(connection: AsyncConnection, since: Since, current: int) -> _Update:
    principals = await principals_since(connection, since.after)
    return _Update(current, since.is_snapshot, {p.key_id: p for p in principals})
