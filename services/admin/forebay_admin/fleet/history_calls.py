"""The operators' calls of `history_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import history_pb2
from forebay_admin.fleet.history_desk import HistoryDesk


class HistoryCalls:
    _history: HistoryDesk

    async def ShowHistory(
        self, request: history_pb2.ReadHistoryRequest, context: Any
    ) -> history_pb2.ReadHistoryResponse:
        return await self._history.show(request)

    async def ShowSeries(self, request: history_pb2.ListSeriesRequest, context: Any) -> history_pb2.ListSeriesResponse:
        return await self._history.show_series(request)

    async def ShowEnergy(self, request: history_pb2.ShowEnergyRequest, context: Any) -> history_pb2.ShowEnergyResponse:
        return await self._history.show_energy(request)
