"""What the tests of admin share: a replica of the real service, its callers, and a registry behind real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from forebay.errors import AlreadyExists, NotFound, Unavailable
from forebay.memory_bus import MemoryBus
from forebay.ops import Ops
from forebay.rpc import Peer, open_peer
from forebay.service import Ground
from forebay.wire.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
)
from forebay_admin.config import AdminSettings
from tests.admin.fake_alerts import FakeAlerts
from tests.admin.fake_fleet import FakeFleet
from tests.admin.fake_history import FakeHistory
from tests.admin.fake_library import FakeLibrary
from tests.admin.fake_lifecycle import FakeLifecycle
from tests.admin.fake_nodes import COMMAND_KEY, FakeNodes

TOKENS = {name: f"token-of-{name}" for name in ("gateway", "scheduler", "registry", "admin", "up")}
READY_S = 20.0


class FakeRegistry(FakeHistory, FakeFleet, registry_pb2_grpc.RegistryServicer):
    """Keeps backends and nodes in memory and behaves as the registry's contract says."""

    def WatchFleet(
        self, request: registry_pb2.WatchFleetRequest, context: Any
    ) -> AsyncIterator[registry_pb2.FleetUpdate]:
        raise NotFound("Admin does not watch the fleet.")

    def __init__(self) -> None:
        self.known: dict[str, registry_pb2.Backend] = {}
        super().__init__(self.known)
        self.enrolled: dict[str, registry_pb2.Node] = {}
        self.joined_from: dict[str, str] = {}
        self.actors: list[str] = []
        self.nodes = FakeNodes()
        self.alerts = FakeAlerts()
        self.lifecycle = FakeLifecycle(self.known)

    async def AddBackend(
        self, request: registry_pb2.AddBackendRequest, context: Any
    ) -> registry_pb2.AddBackendResponse:
        self.actors.append(request.actor)
        if self.refuse is not None:
            raise self.refuse
        before = self.known.get(request.name)
        if before is not None and not request.replace:
            raise AlreadyExists(f"There is a backend {request.name} already.")
        backend = registry_pb2.Backend(
            id=before.id if before is not None else f"backend-{len(self.known) + 1}",
            name=request.name,
            url=request.url,
            kind=request.kind,
            pool=request.pool or "default",
            node_id=self.node_id(request.node),
            slots=request.slots or 4,
            enabled=True,
            health=registry_pb2.BACKEND_HEALTH_HEALTHY,
            models=[registry_pb2.BackendModel(name="tiny", context_length=4096)],
            model_names=dict(request.model_names),
            gpu_indices=request.gpu_indices,
        )
        self.known[request.name] = backend
        self.want(backend)
        return registry_pb2.AddBackendResponse(backend=backend, created=before is None)

    async def ListBackends(
        self, request: registry_pb2.ListBackendsRequest, context: Any
    ) -> registry_pb2.ListBackendsResponse:
        return registry_pb2.ListBackendsResponse(backends=self.known.values())

    async def RemoveBackend(
        self, request: registry_pb2.RemoveBackendRequest, context: Any
    ) -> registry_pb2.RemoveBackendResponse:
        self.actors.append(request.actor)
        if request.name not in self.known:
            raise NotFound(f"There is no backend {request.name}.")
        self.want_no_more(self.known[request.name])
        return registry_pb2.RemoveBackendResponse(backend=self.known.pop(request.name))

    async def NameModels(
        self, request: registry_pb2.NameModelsRequest, context: Any
    ) -> registry_pb2.NameModelsResponse:
        self.actors.append(request.actor)
        if request.name not in self.known:
            raise NotFound(f"There is no backend {request.name}.")
        changed = registry_pb2.Backend()
        changed.CopyFrom(self.known[request.name])
        for name, at_engine in request.put.items():
            changed.model_names[name] = at_engine
        for name in request.removed:
            if name not in changed.model_names:
                raise NotFound(f"The backend has no name of its own for {name}.")
            del changed.model_names[name]
        self.known[request.name] = changed
        return registry_pb2.NameModelsResponse(backend=changed)

    async def EnrolNode(self, request: registry_pb2.EnrolNodeRequest, context: Any) -> registry_pb2.EnrolNodeResponse:
        self.actors.append(request.actor)
        node = self.enrolled.setdefault(request.name, registry_pb2.Node(id=f"node-{request.name}", name=request.name))
        self.joined_from[request.name] = request.joined_from
        return registry_pb2.EnrolNodeResponse(node=node, command_key=COMMAND_KEY)

    async def ListNodes(self, request: registry_pb2.ListNodesRequest, context: Any) -> registry_pb2.ListNodesResponse:
        described = [node for node in self.described() if node.name not in self.enrolled]
        return registry_pb2.ListNodesResponse(nodes=[*self.enrolled.values(), *described])

    async def ListModels(
        self, request: registry_pb2.ListModelsRequest, context: Any
    ) -> registry_pb2.ListModelsResponse:
        model = registry_pb2.FleetModel(
            name="tiny", pools=["default"], backends=list(self.known), healthy_backends=len(self.known)
        )
        return registry_pb2.ListModelsResponse(models=[model] if self.known else [])


