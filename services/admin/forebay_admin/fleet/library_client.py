"""Admin's calls to the registry about models on the engines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from forebay.rpc import Peer
from forebay.wire.v1 import library_pb2, library_pb2_grpc
from forebay_admin.fleet.registry_client import CALL_S, telling_operators

R = TypeVar("R")


class LibraryClient:
    """Each call raises what the registry raises, and Unavailable while it is away."""

    def __init__(self, peer: Peer) -> None:
        self._stub = library_pb2_grpc.ModelLibraryStub(peer.channel)
        self._metadata = peer.metadata

    async def start(self, request: library_pb2.StartModelJobRequest) -> library_pb2.StartModelJobResponse:
        return await self._call(self._stub.StartModelJob, request)

    async def jobs(self, request: library_pb2.ListModelJobsRequest) -> library_pb2.ListModelJobsResponse:
        return await self._call(self._stub.ListModelJobs, request)

    async def follow(self, request: library_pb2.FollowModelJobRequest) -> AsyncGenerator[library_pb2.ModelJob, None]:
        """For as long as the job takes. While the registry is away, Unavailable at once: who follows asks again."""
        call = self._stub.FollowModelJob(request, metadata=self._metadata)
        with telling_operators():
            async for job in call:
                yield job

    async def cancel(self, request: library_pb2.CancelModelJobRequest) -> library_pb2.CancelModelJobResponse:
        return await self._call(self._stub.CancelModelJob, request)

    async def describe(self, request: library_pb2.DescribeModelRequest) -> library_pb2.DescribeModelResponse:
        return await self._call(self._stub.DescribeModel, request)

    async def pin(self, request: library_pb2.PinModelRequest) -> library_pb2.PinModelResponse:
        return await self._call(self._stub.PinModel, request)

    async def pins(self, request: library_pb2.ListModelPinsRequest) -> library_pb2.ListModelPinsResponse:
        return await self._call(self._stub.ListModelPins, request)

    async def _call(self, method: Callable[..., Awaitable[R]], request: Message) -> R:
        with telling_operators():
            return await method(request, metadata=self._metadata, timeout=CALL_S, wait_for_ready=True)
