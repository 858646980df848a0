"""Admin's calls to the registry. An operator may be told what the registry says of the request; that the registry does not
know admin itself is nobody's mistake but the installation's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import grpc.aio
from google.protobuf.message import Message

from forebay.errors import ForebayError, NotAllowed, NotAuthenticated, Unavailable
from forebay.rpc import Peer, as_forebay_error
from forebay.wire.v1 import fleet_pb2, registry_pb2, registry_pb2_grpc, types_pb2

CALL_S = 4.0
"""A registry that restarts is back by then; one that is not is said to be away."""

R = TypeVar("R")


class RegistryClient:
    """Each call raises what the registry raises (BadInput, NotFound, AlreadyExists …), and Unavailable while it is away."""

    def __init__(self, peer: Peer) -> None:
        self._stub = registry_pb2_grpc.RegistryStub(peer.channel)
        self._metadata = peer.metadata

    async def add_backend(
        self,
        *,
        actor: str,
        name: str,
        url: str,
        kind: types_pb2.EngineKind.ValueType,
        pool: str,
        slots: int,
        node: str,
        replace: bool,
        model_names: Mapping[str, str],
        gpu_indices: Sequence[int],
    ) -> registry_pb2.AddBackendResponse:
        request = registry_pb2.AddBackendRequest(
            actor=actor,
            name=name,
            url=url,
            kind=kind,
            pool=pool,
            slots=slots,
            node=node,
            replace=replace,
            model_names=model_names,
            gpu_indices=gpu_indices,
        )
        return await self._call(self._stub.AddBackend, request)

    async def backends(self) -> Sequence[registry_pb2.Backend]:
        request = registry_pb2.ListBackendsRequest()
        return (await self._call(self._stub.ListBackends, request)).backends

    async def remove_backend(self, actor: str, name: str) -> registry_pb2.Backend:
        request = registry_pb2.RemoveBackendRequest(actor=actor, name=name)
        return (await self._call(self._stub.RemoveBackend, request)).backend

    async def name_models(
        self, actor: str, name: str, put: Mapping[str, str], removed: Sequence[str]
    ) -> registry_pb2.Backend:
        request = registry_pb2.NameModelsRequest(actor=actor, name=name, put=put, removed=removed)
        return (await self._call(self._stub.NameModels, request)).backend

    async def enrol_node(self, actor: str, name: str, joined_from: str) -> registry_pb2.EnrolNodeResponse:
        """`joined_from`: the address that its machine called from."""
        request = registry_pb2.EnrolNodeRequest(actor=actor, name=name, joined_from=joined_from)
        return await self._call(self._stub.EnrolNode, request)

    async def nodes(self) -> Sequence[registry_pb2.Node]:
        request = registry_pb2.ListNodesRequest()
        return (await self._call(self._stub.ListNodes, request)).nodes

    async def models(self) -> Sequence[registry_pb2.FleetModel]:
        request = registry_pb2.ListModelsRequest()
        return (await self._call(self._stub.ListModels, request)).models

    async def change_fleet(self, request: fleet_pb2.ChangeFleetRequest) -> fleet_pb2.ChangeFleetResponse:
        return await self._call(self._stub.ChangeFleet, request)

    async def read_fleet(self, version: int | None) -> fleet_pb2.ReadFleetResponse:
        """None: the newest."""
        return await self._call(self._stub.ReadFleet, fleet_pb2.ReadFleetRequest(version=version))

    async def fleet_versions(self, limit: int, before_version: int) -> Sequence[fleet_pb2.FleetVersion]:
        request = fleet_pb2.ListFleetVersionsRequest(limit=limit, before_version=before_version)
        return (await self._call(self._stub.ListFleetVersions, request)).versions

    async def _call(self, method: Callable[..., Awaitable[R]], request: Message) -> R:
        with telling_operators():
            return await method(request, metadata=self._metadata, timeout=CALL_S, wait_for_ready=True)


@contextmanager
def telling_operators() -> Iterator[None]:
    """Around a call to the registry: what went wrong, as an operator may hear it."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        told = as_forebay_error(error)
        if isinstance(told, Unavailable):
            raise Unavailable("The registry is away; nothing was changed there.", retry_after_s=2.0) from error
        if isinstance(told, NotAuthenticated | NotAllowed):
            raise ForebayError(f"The registry does not let admin in: {told.message}") from error
        raise told from error
