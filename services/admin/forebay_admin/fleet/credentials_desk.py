"""Operators' calls about the keys of one backend: added, listed by their labels and removed. A key never comes back."""

from __future__ import annotations

from datetime import UTC, datetime

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotFound
from forebay.wire.v1 import admin_pb2, registry_pb2
from forebay_admin.audit.audit_store import Act, record
from forebay_admin.changes import Changes
from forebay_admin.fleet.credential_store import CredentialStore, entries_of
from forebay_admin.fleet.credentials import Entry, demand_bearer, find, label_for
from forebay_admin.fleet.registry_client import RegistryClient
from forebay_admin.people.access import Actor
from forebay_admin.wire_forms import moment_us


class CredentialsDesk:
    def __init__(
        self, database: Database, changes: Changes, credentials: CredentialStore, registry: RegistryClient, clock: Clock
    ) -> None:
        self._database = database
        self._changes = changes
        self._credentials = credentials
        self._registry = registry
        self._clock = clock

    async def add(
        self, request: admin_pb2.AddBackendCredentialRequest, actor: Actor
    ) -> admin_pb2.AddBackendCredentialResponse:
        if not request.bearer:
            raise BadInput("The key is empty.")
        demand_bearer(request.bearer)
        backend, now = await self._backend(request.backend), self._now()
        async with self._changes.make(self._database) as change:
            held = await entries_of(change.connection, backend.id)
            label = label_for(request.label, held, replace=request.replace)
            await self._credentials.keep(change, backend.id, request.bearer, now, label=label)
            action = "backend.credential.replace" if request.replace else "backend.credential.add"
            act = Act(actor.name, action, backend.name, actor_key_id=actor.key_id, after={"label": label})
            await record(change.connection, act, now)
        others = sum(entry.label != label for entry in held)
        return admin_pb2.AddBackendCredentialResponse(credential=_told(Entry(label, now)), held=others + 1)

    async def list_all(
        self, request: admin_pb2.ListBackendCredentialsRequest
    ) -> admin_pb2.ListBackendCredentialsResponse:
        backend = await self._backend(request.backend)
        async with self._database.reading() as connection:
            held = await entries_of(connection, backend.id)
        return admin_pb2.ListBackendCredentialsResponse(credentials=[_told(entry) for entry in held])

    async def remove(
        self, request: admin_pb2.RemoveBackendCredentialRequest, actor: Actor
    ) -> admin_pb2.RemoveBackendCredentialResponse:
        backend, now = await self._backend(request.backend), self._now()
        async with self._changes.make(self._database) as change:
            held = await entries_of(change.connection, backend.id)
            entry = find(request.label, held)
            await self._credentials.remove(change, backend.id, now, label=entry.label)
            act = Act(
                actor.name,
                "backend.credential.remove",
                backend.name,
                actor_key_id=actor.key_id,
                before={"label": entry.label},
            )
            await record(change.connection, act, now)
        return admin_pb2.RemoveBackendCredentialResponse(credential=_told(entry), held=len(held) - 1)

    async def _backend(self, name: str) -> registry_pb2.Backend:
        """Raises NotFound, Unavailable."""
        for backend in await self._registry.backends():
            if backend.name == name:
                return backend
        raise NotFound(f"There is no backend {name!r}; `forebay backend list` shows those there are.")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _told(entry: Entry) -> admin_pb2.BackendCredentialEntry:
    return admin_pb2.BackendCredentialEntry(label=entry.label, changed_at_us=moment_us(entry.changed_at))
