"""What the other services watch: a snapshot, then each change as it is committed. While Postgres is away the streams stay
open and silent, and go on where they stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database
from forebay.metrics import Number
from forebay.wire.v1 import admin_pb2, admin_pb2_grpc
from forebay_admin.changes import Changes
from forebay_admin.credential_store import CredentialStore
from forebay_admin.key_store import principals_since
from forebay_admin.people_store import shares_since
from forebay_admin.updates import Read, U, updates
from forebay_admin.versions import Since
from forebay_admin.wire_forms import principal_to_wire, share_to_wire


class WatchServicer(admin_pb2_grpc.AdminServicer):
    def __init__(
        self, database: Database, changes: Changes, credentials: CredentialStore, watchers: Callable[[str], Number]
    ) -> None:
        """`watchers`: stream → how many watch it now."""
        self._database = database
        self._changes = changes
        self._credentials = credentials
        self._watchers = watchers

    def WatchPrincipals(
        self, request: admin_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[admin_pb2.PrincipalsUpdate]:
        return self._stream("principals", request, read_principals)

    def WatchPolicy(self, request: admin_pb2.WatchRequest, context: Any) -> AsyncIterator[admin_pb2.PolicyUpdate]:
        return self._stream("policy", request, read_policy)

    def WatchCredentials(
        self, request: admin_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[admin_pb2.CredentialsUpdate]:
        return self._stream("credentials", request, self._read_credentials)

    async def _stream(self, name: str, request: admin_pb2.WatchRequest, read: Read[U]) -> AsyncIterator[U]:
        watching = self._watchers(name)
        watching.value += 1
        try:
            async for update in updates(self._database, self._changes, request.known_version, read):
                yield update
        finally:
            watching.value -= 1

    async def _read_credentials(
        self, connection: AsyncConnection, since: Since, current: int
    ) -> admin_pb2.CredentialsUpdate:
        changed = await self._credentials.since(connection, since.after)
        return admin_pb2.CredentialsUpdate(
            version=current,
            snapshot=since.is_snapshot,
            credentials=[
                admin_pb2.BackendCredential(backend_id=backend_id, bearer=bearer)
                for backend_id, bearer in changed.bearers.items()
            ],
            removed_backend_ids=() if since.is_snapshot else changed.removed,
        )


async def read_principals(connection: AsyncConnection, since: Since, current: int) -> admin_pb2.PrincipalsUpdate:
    principals = await principals_since(connection, since.after)
    return admin_pb2.PrincipalsUpdate(
        version=current, snapshot=since.is_snapshot, keys=[principal_to_wire(p) for p in principals]
    )


async def read_policy(connection: AsyncConnection, since: Since, current: int) -> admin_pb2.PolicyUpdate:
    shares = await shares_since(connection, since.after)
    return admin_pb2.PolicyUpdate(version=current, snapshot=since.is_snapshot, users=[share_to_wire(s) for s in shares])
