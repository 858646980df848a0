"""The operators' calls of `alerts_desk` and `status_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from forebay.wire.v1 import alerts_pb2, status_pb2
from forebay_admin.fleet.alerts_desk import AlertsDesk
from forebay_admin.fleet.status_desk import StatusDesk
from forebay_admin.people.access import Access
from forebay_admin.unbroken import to_its_end


class AlertsCalls:
    _access: Access
    _alerts: AlertsDesk
    _status: StatusDesk

    async def ListAlerts(self, request: alerts_pb2.ListAlertsRequest, context: Any) -> alerts_pb2.ListAlertsResponse:
        return await self._alerts.list(request)

    async def ShowAlert(self, request: alerts_pb2.ShowAlertRequest, context: Any) -> alerts_pb2.ShowAlertResponse:
        return await self._alerts.show(request)

    async def AckAlert(self, request: alerts_pb2.AckAlertRequest, context: Any) -> alerts_pb2.AckAlertResponse:
        return await to_its_end(self._alerts.ack(request, self._access.actor()))

    async def SilenceAlerts(
        self, request: alerts_pb2.SilenceAlertsRequest, context: Any
    ) -> alerts_pb2.SilenceAlertsResponse:
        return await to_its_end(self._alerts.silence(request, self._access.actor()))

    async def UnsilenceAlerts(
        self, request: alerts_pb2.UnsilenceAlertsRequest, context: Any
    ) -> alerts_pb2.UnsilenceAlertsResponse:
        return await to_its_end(self._alerts.unsilence(request, self._access.actor()))

    async def WatchAlerts(
        self, request: alerts_pb2.WatchAlertsRequest, context: Any
    ) -> AsyncIterator[alerts_pb2.WatchAlertsResponse]:
        async with aclosing(self._alerts.watch(request)) as told:
            async for news in told:
                self._access.demand_still("WatchAlerts")  # whoever was sent away hears no more
                yield news

    async def TestAlerts(self, request: alerts_pb2.TestAlertsRequest, context: Any) -> alerts_pb2.TestAlertsResponse:
        return await to_its_end(self._alerts.test(request, self._access.actor()))

    async def ShowStatus(self, request: status_pb2.ShowStatusRequest, context: Any) -> status_pb2.ShowStatusResponse:
        return await self._status.show()
