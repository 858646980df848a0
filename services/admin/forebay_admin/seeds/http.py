"""The routes of other gateways on admin's HTTP port: who comes and from where, what they ask, and how it is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from forebay.clock import Clock
from forebay.errors import BadInput, ForebayError
from forebay_admin.audit.audit_store import Interface
from forebay_admin.people.access import Access
from forebay_admin.rest.api import CALL_S, JSON, calling, read_body
from forebay_admin.rest.credential import signed_with
from forebay_admin.rest.failures import TookTooLong
from forebay_admin.security.visitor import visitor_address
from forebay_admin.seeds import refusals
from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.mindrouter import table as mindrouter
from forebay_admin.seeds.mindrouter.cluster import Cluster
from forebay_admin.seeds.ollamaflow import table as ollamaflow
from forebay_admin.seeds.refusals import Dialect
from forebay_admin.seeds.route import Answer, SeedRoute
from forebay_admin.sign_in.door import Door

log = logging.getLogger(__name__)

ROUTES: tuple[SeedRoute, ...] = (*mindrouter.ROUTES, *ollamaflow.ROUTES)
MOST_BODY_BYTES = 64 * 1024
PUBLIC_RIGHT = "ShowStatus"
"""What is needed for the public pages where they are not public."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SeedRoutes:
    def __init__(
        self,
        operator: Any,
        access: Access,
        door: Door,
        cluster: Cluster,
        secret: bytes,
        clock: Clock,
        *,
        has_public_status: bool,
    ) -> None:
        """`operator`: the servicer of the operators' calls. `secret`: under which pages' tokens are told apart."""
        self._operator = operator
        self._access = access
        self._door = door
        self._cluster = cluster
        self._secret = secret
        self._clock = clock
        self._has_public_status = has_public_status

    def routes(self) -> list[web.RouteDef]:
        public: dict[str, Callable[[web.Request], Awaitable[Any]]] = {
            "/status": lambda _: self._cluster.status(),
            "/api/cluster/total-tokens": lambda _: self._cluster.total_tokens(),
            "/api/cluster/throughput": lambda _: self._cluster.throughput(),
            "/api/cluster/trends": lambda request: self._cluster.trends(request.query.get("range", "day")),
        }
        return [
            *(_at(route.verb, route.path, self._handler(route)) for route in ROUTES),
            *(web.get(path, self._public(make)) for path, make in public.items()),
            *(
                web.route("*", f"{prefix}/{{rest:.*}}", self._unknown(dialect))
                for prefix, dialect in (
                    (mindrouter.PREFIX, Dialect.MINDROUTER),
                    ("/api/cluster", Dialect.MINDROUTER),
                    (ollamaflow.PREFIX, Dialect.OLLAMAFLOW),
                )
            ),
        ]

    def _handler(self, route: SeedRoute) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            with calling(Interface.SEED, visitor_address(request)):
                try:
                    return _response(await self._serve(route, request))
                except Exception as error:
                    return _refusal(error, route.dialect, request)

        return handle

    def _public(self, make: Callable[[web.Request], Awaitable[Any]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            with calling(Interface.SEED, visitor_address(request)):
                try:
                    if not self._has_public_status:
                        self._asking(request, (PUBLIC_RIGHT,), b"").demand_rights()
                    async with asyncio.timeout(CALL_S):
                        return _response(Answer(await make(request)))
                except Exception as error:
                    return _refusal(error, Dialect.MINDROUTER, request)

        return handle

    def _unknown(self, dialect: Dialect) -> Handler:
        async def refuse(request: web.Request) -> web.StreamResponse:
            known = sorted({route.verb for route in ROUTES if _fits(route.path, request.path)})
            if known:
                return _refusal(BadInput(f"This address takes {', '.join(known)}."), dialect, request, status=405)
            words = "There is no such address here; docs/coming-from.md says which there are."
            return _refusal(BadInput(words), dialect, request, status=404)

        return refuse

    async def _serve(self, route: SeedRoute, request: web.Request) -> Answer:
        asking = self._asking(request, route.calls, b"")
        asking.demand_rights()
        body = await read_body(request, MOST_BODY_BYTES)
        asking = self._asking(request, route.calls, body)
        async with asyncio.timeout(CALL_S):
            made = await route.make(asking)
        return made if isinstance(made, Answer) else Answer(made)

    def _asking(self, request: web.Request, calls: tuple[str, ...], body: bytes) -> Asking:
        return Asking(
            self._operator,
            self._access,
            self._door,
            calls=calls,
            bearer=signed_with(request.method, request.headers, request.cookies, self._secret),
            path=request.match_info,
            query=request.query,
            body=body,
            now=self._clock.now(),
        )


def _response(answer: Answer) -> web.Response:
    if answer.value is None:
        return web.Response(status=answer.status, headers=answer.headers)
    body = answer.value if isinstance(answer.value, bytes) else orjson.dumps(answer.value)
    return web.Response(status=answer.status, body=body, content_type=answer.content_type, headers=answer.headers)


def _refusal(
    error: Exception, dialect: Dialect, request: web.Request, *, status: int | None = None
) -> web.StreamResponse:
    if isinstance(error, TimeoutError):
        error = TookTooLong()
    if not isinstance(error, ForebayError):
        log.error("call failed", exc_info=error, extra={"action": "seed_failed", "method": request.method})
        error = ForebayError()
    told = refusals.told(error, dialect)
    code = status or refusals.status_of(error, dialect)
    if dialect is Dialect.OLLAMAFLOW:
        told["StatusCode"] = code
    return web.Response(status=code, body=orjson.dumps(told), content_type=JSON, headers=refusals.headers_of(error))


def _fits(pattern: str, path: str) -> bool:
    ours, theirs = pattern.split("/"), path.split("/")
    return len(ours) == len(theirs) and all(a == b or a.startswith("{") for a, b in zip(ours, theirs, strict=True))


def _at(verb: str, path: str, handler: Handler) -> web.RouteDef:
    return web.get(path, handler) if verb == "GET" else web.route(verb, path, handler)  # get takes HEAD too
