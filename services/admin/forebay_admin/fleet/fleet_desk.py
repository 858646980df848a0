"""Operators' calls about backends, nodes and models: authorised and audited here, done by the registry.

An engine's own key stays with admin: sealed, bound to its backend, never sent to an address that it was not given for."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from urllib.parse import urlsplit

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, Unavailable
from forebay.wire.v1 import admin_pb2, registry_pb2
from forebay_admin.audit.audit import Audit
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Changes
from forebay_admin.fleet.credential_store import CredentialStore, holders
from forebay_admin.fleet.credentials import demand_bearer, origin
from forebay_admin.fleet.invitation_store import invite
from forebay_admin.fleet.invitations import demand_node_name, join_command, life_of, new_token, token_sha256
from forebay_admin.fleet.moving import without_keys
from forebay_admin.fleet.registry_client import RegistryClient
from forebay_admin.people.access import Actor
from forebay_admin.wire_forms import moment_us

log = logging.getLogger(__name__)

_MOST_SLOTS = 10_000


class FleetDesk:
    def __init__(
        self,
        database: Database,
        changes: Changes,
        credentials: CredentialStore,
        registry: RegistryClient,
        clock: Clock,
        *,
        join_url: str,
        http_pin: str | None,
    ) -> None:
        """`join_url`: how invited nodes reach admin's HTTP port, without a slash at the end."""
        self._database = database
        self._audit = Audit(database, clock)
        self._changes = changes
        self._credentials = credentials
        self._registry = registry
        self._clock = clock
        self._join_url = join_url
        self._http_pin = http_pin

    async def register_backend(
        self, request: admin_pb2.RegisterBackendRequest, actor: Actor
    ) -> admin_pb2.RegisterBackendResponse:
        _demand_backend(request)
        await self._audit.demand()
        before = await self._replaced(request)
        moving = []
        if before is not None and before.id in await self._holders():
            moving = _moving(before, request)
        async with without_keys(self._database, self._changes, self._credentials, moving, self._now()):
            answer = await self._registry.add_backend(
                actor=actor.name,
                name=request.name,
                url=request.url,
                kind=request.kind,
                pool=request.pool,
                slots=request.slots,
                node=request.node,
                replace=request.replace,
                model_names=dict(request.model_names),
                gpu_indices=request.gpu_indices,
            )
        backend = answer.backend
        act = Act(
            actor.name,
            "backend.add" if answer.created else "backend.replace",
            backend.name,
            actor_key_id=actor.key_id,
            before=_facts(before) if before is not None else None,
            after={**_facts(backend), "credential": "given" if request.bearer else "unchanged"},
        )
        try:
            await self._keep(act, backend.id, request.bearer)
        except Unavailable as error:
            raise Unavailable(
                f"The backend {backend.name} is there, but Postgres went away before the rest was written; "
                "do it again with --replace."
            ) from error
        return admin_pb2.RegisterBackendResponse(backend=await self._marked(backend), created=answer.created)

    async def show_backends(self) -> admin_pb2.ShowBackendsResponse:
        held = await self._holders()
        backends = [_marked(backend, held) for backend in await self._registry.backends()]
        return admin_pb2.ShowBackendsResponse(backends=backends)

    async def unregister_backend(
        self, request: admin_pb2.UnregisterBackendRequest, actor: Actor
    ) -> admin_pb2.UnregisterBackendResponse:
        now = self._now()
        await self._audit.demand()
        backend = await self._registry.remove_backend(actor.name, request.name)
        async with self._changes.make(self._database) as change:
            await self._credentials.remove(change, backend.id, now)
            act = Act(actor.name, "backend.remove", backend.name, actor_key_id=actor.key_id, before=_facts(backend))
            await record(change.connection, act, now)
        return admin_pb2.UnregisterBackendResponse(backend=backend)

    async def name_models(
        self, request: admin_pb2.NameBackendModelsRequest, actor: Actor
    ) -> admin_pb2.NameBackendModelsResponse:
        await self._audit.demand()
        before = next((b for b in await self._registry.backends() if b.name == request.name), None)
        backend = await self._registry.name_models(actor.name, request.name, dict(request.put), list(request.removed))
        act = Act(
            actor.name,
            "backend.model",
            backend.name,
            actor_key_id=actor.key_id,
            before={"model_names": _names(before)} if before is not None else None,
            after={"model_names": _names(backend)},
        )
        async with self._database.writing() as connection:
            await record(connection, act, self._now())
        return admin_pb2.NameBackendModelsResponse(backend=await self._marked(backend))

    async def invite_node(self, request: admin_pb2.InviteNodeRequest, actor: Actor) -> admin_pb2.InviteNodeResponse:
        now = self._now()
        node, life, token = demand_node_name(request.name), life_of(request.valid_s), new_token()
        async with self._database.writing() as connection:
            invitation = await invite(
                connection, token_sha256=token_sha256(token), node=node, created_by=actor.name, now=now, life=life
            )
            facts: Facts = {"expires_at": invitation.expires_at.isoformat()}
            act = Act(actor.name, "node.invite", node, actor_key_id=actor.key_id, after=facts)
            await record(connection, act, now)
        return admin_pb2.InviteNodeResponse(
            command=join_command(self._join_url, token, self._http_pin),
            valid_until_us=moment_us(invitation.expires_at),
        )

    async def show_nodes(self) -> admin_pb2.ShowNodesResponse:
        return admin_pb2.ShowNodesResponse(nodes=await self._registry.nodes())

    async def show_models(self) -> admin_pb2.ShowModelsResponse:
        return admin_pb2.ShowModelsResponse(models=await self._registry.models())

    async def _replaced(self, request: admin_pb2.RegisterBackendRequest) -> registry_pb2.Backend | None:
        if not request.replace:
            return None
        return next((b for b in await self._registry.backends() if b.name == request.name), None)

    async def _keep(self, act: Act, backend_id: str, bearer: str) -> None:
        now = self._now()
        if not bearer:
            async with self._database.writing() as connection:
                await record(connection, act, now)
            return
        async with self._changes.make(self._database) as change:
            await self._credentials.keep(change, backend_id, bearer, now)
            await record(change.connection, act, now)

    async def _holders(self) -> frozenset[str]:
        async with self._database.reading() as connection:
            return await holders(connection)

    async def _marked(self, backend: registry_pb2.Backend) -> registry_pb2.Backend:
        return _marked(backend, await self._holders())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _marked(backend: registry_pb2.Backend, held: frozenset[str]) -> registry_pb2.Backend:
    """Who holds credentials is admin's knowledge, and fresher here than the registry's."""
    backend.has_credential = backend.id in held
    return backend


