"""All the pages of admin's HTTP port, put together. What each shows is its own file's; who may see it is decided by the same
rights as every call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from forebay.clock import Clock
from forebay_admin.chat.opening import Chat
from forebay_admin.config import AdminSettings
from forebay_admin.people.access import Access
from forebay_admin.web.assets import Assets
from forebay_admin.web.chat.chat import ChatPages
from forebay_admin.web.chat.chat_calls import ChatCalls
from forebay_admin.web.cluster_facts import ClusterFacts
from forebay_admin.web.fleet.area import fleet_pages
from forebay_admin.web.live import Live
from forebay_admin.web.people.people_pages import people_pages
from forebay_admin.web.personal.export import ExportPages
from forebay_admin.web.personal.keys import OwnKeysPages
from forebay_admin.web.personal.limits import OwnLimitsPages
from forebay_admin.web.personal.overview import OverviewPages
from forebay_admin.web.personal.preferences import PreferencesPages
from forebay_admin.web.personal.sessions import SessionsPages
from forebay_admin.web.personal.usage import OwnUsagePages
from forebay_admin.web.rendering import Rendering
from forebay_admin.web.status.access import AccessPages, TakesRequests
from forebay_admin.web.status.models import ModelsPages
from forebay_admin.web.status.status import StatusPages
from forebay_admin.web.styleguide import StyleguidePages
from forebay_admin.web.visit import Visits
from forebay_admin.web.watch.watch_pages import watch_pages
from forebay_admin.web.work.work_pages import work_pages

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Pages:
    visits: Visits
    live: Live
    routes: list[web.RouteDef]
    front: Handler
    """The status page, which stands at `/` for browsers."""

    def wants_page(self, request: web.Request) -> bool:
        """A browser that somebody looks at, and no program."""
        return "text/html" in request.headers.get("accept", "")


@dataclass(frozen=True, slots=True)
class Outside:
    """What pages have for who is not signed in, and beside the operators' calls."""

    facts: ClusterFacts
    access_requests: TakesRequests
    is_public: bool
    """Whether everybody may see how the cluster is."""
    settings: AdminSettings
    gateway_url: str
    """Where people reach the gateways; without a slash at its end."""
    chat: Chat


@asynccontextmanager
async def open_pages(
    operator: Any,
    access: Access,
    assets: Assets,
    rendering: Rendering,
    pepper: bytes,
    clock: Clock,
    outside: Outside,
    *,
    own_url: str,
) -> AsyncIterator[Pages]:
    """`own_url`: where browsers reach this port."""
    visits = Visits(operator, access, rendering, pepper, clock, own_url=own_url)
    live = Live(visits)
    facts, gateway_url = outside.facts, outside.gateway_url
    status = StatusPages(visits, live, facts, is_public=outside.is_public)
    areas: tuple[Any, ...] = (
        status,
        ModelsPages(visits, facts, is_public=outside.is_public, gateway_url=gateway_url),
        AccessPages(visits, outside.access_requests),
        OverviewPages(visits, gateway_url=gateway_url),
        OwnKeysPages(visits, facts, gateway_url=gateway_url),
        OwnUsagePages(visits),
        OwnLimitsPages(visits),
        SessionsPages(visits),
        PreferencesPages(visits),
        ExportPages(visits, outside.chat.desk),
        StyleguidePages(visits, live),
        ChatPages(visits, outside.chat),
        ChatCalls(visits, outside.chat),
        *work_pages(visits, live, outside.settings),
        *people_pages(visits),
        *watch_pages(visits, live),
        *fleet_pages(visits, live),
    )
    routes = [*assets.routes(), *live.routes(), *(route for area in areas for route in area.routes())]
    try:
        yield Pages(visits, live, routes, status.front)
    finally:
        await live.aclose()
