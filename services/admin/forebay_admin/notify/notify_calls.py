"""The calls of `notify_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import notifications_pb2 as wire
from forebay_admin.notify.notify_desk import NotifyDesk
from forebay_admin.people.access import Access


class NotifyCalls:
    _access: Access
    _notify: NotifyDesk

    async def AddSubscription(self, request: wire.AddSubscriptionRequest, context: Any) -> wire.AddSubscriptionResponse:
        return await self._notify.add(request, self._access.actor())

    async def ListSubscriptions(
        self, request: wire.ListSubscriptionsRequest, context: Any
    ) -> wire.ListSubscriptionsResponse:
        return await self._notify.list_all(self._access.actor())

    async def RemoveSubscription(
        self, request: wire.RemoveSubscriptionRequest, context: Any
    ) -> wire.RemoveSubscriptionResponse:
        return await self._notify.remove(request, self._access.actor())

    async def TestSubscription(
        self, request: wire.TestSubscriptionRequest, context: Any
    ) -> wire.TestSubscriptionResponse:
        return await self._notify.test(request, self._access.actor())

    async def ListEvents(self, request: wire.ListEventsRequest, context: Any) -> wire.ListEventsResponse:
        return await self._notify.list_events(request, self._access.actor())

    async def ShowEvent(self, request: wire.ShowEventRequest, context: Any) -> wire.ShowEventResponse:
        return await self._notify.show_event(request, self._access.actor())

    async def RetryDeliveries(self, request: wire.RetryDeliveriesRequest, context: Any) -> wire.RetryDeliveriesResponse:
        return await self._notify.retry(request, self._access.actor())

    async def SetBudgetThresholds(
        self, request: wire.SetBudgetThresholdsRequest, context: Any
    ) -> wire.SetBudgetThresholdsResponse:
        return await self._notify.set_thresholds(request, self._access.actor())
