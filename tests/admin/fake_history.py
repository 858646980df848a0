"""The registry's own answers about history, over a database of the test."""

from __future__ import annotations

from typing import Any

from forebay.errors import Unavailable
from forebay.wire.v1 import history_pb2
from forebay_registry.history.calls import HistoryCalls


class FakeHistory:
    history: HistoryCalls | None = None

    async def ReadHistory(
        self, request: history_pb2.ReadHistoryRequest, context: Any
    ) -> history_pb2.ReadHistoryResponse:
        return await self._demand().read(request)

    async def ListSeries(self, request: history_pb2.ListSeriesRequest, context: Any) -> history_pb2.ListSeriesResponse:
        return await self._demand().list_series(request)

    def _demand(self) -> HistoryCalls:
        if self.history is None:
            raise Unavailable
        return self.history
