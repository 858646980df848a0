"""`/`: how the cluster is, for everybody, or where that is nobody's business for who may see it."""

from __future__ import annotations

from aiohttp import web

from forebay.errors import BadInput, ForebayError, NotAllowed
from forebay_admin.web.cluster_facts import SPANS, ClusterFacts
from forebay_admin.web.live import Live, Topic
from forebay_admin.web.policy import HEADERS
from forebay_admin.web.status.models_view import models_view
from forebay_admin.web.status.status_view import (
    PERIOD_S,
    PLOTS,
    incidents_view,
    plot,
    status_view,
    trends_view,
)
from forebay_admin.web.visit import Visit, Visits, see_other

TOPIC = "status"
RIGHT = "ShowStatus"
"""What is needed where the page is not public, as for `/api/cluster`."""
_MOST_MODELS = 12
_USUAL_SPAN = "day"


class StatusPages:
    def __init__(self, visits: Visits, live: Live, facts: ClusterFacts, *, is_public: bool) -> None:
        self._visits = visits
        self._facts = facts
        self._is_public = is_public
        self.front = visits.get("/", self._status, is_public=True).handler
        live.add([Topic(TOPIC, self._piece, calls=() if is_public else (RIGHT,), every_s=2.0)])

    def routes(self) -> list[web.RouteDef]:
        return [self._visits.get("/status/{of}.json", self._plot, is_public=True)]

    async def _status(self, visit: Visit) -> web.StreamResponse:
        if not self._may(visit):
            return see_other("/me" if visit.actor is not None else "/sign-in")
        span = visit.query.get("span", _USUAL_SPAN)
        span = span if span in SPANS else _USUAL_SPAN
        return visit.page(
            "status/status.html",
            title="Status",
            view=status_view(await self._facts.now()),
            period_s=PERIOD_S,
            span=span,
            spans=SPANS,
            trends=await self._trends(visit, span),
            incidents=await self._incidents(visit),
            models=await self._models(visit),
        )

    async def _piece(self, visit: Visit, _: str) -> str:
        return visit.render("status/_now.html", view=status_view(await self._facts.now()), period_s=PERIOD_S)

    async def _plot(self, visit: Visit) -> web.StreamResponse:
        if not self._may(visit):
            raise NotAllowed("This is not for you to see.")
        of, span = visit.part("of"), visit.query.get("span", _USUAL_SPAN)
        if of not in PLOTS or span not in SPANS:
            raise BadInput(f"There are {', '.join(PLOTS)}, with ?span= of {', '.join(SPANS)}.")
        return web.json_response(plot(await self._facts.trends(span), of), headers=HEADERS)

    async def _trends(self, visit: Visit, span: str) -> object:
        try:
            return trends_view(span, await self._facts.trends(span))
        except ForebayError as error:
            visit.unknown["trends"] = visit.why(error)
            return None

    async def _incidents(self, visit: Visit) -> object:
        try:
            return incidents_view(await self._facts.incidents(), visit.now)
        except ForebayError as error:
            visit.unknown["incidents"] = visit.why(error)
            return None

    async def _models(self, visit: Visit) -> object:
        try:
            models = await self._facts.models()
            asked = await self._facts.asked()
        except ForebayError as error:
            visit.unknown["models"] = visit.why(error)
            return None
        served = [model for model in models if model.healthy_backends]
        view = models_view(served, asked=asked, price_of=None, with_backends=False)
        return {"shown": view.models[:_MOST_MODELS], "served": len(served), "in_all": len(models)}

    def _may(self, visit: Visit) -> bool:
        return self._is_public or visit.may_all(RIGHT)
