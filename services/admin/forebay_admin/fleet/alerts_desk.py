"""Operators' calls about alerts: authorised and audited here, done by the registry."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

from sqlalchemy import text

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput
from forebay.wire.v1 import alerts_pb2 as wire
from forebay_admin.access import Actor
from forebay_admin.audit_store import Act, Facts, record
from forebay_admin.fleet.alerts_client import AlertsClient
from forebay_admin.wire_forms import moment


class AlertsDesk:
    def __init__(self, database: Database, alerts: AlertsClient, clock: Clock) -> None:
        self._database = database
        self._alerts = alerts
        self._clock = clock

    async def list(self, request: wire.ListAlertsRequest) -> wire.ListAlertsResponse:
        return await self._alerts.list(request)

    async def show(self, request: wire.ShowAlertRequest) -> wire.ShowAlertResponse:
        return await self._alerts.show(request)

    async def watch(self, request: wire.WatchAlertsRequest) -> AsyncGenerator[wire.WatchAlertsResponse, None]:
        async with aclosing(self._alerts.watch(request)) as told:
            async for news in told:
                yield news

    async def ack(self, request: wire.AckAlertRequest, actor: Actor) -> wire.AckAlertResponse:
        await self._demand_database()
        request.actor = actor.name
        answer = await self._alerts.ack(request)
        before: Facts = {"acked_by": answer.before.acked_by, "note": answer.before.ack_note}
        after: Facts = {"acked_by": answer.alert.acked_by, "note": answer.alert.ack_note}
        await self._record(actor, "alert.ack", answer.alert.id, before=before, after=after)
        return answer

    async def silence(self, request: wire.SilenceAlertsRequest, actor: Actor) -> wire.SilenceAlertsResponse:
        if not request.subject:
            raise BadInput("Name what is to be silent, such as backend/NAME or node/NAME.")
        await self._demand_database()
        request.actor = actor.name
        answer = await self._alerts.silence(request)
        before = _facts(answer.before) if answer.HasField("before") else None
        after = _facts(answer.silence)
        await self._record(actor, "alert.silence", answer.silence.subject, before=before, after=after)
        return answer

    async def unsilence(self, request: wire.UnsilenceAlertsRequest, actor: Actor) -> wire.UnsilenceAlertsResponse:
        await self._demand_database()
        request.actor = actor.name
        answer = await self._alerts.unsilence(request)
        for silence in answer.before:
            await self._record(actor, "alert.unsilence", silence.subject, before=_facts(silence))
        return answer

    async def test(self, request: wire.TestAlertsRequest, actor: Actor) -> wire.TestAlertsResponse:
        await self._demand_database()
        request.actor = actor.name
        answer = await self._alerts.test(request)
        took = [f"{test.webhook}={'delivered' if test.delivered else 'failed'}" for test in answer.tests]
        await self._record(actor, "alert.test", request.webhook or "all", after={"webhooks": took})
        return answer

    async def _record(
        self, actor: Actor, action: str, subject: str, *, before: Facts | None = None, after: Facts | None = None
    ) -> None:
        act = Act(actor.name, action, subject, actor_key_id=actor.key_id, before=before, after=after)
        async with self._database.writing() as connection:
            await record(connection, act, datetime.fromtimestamp(self._clock.now(), UTC))

    async def _demand_database(self) -> None:
        """What cannot be audited is not begun. Raises Unavailable."""
        async with self._database.reading() as connection:
            await connection.execute(text("SELECT 1"))


def _facts(silence: wire.AlertSilence) -> Facts:
    return {
        "id": silence.id,
        "subject": silence.subject,
        "rule": silence.rule,
        "until": moment(silence.ends_at_us).isoformat(),
        "reason": silence.reason,
    }
