"""`/console/security`: what happened that somebody should look at, as it happens."""

from __future__ import annotations

from aiohttp import web

from forebay.wire.v1 import security_pb2
from forebay_admin.web.drafts import CORRECTABLE, NO_DRAFTS, refused
from forebay_admin.web.forms import Form
from forebay_admin.web.live import Live, Topic
from forebay_admin.web.visit import Visit, Visits
from forebay_admin.web.watch.security_view import KINDS, PATH, asked_for, security_view

_LIVE_EVERY_S = 3.0


class SecurityPages:
    def __init__(self, visits: Visits, live: Live) -> None:
        self._visits = visits
        live.add([Topic("security", self._piece, calls=("ListSecurityEvents",), every_s=_LIVE_EVERY_S)])

    def routes(self) -> list[web.RouteDef]:
        return [self._visits.get(PATH, self._list, call="ListSecurityEvents")]

    async def _list(self, visit: Visit) -> web.StreamResponse:
        query, drafts = Form(tuple(visit.query.items())), NO_DRAFTS
        try:
            told = await visit.ask("ListSecurityEvents", asked_for(query))
        except CORRECTABLE as error:
            drafts, told = refused("filter", query, error), security_pb2.ListSecurityEventsResponse()
        return visit.page(
            "watch/security.html",
            title="Security",
            status=drafts.status,
            view=security_view(told, visit.query),
            filters=drafts.filled("filter", query),
            kinds=(("", "any"), *KINDS),
            is_live=not any(visit.query.values()),
        )

    async def _piece(self, visit: Visit, _: str) -> str:
        told = await visit.ask("ListSecurityEvents", asked_for(Form()))
        return visit.render("watch/_security.html", view=security_view(told, {}))
