"""Admin's calls to the registry about history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from forebay.rpc import Peer
from forebay.wire.v1 import history_pb2, registry_pb2_grpc
from forebay_admin.fleet.registry_client import telling_operators
from forebay_admin.wire_forms import moment_us

_CALL_S = 12.0
"""A page may have to be read from disk."""


class HistoryClient:
    """Each call raises what the registry raises (BadInput, NotFound), and Unavailable while it is away."""

    def __init__(self, peer: Peer) -> None:
        self._stub: registry_pb2_grpc.RegistryAsyncStub = registry_pb2_grpc.RegistryStub(peer.channel)
        self._metadata = peer.metadata

    async def read(self, request: history_pb2.ReadHistoryRequest) -> history_pb2.ReadHistoryResponse:
        with telling_operators():
            return await self._stub.ReadHistory(request, metadata=self._metadata, timeout=_CALL_S, wait_for_ready=True)

    async def list_series(self, request: history_pb2.ListSeriesRequest) -> history_pb2.ListSeriesResponse:
        with telling_operators():
            return await self._stub.ListSeries(request, metadata=self._metadata, timeout=_CALL_S, wait_for_ready=True)

    async def energy(
        self, kind: history_pb2.SeriesKind.ValueType, since: datetime, until: datetime, *, is_whole: bool
    ) -> AsyncIterator[history_pb2.HistorySeries]:
        """Of every series of that kind, by hours or as one number, page after page."""
        request = history_pb2.ReadHistoryRequest(
            kind=kind,
            from_us=moment_us(since),
            to_us=moment_us(until),
            resolution_s=3600,
            energy_only=True,
            whole=is_whole,
        )
        while True:
            answer = await self.read(request)
            for series in answer.series:
                yield series
            if not answer.next_page:
                return
            request.page = answer.next_page
