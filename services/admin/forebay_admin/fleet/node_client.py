"""Admin's calls to the registry about what was found, and about commands to nodes' agents."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message

from forebay.errors import ForebayError, NotAllowed, NotAuthenticated, Unavailable
from forebay.rpc import Peer, as_forebay_error
from forebay.wire.v1 import commands_pb2, discovery_pb2
from forebay.wire.v1.commands_pb2_grpc import NodeCommandsStub
from forebay.wire.v1.discovery_pb2_grpc import DiscoveryStub

CALL_S = 4.0
COMMAND_S = 12 * 3600.0
"""As long as an agent may pull a model."""

R = TypeVar("R")


class NodeClient:
    """Each call raises what the registry raises, and Unavailable while it is away."""

    def __init__(self, peer: Peer) -> None:
        self._discovery = DiscoveryStub(peer.channel)
        self._commands: Any = NodeCommandsStub(peer.channel)
        self._metadata = peer.metadata

    async def found(self) -> discovery_pb2.ListFoundBackendsResponse:
        return await self._call(self._discovery.ListFoundBackends, discovery_pb2.ListFoundBackendsRequest())

    async def adopt(self, request: discovery_pb2.AdoptBackendRequest) -> discovery_pb2.AdoptBackendResponse:
        return await self._call(self._discovery.AdoptBackend, request)

    async def set_discovery(
        self, request: discovery_pb2.SetNodeDiscoveryRequest
    ) -> discovery_pb2.SetNodeDiscoveryResponse:
        return await self._call(self._discovery.SetNodeDiscovery, request)

    async def command(
        self, request: commands_pb2.CommandNodeRequest
    ) -> AsyncGenerator[commands_pb2.CommandNodeResponse, None]:
        call = self._commands.CommandNode(request, metadata=self._metadata, timeout=COMMAND_S)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise _told(error) from error
        finally:
            if hasattr(call, "cancel"):
                call.cancel()

    async def _call(self, method: Callable[..., Awaitable[R]], request: Message) -> R:
        try:
            return await method(request, metadata=self._metadata, timeout=CALL_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise _told(error) from error


def _told(error: grpc.aio.AioRpcError) -> ForebayError:
    told = as_forebay_error(error)
    said_by_registry = any(name == "forebay-reason" for name, _ in error.trailing_metadata() or ())
    if isinstance(told, Unavailable) and not said_by_registry:
        return Unavailable("The registry is away; nothing was changed there.", retry_after_s=2.0)
    if isinstance(told, NotAuthenticated | NotAllowed):
        return ForebayError(f"The registry does not let admin in: {told.message}")
    return told