class FakeScheduler(scheduler_pb2_grpc.SchedulerServicer):
    """Answers with what the test gives it; a standby says that it does not lead."""

    def __init__(self) -> None:
        self.leads = True
        self.queue = scheduler_pb2.ShowQueueResponse()
        self.remembered: list[scheduler_pb2.Explanation] = []
        self.drains: list[scheduler_pb2.DrainRequest] = []
        self.running = 0
        self.asked = 0

    def Session(self, request_iterator: Any, context: Any) -> Any:
        raise NotFound("Admin opens no session.")

    async def ShowQueue(self, request: scheduler_pb2.ShowQueueRequest, context: Any) -> scheduler_pb2.ShowQueueResponse:
        self._demand_lead()
        return self.queue

    async def Explain(self, request: scheduler_pb2.ExplainRequest, context: Any) -> scheduler_pb2.ExplainResponse:
        self._demand_lead()
        found = [
            one
            for one in self.remembered
            if (request.request_id and one.request_id == request.request_id)
            or (request.ledger_id and one.ledger_id == request.ledger_id)
        ]
        return scheduler_pb2.ExplainResponse(explanations=found)

    async def Drain(self, request: scheduler_pb2.DrainRequest, context: Any) -> scheduler_pb2.DrainResponse:
        self._demand_lead()
        self.drains.append(request)
        return scheduler_pb2.DrainResponse(running=self.running, drained=not request.undo and not self.running)

    async def Dump(self, request: scheduler_pb2.DumpRequest, context: Any) -> scheduler_pb2.DumpResponse:
        self._demand_lead()
        return scheduler_pb2.DumpResponse(queue=self.queue, recent=self.remembered)

    def _demand_lead(self) -> None:
        self.asked += 1
        if not self.leads:
            raise Unavailable("This scheduler is a standby.")


@dataclass
class Site:
    """The files and addresses that admin's replicas share."""

    directory: Path
    database_url: str
    registry: FakeRegistry
    settings: AdminSettings
    schedulers: list[FakeScheduler]
    """One is configured; both are served."""
    scheduler_addresses: list[str]
    library: FakeLibrary = field(default_factory=lambda: FakeLibrary({}))

    @property
    def scheduler(self) -> FakeScheduler:
        return self.schedulers[0]

    @property
    def first_key(self) -> str:
        assert self.settings.bootstrap_key_file is not None
        return self.settings.bootstrap_key_file.read_text().strip()


@dataclass
class Running:
    """One replica of admin."""

    site: Site
    ground: Ground
    grpc_address: str
    http_address: str
    peers: list[AbstractAsyncContextManager[Peer]] = field(default_factory=list)

    @property
    def ops(self) -> Ops:
        return self.ground.ops

    @property
    def bus(self) -> MemoryBus:
        return self.ground.memory_bus

    async def peer(self, token: str | None) -> Peer:
        opened = open_peer(self.grpc_address, token=token)
        self.peers.append(opened)
        return await opened.__aenter__()

    async def operator(self, token: str | None = None) -> OperatorCalls:
        """Calls with a key, by default the first admin's."""
        peer = await self.peer(token if token is not None else self.site.first_key)
        return OperatorCalls(admin_pb2_grpc.OperatorStub(peer.channel), peer.metadata)

    async def watcher(self, service: str) -> WatchCalls:
        peer = await self.peer(TOKENS[service])
        return WatchCalls(admin_pb2_grpc.AdminStub(peer.channel), peer.metadata)

    async def ready(self) -> None:
        await until(lambda: not set(self.ops.missing) - {"start"}, READY_S)


class OperatorCalls:
    """`await calls.AddUser(name="alice")`."""

    def __init__(self, stub: Any, metadata: Any) -> None:
        self._stub, self._metadata = stub, metadata

    def __getattr__(self, call: str) -> Callable[..., Awaitable[Any]]:
        method = admin_pb2.DESCRIPTOR.services_by_name["Operator"].methods_by_name[call]
        request = GetMessageClass(method.input_type)

        async def make(**fields: Any) -> Any:
            """The answer, or a list of them where there are several."""
            made = getattr(self._stub, call)(request(**fields), metadata=self._metadata, timeout=10)
            return [answer async for answer in made] if method.server_streaming else await made

        return make


class WatchCalls:
    def __init__(self, stub: Any, metadata: Any) -> None:
        self._stub, self._metadata = stub, metadata

    def __getattr__(self, stream: str) -> Callable[..., Any]:
        def watch(known_version: int = 0) -> Any:
            request = admin_pb2.WatchRequest(known_version=known_version)
            return getattr(self._stub, stream)(request, metadata=self._metadata)

        return watch


async def until(holds: Callable[[], Any], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


Start = Callable[..., AbstractAsyncContextManager[Running]]
"""`async with start() as admin:`, as often as replicas are wanted; keyword arguments are settings."""
