"""The engines' own keys: each sealed for one label of one backend, so that a sealed value is worth nothing in another row
or in a copy of the database. What is opened here travels to gateways and to the prober, and never into an answer
to an operator."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.sealed import NotSealed, Seal
from forebay_admin.changes import Change
from forebay_admin.fleet.credentials import FIRST_LABEL, Entry
from forebay_admin.tables import backend_credentials

log = logging.getLogger(__name__)

PURPOSE = "backend-credentials"
"""Of the Seal."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of each backend of which something changed: all its credentials in the clear, by label."""

    bearers: dict[str, Mapping[str, str]] = field(repr=False)
    removed: tuple[str, ...]
    """Backends that have none any more."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A credential that was taken away, as it was."""

    backend_id: str
    label: str
    sealed: bytes = field(repr=False)
    changed_at: datetime


class CredentialStore:
    def __init__(self, seal: Seal) -> None:
        self._seal = seal

    async def keep(
        self, change: Change, backend_id: str, bearer: str, now: datetime, *, label: str = FIRST_LABEL
    ) -> None:
        """In place of the one that this backend had under this label."""
        sealed = self._seal.close(bearer.encode(), _bound_to(backend_id, label))
        values = {"sealed": sealed, "changed_at": now, "version": change.version}
        await change.connection.execute(
            insert(backend_credentials)
            .values(backend_id=backend_id, label=label, **values)
            .on_conflict_do_update(
                index_elements=[backend_credentials.c.backend_id, backend_credentials.c.label], set_=values
            )
        )

    async def remove(self, change: Change, backend_id: str, now: datetime, *, label: str | None = None) -> None:
        """All of them, or one. Their rows stay without a value, and tell watchers so."""
        which = backend_credentials.c.backend_id == backend_id
        if label is not None:
            which &= backend_credentials.c.label == label
        await change.connection.execute(
            update(backend_credentials)
            .where(which, backend_credentials.c.sealed.is_not(None))
            .values(sealed=None, changed_at=now, version=change.version)
        )

    async def take(self, change: Change, backend_ids: Collection[str], now: datetime) -> tuple[Taken, ...]:
        """Removes all of these backends; what they had, for `give_back`."""
        table = backend_credentials.c
        rows = await change.connection.execute(
            select(table.backend_id, table.label, table.sealed, table.changed_at).where(
                table.backend_id.in_(backend_ids), table.sealed.is_not(None)
            )
        )
        taken = tuple(Taken(row.backend_id, row.label, row.sealed, row.changed_at) for row in rows)
        for backend_id in backend_ids:
            await self.remove(change, backend_id, now)
        return taken

    async def give_back(self, change: Change, taken: Iterable[Taken]) -> None:
        """Where no other was given meanwhile."""
        table = backend_credentials.c
        for one in taken:
            await change.connection.execute(
                update(backend_credentials)
                .where(table.backend_id == one.backend_id, table.label == one.label, table.sealed.is_(None))
                .values(sealed=one.sealed, changed_at=one.changed_at, version=change.version)
            )

    async def since(self, connection: AsyncConnection, after: int) -> Credentials:
        table = backend_credentials.c
        changed = select(table.backend_id).where(table.version > after)
        rows = await connection.execute(
            select(table.backend_id, table.label, table.sealed)
            .where(table.backend_id.in_(changed))
            .order_by(table.backend_id, table.changed_at, table.label)
        )
        held: dict[str, dict[str, str]] = {}
        for row in rows:
            of_backend = held.setdefault(row.backend_id, {})
            bearer = self._open(row.backend_id, row.label, row.sealed)
            if bearer is not None:
                of_backend[row.label] = bearer
        return Credentials(
            {backend_id: bearers for backend_id, bearers in held.items() if bearers},
            tuple(backend_id for backend_id, bearers in held.items() if not bearers),
        )

    def _open(self, backend_id: str, label: str, sealed: bytes | None) -> str | None:
        if sealed is None:
            return None
        try:
            return self._seal.open(sealed, _bound_to(backend_id, label)).decode()
        except NotSealed:
            # One unreadable row must not keep the other credentials from everybody.
            log.error(
                "credential cannot be opened with this seal key; add the backend's key again",
                extra={"action": "credential_unreadable", "backend": backend_id, "label": label},
            )
            return None


async def holders(connection: AsyncConnection) -> frozenset[str]:
    """The ids of backends for which a credential is kept."""
    rows: Iterable[str] = await connection.scalars(
        select(backend_credentials.c.backend_id).where(backend_credentials.c.sealed.is_not(None))
    )
    return frozenset(rows)


async def entries_of(connection: AsyncConnection, backend_id: str) -> list[Entry]:
    """What a backend has, without the values, oldest first."""
    table = backend_credentials.c
    rows = await connection.execute(
        select(table.label, table.changed_at)
        .where(table.backend_id == backend_id, table.sealed.is_not(None))
        .order_by(table.changed_at, table.label)
    )
    return [Entry(row.label, row.changed_at) for row in rows]


def _bound_to(backend_id: str, label: str) -> bytes:
    """Those of the first label were sealed before there were others."""
    return backend_id.encode() if label == FIRST_LABEL else f"{backend_id}\n{label}".encode()
