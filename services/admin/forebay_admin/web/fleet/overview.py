"""`/console`: the whole at a glance, and its alerts."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from aiohttp import web

from forebay.wire.v1 import admin_pb2, alerts_pb2, status_pb2
from forebay_admin.fleet.picture import picture
from forebay_admin.web.drafts import NO_DRAFTS, Drafts
from forebay_admin.web.fleet.alerts_view import alert_row, alerts_view
from forebay_admin.web.fleet.carry_out import carry_out
from forebay_admin.web.fleet.lately import LastHours
from forebay_admin.web.fleet.orders_form import one_line, read_silence
from forebay_admin.web.fleet.overview_view import Overview, overview
from forebay_admin.web.fleet.plots import SPANS, overview_plots, span_named
from forebay_admin.web.live import Live, Topic
from forebay_admin.web.visit import Visit, Visits

_ALERTS = "/console/alerts"


class OverviewPages:
    def __init__(self, visits: Visits, live: Live, hours: LastHours) -> None:
        self._visits = visits
        self._hours = hours
        live.add(
            [
                Topic("overview", self._piece, calls=("ShowStatus",), every_s=2.0),
                Topic("active-users", self._users_piece, calls=("ShowStatus", "QueryUsage"), every_s=30.0),
            ]
        )

    def routes(self) -> list[web.RouteDef]:
        get, post = self._visits.get, self._visits.post
        return [
            get("/console", self._overview, call="ShowStatus"),
            get(_ALERTS, self._alerts, call="ListAlerts"),
            get(f"{_ALERTS}/{{id}}", self._alert, call="ShowAlert"),
            post(f"{_ALERTS}/silence", self._silence_any, call="SilenceAlerts"),
            post(f"{_ALERTS}/unsilence", self._unsilence, call="UnsilenceAlerts"),
            post(f"{_ALERTS}/test", self._test, call="TestAlerts"),
            post(f"{_ALERTS}/{{id}}/ack", self._ack, call="AckAlert"),
            post(f"{_ALERTS}/{{id}}/silence", self._silence, call="SilenceAlerts"),
        ]

    async def _overview(self, visit: Visit) -> web.StreamResponse:
        span = span_named(visit.query.get("span", ""))
        view, hour = await asyncio.gather(self._view(visit), self._hours.by_user(visit))
        return visit.page(
            "fleet/overview.html",
            title="Overview",
            view=view,
            hour=hour,
            span=span.word,
            spans=list(SPANS),
            plots=overview_plots(span.word) if visit.may("ShowHistory") else (),
        )

    async def _view(self, visit: Visit) -> Overview:
        status, queue, backends, nodes = await asyncio.gather(
            visit.ask("ShowStatus", status_pb2.ShowStatusRequest()),
            visit.ask_or_none("ViewQueue", admin_pb2.ViewQueueRequest()),
            visit.ask_or_none("ShowBackends", admin_pb2.ShowBackendsRequest()),
            visit.ask_or_none("ShowNodes", admin_pb2.ShowNodesRequest()),
        )
        known = None if backends is None else backends.backends
        hosts = None if nodes is None else nodes.nodes
        return overview(status, picture(queue, known, hosts, status.alerts), hosts, visit.now)

    async def _piece(self, visit: Visit, _: str) -> str:
        return visit.render("fleet/_overview.html", view=await self._view(visit))

    async def _users_piece(self, visit: Visit, _: str) -> str:
        return visit.render("fleet/_active_users.html", hour=await self._hours.by_user(visit))

    # --- alerts -----------------------------------------------------------------------------------------------------

    async def _alerts(self, visit: Visit) -> web.StreamResponse:
        return await self._alerts_page(visit, NO_DRAFTS)

    async def _alerts_page(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        closed = visit.query.get("closed", "") == "1"
        told = await visit.ask("ListAlerts", alerts_pb2.ListAlertsRequest(closed=closed))
        view = alerts_view(told)
        return visit.page(
            "fleet/alerts.html", title="Alerts", status=drafts.status, view=view, closed=closed, drafts=drafts
        )

    async def _alert(self, visit: Visit) -> web.StreamResponse:
        return await self._alert_page(visit, NO_DRAFTS)

    async def _alert_page(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        told = await visit.ask("ShowAlert", alerts_pb2.ShowAlertRequest(id=visit.part("id")))
        alert = alert_row(told.alert)
        return visit.page("fleet/alert.html", title="Alert", status=drafts.status, alert=alert, drafts=drafts)

    async def _ack(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            order = alerts_pb2.AckAlertRequest(id=visit.part("id"), note=one_line(visit.form, "note"))
            told = await visit.ask("AckAlert", order)
            return f"{told.alert.id} is known to {told.alert.acked_by}: nobody is told of it again."

        return await carry_out(visit, "ack", act, show=self._alert_page, path=_of(visit.part("id")))

    async def _silence(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            return await _silence(visit)

        return await carry_out(visit, "silence", act, show=self._alert_page, path=_of(visit.part("id")))

    async def _silence_any(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            return await _silence(visit)

        return await carry_out(visit, "silence", act, show=self._alerts_page, path=_ALERTS)

    async def _unsilence(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            subject = visit.form.demand("subject", "What is silent")
            await visit.ask(
                "UnsilenceAlerts", alerts_pb2.UnsilenceAlertsRequest(subject=subject, rule=visit.form.get("rule"))
            )
            return f"Alerts of {subject} are told again."

        return await carry_out(visit, "unsilence", act, show=self._alerts_page, path=_ALERTS)

    async def _test(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("TestAlerts", alerts_pb2.TestAlertsRequest(webhook=visit.form.get("webhook")))
            if not told.tests:
                return "There is no webhook; NATS was told."
            return ". ".join(
                f"{test.webhook}: {'delivered' if test.delivered else f'not delivered, {test.detail}'}"
                for test in told.tests
            )

        return await carry_out(visit, "test", act, show=self._alerts_page, path=_ALERTS)


async def _silence(visit: Visit) -> str:
    told = await visit.ask("SilenceAlerts", read_silence(visit.form))
    covered = f"; it covers {len(told.alerts)} that are open" if told.alerts else ""
    return f"Alerts of {told.silence.subject} are silent{covered}."


def _of(alert_id: str) -> str:
    return f"{_ALERTS}/{quote(alert_id, safe='')}"
