"""The engines' own keys: sealed for one backend each, so that a sealed value is worth nothing in another's row or in a
copy of the database. What is opened here travels to gateways and to the prober, and never into an answer to an operator."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.sealed import NotSealed, Seal
from forebay_admin.changes import Change
from forebay_admin.tables import backend_credentials

log = logging.getLogger(__name__)

PURPOSE = "backend-credentials"
"""Of the Seal."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What changed: credentials in the clear, and backends that have none any more."""

    bearers: dict[str, str] = field(repr=False)
    removed: tuple[str, ...]


class CredentialStore:
    def __init__(self, seal: Seal) -> None:
        self._seal = seal

    async def keep(self, change: Change, backend_id: str, bearer: str, now: datetime) -> None:
        """In place of the one that this backend had."""
        await _put(change, backend_id, self._seal.close(bearer.encode(), backend_id.encode()), now)

    async def remove(self, change: Change, backend_id: str, now: datetime) -> None:
        await _put(change, backend_id, None, now)

    async def since(self, connection: AsyncConnection, after: int) -> Credentials:
        rows = await connection.execute(
            select(backend_credentials.c.backend_id, backend_credentials.c.sealed)
            .where(backend_credentials.c.version > after)
            .order_by(backend_credentials.c.backend_id)
        )
        bearers: dict[str, str] = {}
        removed: list[str] = []
        for row in rows:
            bearer = self._open(row.backend_id, row.sealed)
            if bearer is None:
                removed.append(row.backend_id)
            else:
                bearers[row.backend_id] = bearer
        return Credentials(bearers, tuple(removed))

    def _open(self, backend_id: str, sealed: bytes | None) -> str | None:
        if sealed is None:
            return None
        try:
            return self._seal.open(sealed, backend_id.encode()).decode()
        except NotSealed:
            # One unreadable row must not keep the other backends' credentials from everybody.
            log.error(
                "credential cannot be opened with this seal key; add the backend's key again",
                extra={"action": "credential_unreadable", "backend": backend_id},
            )
            return None


async def holders(connection: AsyncConnection) -> frozenset[str]:
    """The ids of backends for which a credential is kept."""
    rows: Iterable[str] = await connection.scalars(
        select(backend_credentials.c.backend_id).where(backend_credentials.c.sealed.is_not(None))
    )
    return frozenset(rows)


async def _put(change: Change, backend_id: str, sealed: bytes | None, now: datetime) -> None:
    values = {"sealed": sealed, "changed_at": now, "version": change.version}
    await change.connection.execute(
        insert(backend_credentials)
        .values(backend_id=backend_id, **values)
        .on_conflict_do_update(index_elements=[backend_credentials.c.backend_id], set_=values)
    )
