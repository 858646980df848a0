"""All the pages of admin's HTTP port, put together. What each shows is its own file's; who may see it is decided by the same
rights as every call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from forebay.clock import Clock
from forebay_admin.people.access import Access
from forebay_admin.web.assets import Assets
from forebay_admin.web.live import Live
from forebay_admin.web.rendering import Rendering
from forebay_admin.web.styleguide import StyleguidePages
from forebay_admin.web.visit import Visits


@dataclass(frozen=True, slots=True)
class Pages:
    visits: Visits
    live: Live
    routes: list[web.RouteDef]

    def wants_page(self, request: web.Request) -> bool:
        """A browser that somebody looks at, and no program."""
        return "text/html" in request.headers.get("accept", "")


@asynccontextmanager
async def open_pages(
    operator: Any,
    access: Access,
    assets: Assets,
    rendering: Rendering,
    pepper: bytes,
    clock: Clock,
    *,
    own_url: str,
) -> AsyncIterator[Pages]:
    """`own_url`: where browsers reach this port."""
    visits = Visits(operator, access, rendering, pepper, clock, own_url=own_url)
    live = Live(visits)
    areas: tuple[Any, ...] = (StyleguidePages(visits, live),)
    routes = [*assets.routes(), *live.routes(), *(route for area in areas for route in area.routes())]
    try:
        yield Pages(visits, live, routes)
    finally:
        await live.aclose()
