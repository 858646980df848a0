"""The operators' calls of `library_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from forebay.wire.v1 import library_pb2
from forebay_admin.fleet.library_desk import LibraryDesk
from forebay_admin.people.access import Access
from forebay_admin.unbroken import to_its_end


class LibraryCalls:
    _access: Access
    _library: LibraryDesk

    async def StartModelJob(
        self, request: library_pb2.StartModelJobRequest, context: Any
    ) -> library_pb2.StartModelJobResponse:
        return await to_its_end(self._library.start(request, self._access.actor()))

    async def ListModelJobs(
        self, request: library_pb2.ListModelJobsRequest, context: Any
    ) -> library_pb2.ListModelJobsResponse:
        return await self._library.jobs(request)

    async def FollowModelJob(
        self, request: library_pb2.FollowModelJobRequest, context: Any
    ) -> AsyncIterator[library_pb2.ModelJob]:
        async with aclosing(self._library.follow(request)) as jobs:
            async for job in jobs:
                yield job

    async def CancelModelJob(
        self, request: library_pb2.CancelModelJobRequest, context: Any
    ) -> library_pb2.CancelModelJobResponse:
        return await to_its_end(self._library.cancel(request, self._access.actor()))

    async def DescribeModel(
        self, request: library_pb2.DescribeModelRequest, context: Any
    ) -> library_pb2.DescribeModelResponse:
        return await self._library.describe(request)

    async def PinModel(self, request: library_pb2.PinModelRequest, context: Any) -> library_pb2.PinModelResponse:
        return await to_its_end(self._library.pin(request, self._access.actor()))

    async def ListModelPins(
        self, request: library_pb2.ListModelPinsRequest, context: Any
    ) -> library_pb2.ListModelPinsResponse:
        return await self._library.pins(request)