def _moving(before: registry_pb2.Backend, request: admin_pb2.RegisterBackendRequest) -> list[str]:
    """Its id if it moves. Raises BadInput when it does and no new key comes."""
    if origin(before.url) == origin(request.url):
        return []
    if not request.bearer:
        raise BadInput(
            f"{before.name} moves to another address, and its key was given for the old one: give the key for "
            "the new one too, or remove the backend and add it again."
        )
    return [before.id]


def _demand_backend(request: admin_pb2.RegisterBackendRequest) -> None:
    """What can be seen to be wrong before the registry is asked. Raises BadInput."""
    if not request.name:
        raise BadInput("A backend needs a name.")
    try:
        parts = urlsplit(request.url)
        _ = parts.port
    except ValueError as error:
        raise BadInput(f"{request.url!r} is not a URL: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"{request.url!r} is not the URL of an engine; write http://host:port or https://host.")
    if parts.username is not None or parts.password is not None:
        raise BadInput("A URL is shown to everybody: give the engine's key with --bearer-file, not inside the URL.")
    if parts.query or parts.fragment:
        raise BadInput("The URL of an engine ends with its path, without ? or #.")
    if request.slots > _MOST_SLOTS:
        raise BadInput(f"{request.slots} slots are more than any engine has.")
    demand_bearer(request.bearer)


def _facts(backend: registry_pb2.Backend) -> dict[str, str | int | bool | list[str] | None]:
    return {
        "url": backend.url,
        "pool": backend.pool,
        "slots": backend.slots,
        "enabled": backend.enabled,
        "node_id": backend.node_id,
        "gpu_indices": [str(index) for index in backend.gpu_indices],
        **({"model_names": _names(backend)} if backend.model_names else {}),
    }


def _names(backend: registry_pb2.Backend) -> list[str]:
    return [f"{name}={at_engine}" for name, at_engine in sorted(backend.model_names.items())]
