"""A registry's alerts, in memory, and how it says that it stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from forebay.errors import NotFound
from forebay.wire.v1 import alerts_pb2 as wire
from forebay.wire.v1 import status_pb2
from forebay.wire.v1.alerts_pb2_grpc import AlertsServicer
from forebay.wire.v1.status_pb2_grpc import StandingServicer

HOT = wire.Alert(
    id="al-1f2e",
    rule="gpu_hot",
    subject="gpu/box/0",
    node="box",
    severity=wire.ALERT_SEVERITY_CRITICAL,
    summary="GPU 0 of box is 97 °C hot.",
    todo="Look after its fans.",
    began_at_us=1_000_000,
    opened_at_us=2_000_000,
)


class FakeAlerts(AlertsServicer, StandingServicer):
    def __init__(self) -> None:
        self.actors: list[str] = []
        self.goes_on = asyncio.Event()
        """Whoever watches is told what comes after the snapshot."""
        self.goes_on.set()
        self.open: list[wire.Alert] = []
        self.silences: dict[tuple[str, str], wire.AlertSilence] = {}
        self.webhooks: list[wire.WebhookState] = []
        self.tests: list[wire.WebhookTest] = []
        self.standing = status_pb2.ShowStandingResponse(
            standing="leading",
            since_us=1_000_000,
            postgres=True,
            postgres_since_us=1_000_000,
            nats=True,
            nats_since_us=1_000_000,
            admin=True,
            fleet_known=True,
        )

    async def ListAlerts(self, request: wire.ListAlertsRequest, context: Any) -> wire.ListAlertsResponse:
        return wire.ListAlertsResponse(alerts=self.open, silences=self.silences.values(), webhooks=self.webhooks)

    async def ShowAlert(self, request: wire.ShowAlertRequest, context: Any) -> wire.ShowAlertResponse:
        return wire.ShowAlertResponse(alert=self._find(request.id))

    async def AckAlert(self, request: wire.AckAlertRequest, context: Any) -> wire.AckAlertResponse:
        self.actors.append(request.actor)
        alert, before = self._find(request.id), wire.Alert()
        before.CopyFrom(alert)
        alert.acked_at_us, alert.acked_by, alert.ack_note = 3_000_000, request.actor, request.note
        return wire.AckAlertResponse(before=before, alert=alert)

    async def SilenceAlerts(self, request: wire.SilenceAlertsRequest, context: Any) -> wire.SilenceAlertsResponse:
        self.actors.append(request.actor)
        key = request.subject, request.rule
        before = self.silences.get(key)
        self.silences[key] = wire.AlertSilence(
            id=f"si-{len(self.silences)}",
            subject=request.subject,
            rule=request.rule,
            added_by=request.actor,
            ends_at_us=2_000_000_000_000_000,
            reason=request.reason,
        )
        return wire.SilenceAlertsResponse(silence=self.silences[key], before=before, alerts=self.open)

    async def UnsilenceAlerts(self, request: wire.UnsilenceAlertsRequest, context: Any) -> wire.UnsilenceAlertsResponse:
        self.actors.append(request.actor)
        ended = self.silences.pop((request.subject, request.rule), None)
        if ended is None:
            raise NotFound(f"Nothing is silenced as {request.subject}.")
        return wire.UnsilenceAlertsResponse(before=[ended])

    async def WatchAlerts(
        self, request: wire.WatchAlertsRequest, context: Any
    ) -> AsyncIterator[wire.WatchAlertsResponse]:
        yield wire.WatchAlertsResponse(snapshot=True, open=self.open)
        await self.goes_on.wait()
        event = wire.AlertEvent(id="al-1f2e.2", kind=wire.ALERT_EVENT_KIND_CLOSED, alert=HOT)
        yield wire.WatchAlertsResponse(events=[event])

    async def TestAlerts(self, request: wire.TestAlertsRequest, context: Any) -> wire.TestAlertsResponse:
        self.actors.append(request.actor)
        return wire.TestAlertsResponse(tests=self.tests)

    async def ShowStanding(
        self, request: status_pb2.ShowStandingRequest, context: Any
    ) -> status_pb2.ShowStandingResponse:
        return self.standing

    def _find(self, alert_id: str) -> wire.Alert:
        for alert in self.open:
            if alert.id.startswith(alert_id):
                return alert
        raise NotFound(f"There is no alert {alert_id}.")
