"""Operators' calls about alerts: parse, decide, act, reply."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from forebay.clock import Clock, micros
from forebay.errors import BadInput, NotFound
from forebay.wire.v1 import alerts_pb2 as wire
from forebay.wire.v1.alerts_pb2_grpc import AlertsServicer
from forebay_registry.alerts.book import Alert, demand_silence, demand_text
from forebay_registry.alerts.deliveries import Deliveries, Receiver
from forebay_registry.alerts.store import AlertStore
from forebay_registry.alerts.watch import AlertWatch
from forebay_registry.alerts.wire import to_alert, to_event, to_severities, to_silence

_USUAL = 100
_LEAST_PREFIX = 4


class AlertCalls(AlertsServicer):
    def __init__(self, watch: AlertWatch, store: AlertStore, deliveries: Deliveries, clock: Clock) -> None:
        self._watch = watch
        self._store = store
        self._deliveries = deliveries
        self._clock = clock

    async def ListAlerts(self, request: wire.ListAlertsRequest, context: Any) -> wire.ListAlertsResponse:
        alerts = self._watch.alerts()
        if request.closed:
            alerts += await self._store.closed(request.limit or _USUAL)
        today = self._clock.now()
        silences = sorted(self._watch.book.silences.values(), key=lambda s: (s.ends_at, s.id))
        return wire.ListAlertsResponse(
            alerts=[self._to_alert(alert) for alert in alerts],
            silences=[to_silence(silence) for silence in silences if silence.ends_at > today],
            webhooks=[_to_state(receiver) for receiver in self._deliveries.receivers.values()],
        )

    async def ShowAlert(self, request: wire.ShowAlertRequest, context: Any) -> wire.ShowAlertResponse:
        return wire.ShowAlertResponse(alert=self._to_alert(await self._find(request.id)))

    async def AckAlert(self, request: wire.AckAlertRequest, context: Any) -> wire.AckAlertResponse:
        demand_text(request.note)
        found = await self._find(request.id)
        before, after = await self._watch.ack(found.id, request.actor, request.note)
        return wire.AckAlertResponse(before=self._to_alert(before), alert=self._to_alert(after))

    async def SilenceAlerts(self, request: wire.SilenceAlertsRequest, context: Any) -> wire.SilenceAlertsResponse:
        demand_silence(request.subject, request.rule, request.for_s, request.reason, len(self._watch.book.silences))
        before, silence = await self._watch.silence(
            request.subject, request.rule, request.for_s, request.actor, request.reason
        )
        today = self._clock.now()
        return wire.SilenceAlertsResponse(
            silence=to_silence(silence),
            before=to_silence(before) if before is not None else None,
            alerts=[self._to_alert(alert) for alert in self._watch.alerts() if silence.covers(alert, today)],
        )

    async def UnsilenceAlerts(self, request: wire.UnsilenceAlertsRequest, context: Any) -> wire.UnsilenceAlertsResponse:
        ended = await self._watch.unsilence(request.subject, request.rule)
        return wire.UnsilenceAlertsResponse(before=[to_silence(silence) for silence in ended])

    async def WatchAlerts(
        self, request: wire.WatchAlertsRequest, context: Any
    ) -> AsyncIterator[wire.WatchAlertsResponse]:
        async with aclosing(self._watch.follow()) as told:
            async for news in told:
                yield wire.WatchAlertsResponse(
                    snapshot=news.open is not None,
                    open=[self._to_alert(alert) for alert in news.open or ()],
                    events=[to_event(event, self._watch.silence_of(event.alert)) for event in news.events],
                )

    async def TestAlerts(self, request: wire.TestAlertsRequest, context: Any) -> wire.TestAlertsResponse:
        receivers = self._deliveries.receivers
        if request.webhook and request.webhook not in receivers:
            there = ", ".join(receivers) or "none"
            raise NotFound(f"There is no webhook {request.webhook[:80]!r}; there are: {there} ([[registry.webhooks]]).")
        event = await self._watch.test()
        tests = []
        for receiver in [receivers[request.webhook]] if request.webhook else receivers.values():
            posted = await self._deliveries.send(receiver, event)
            tests.append(
                wire.WebhookTest(
                    webhook=receiver.webhook.name,
                    delivered=posted.is_delivered,
                    detail=posted.said,
                    took_ms=round(posted.took_s * 1000),
                )
            )
        return wire.TestAlertsResponse(tests=tests)

    async def _find(self, text: str) -> Alert:
        """By its id, or enough of its beginning. Raises BadInput, NotFound, Unavailable."""
        open_now = [alert for alert in self._watch.alerts() if alert.id.startswith(text)]
        exact = [alert for alert in open_now if alert.id == text]
        if exact:
            return exact[0]
        if len(text) < _LEAST_PREFIX:
            raise BadInput(f"Give an alert's id, or at least {_LEAST_PREFIX} characters of its beginning.")
        known = {alert.id: alert for alert in [*await self._store.beginning_with(text), *open_now]}
        if text in known:
            return known[text]
        if not known:
            raise NotFound(f"There is no alert {text[:80]}. `forebay alert list --all` shows what there is.")
        if len(known) > 1:
            raise BadInput(f"Several alerts begin with {text[:80]}; give more of it.")
        return next(iter(known.values()))

    def _to_alert(self, alert: Alert) -> wire.Alert:
        return to_alert(alert, self._watch.silence_of(alert))


def _to_state(receiver: Receiver) -> wire.WebhookState:
    return wire.WebhookState(
        name=receiver.webhook.name,
        host=receiver.host,
        severities=to_severities(receiver.webhook.severities),
        delivered=receiver.delivered,
        waiting=len(receiver.outbox),
        given_up=receiver.given_up,
        delivered_at_us=micros(receiver.delivered_at) if receiver.delivered_at is not None else None,
        failing_since_us=micros(receiver.failing_since) if receiver.failing_since is not None else None,
        last_error=receiver.last_error,
    )
