"""Operators' calls about alerts: authorised and audited here, done by the registry."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput
from forebay.wire.v1 import alerts_pb2 as wire
from forebay_admin.audit.audit import Audit
from forebay_admin.audit.audit_store import Facts
from forebay_admin.fleet.alerts_client import AlertsClient
from forebay_admin.people.access import Actor
from forebay_admin.wire_forms import moment


class AlertsDesk:
    def __init__(self, database: Database, alerts: AlertsClient, clock: Clock) -> None:
        self._audit = Audit(database, clock)
        self._alerts = alerts

    async def list(self, request: wire.ListAlertsRequest) -> wire.ListAlertsResponse:
        return await self._alerts.list(request)

    async def show(self, request: wire.ShowAlertRequest) -> wire.ShowAlertResponse:
        return await self._alerts.show(request)

    async def watch(self, request: wire.WatchAlertsRequest) -> AsyncGenerator[wire.WatchAlertsResponse, None]:
        async with aclosing(self._alerts.watch(request)) as told:
            async for news in told:
                yield news

    async def ack(self, request: wire.AckAlertRequest, actor: Actor) -> wire.AckAlertResponse:
        await self._audit.demand()
        request.actor = actor.name
        answer = await self._alerts.ack(request)
        before: Facts = {"acked_by": answer.before.acked_by, "note": answer.before.ack_note}
        after: Facts = {"acked_by": answer.alert.acked_by, "note": answer.alert.ack_note}
        await self._audit.record(actor, "alert.ack", answer.alert.id, before=before, after=after)
        return answer

    async def silence(self, request: wire.SilenceAlertsRequest, actor: Actor) -> wire.SilenceAlertsResponse:
        if not request.subject:
            raise BadInput("Name what is to be silent, such as backend/NAME or node/NAME.")
        await self._audit.demand()
        request.actor = actor.name
        answer = await self._alerts.silence(request)
        before = _facts(answer.before) if answer.HasField("before") else None
        after = _facts(answer.silence)
        await self._audit.record(actor, "alert.silence", answer.silence.subject, before=before, after=after)
        return answer

    async def unsilence(self, request: wire.UnsilenceAlertsRequest, actor: Actor) -> wire.UnsilenceAlertsResponse:
        await self._audit.demand()
        request.actor = actor.name
        answer = await self._alerts.unsilence(request)
        for silence in answer.before:
            await self._audit.record(actor, "alert.unsilence", silence.subject, before=_facts(silence))
        return answer

    async def test(self, request: wire.TestAlertsRequest, actor: Actor) -> wire.TestAlertsResponse:
        await self._audit.demand()
        request.actor = actor.name
        answer = await self._alerts.test(request)
        took = [f"{test.webhook}={'delivered' if test.delivered else 'failed'}" for test in answer.tests]
        await self._audit.record(actor, "alert.test", request.webhook or "all", after={"webhooks": took})
        return answer


def _facts(silence: wire.AlertSilence) -> Facts:
    return {
        "id": silence.id,
        "subject": silence.subject,
        "rule": silence.rule,
        "until": moment(silence.ends_at_us).isoformat(),
        "reason": silence.reason,
    }
