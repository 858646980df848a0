"""`/models`: what can be asked for, and how. For everybody where the status is public, else for whoever is signed in."""

from __future__ import annotations

from aiohttp import web

from forebay.errors import ForebayError
from forebay_admin.web.cluster_facts import ClusterFacts
from forebay_admin.web.snippets import PLACEHOLDER, snippets
from forebay_admin.web.status.models_view import SORTS, PriceOf, model_view, models_view
from forebay_admin.web.visit import NoPage, Visit, Visits, demand_text


class ModelsPages:
    def __init__(self, visits: Visits, facts: ClusterFacts, *, is_public: bool, gateway_url: str) -> None:
        self._visits = visits
        self._facts = facts
        self._is_public = is_public
        self._gateway_url = gateway_url

    def routes(self) -> list[web.RouteDef]:
        return [
            self._visits.get("/models", self._list, is_public=self._is_public),
            self._visits.get("/models/{name:.+}", self._show, is_public=self._is_public),
        ]

    async def _list(self, visit: Visit) -> web.StreamResponse:
        text = demand_text(visit.query.get("q", "").strip(), "What is looked for")
        view = models_view(
            await self._facts.models(),
            asked=await self._asked(),
            price_of=self._price_of(visit),
            with_backends=visit.may_all("ShowBackends"),
            text=text,
            can=visit.query.get("can", ""),
            sort=visit.query.get("sort", ""),
        )
        return visit.page("status/models.html", title="Models", view=view, sorts=SORTS)

    async def _show(self, visit: Visit) -> web.StreamResponse:
        view = model_view(
            await self._facts.models(),
            visit.part("name"),
            asked=await self._asked(),
            price_of=self._price_of(visit),
            with_backends=visit.may_all("ShowBackends"),
        )
        if view is None:
            raise NoPage("There is no such model here.")
        ready = snippets(self._gateway_url, PLACEHOLDER, view.name, view.capabilities)
        return visit.page("status/model.html", title=view.name, view=view, snippets=ready, gateway=self._gateway_url)

    def _price_of(self, visit: Visit) -> PriceOf | None:
        return self._facts.price if visit.actor is not None else None

    async def _asked(self) -> dict[str, int] | None:
        try:
            return await self._facts.asked()
        except ForebayError:
            return None
