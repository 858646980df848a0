"""Admin's HTTP port: the pages, the door through which invited nodes come in, the REST API, and whatever else it is given.

Tokens stand in paths here, so requests are not logged. No page of another origin is let in."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from ssl import SSLContext

from aiohttp import web
from aiohttp.typedefs import Middleware

from forebay.config import parse_address
from forebay.errors import AlreadyExists, BadInput, CannotStart, ForebayError, NotFound, Unavailable
from forebay.ops import Ops
from forebay.timely_heads import TimelyRunner
from forebay.traces.spans import opened
from forebay_admin.fleet.agent_wheel import Wheel
from forebay_admin.fleet.enrolment import Enrolment
from forebay_admin.fleet.invitations import Spent
from forebay_admin.fleet.join_script import JoinScript, refusal_script
from forebay_admin.rest.api import PREFIX, RestApi
from forebay_admin.rest.docs_page import STYLE_SOURCE
from forebay_admin.security.visitor import visitor_address
from forebay_admin.traced_visits import traced_visits
from forebay_admin.web.pages import Pages

log = logging.getLogger(__name__)

_MOST_BODY_BYTES = 64 * 1024
_STATUS: tuple[tuple[type[ForebayError], int], ...] = (
    (BadInput, 400),
    (NotFound, 404),
    (AlreadyExists, 409),
    (Spent, 410),
    (Unavailable, 503),
)

_GUARDS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": f"default-src 'none'; style-src {STYLE_SOURCE}; frame-ancestors 'none'; base-uri 'none'",
    "cache-control": "no-store",
}
"""What browsers are told about every answer. That this host is for HTTPS alone is not: a gateway may be next to it."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class JoinRoutes:
    def __init__(self, enrolment: Enrolment, wheel: Wheel, *, join_url: str, http_pin: str | None) -> None:
        self._enrolment = enrolment
        self._wheel = wheel
        self._join_url = join_url
        self._http_pin = http_pin

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/join/{token}", self._script),
            web.post("/join/{token}", self._join),
            web.get(f"/join/{{token}}/{self._wheel.file_name}", self._wheel_file),
        ]

    async def _script(self, request: web.Request) -> web.StreamResponse:
        token = request.match_info["token"]
        try:
            invitation = await self._enrolment.look(token)
        except (NotFound, Spent, Unavailable) as error:
            return _as_script(refusal_script(error.message))
        script = JoinScript(self._join_url, token, invitation.node, self._wheel.file_name, self._http_pin)
        return _as_script(script.render())

    async def _wheel_file(self, request: web.Request) -> web.StreamResponse:
        await self._enrolment.look(request.match_info["token"])
        return web.Response(body=self._wheel.content, content_type="application/octet-stream")

    async def _join(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
        except ValueError as error:
            raise BadInput("The body must be JSON.") from error
        if not isinstance(body, dict) or not isinstance(body.get("public_nkey"), str):
            raise BadInput('The body must be {"public_nkey": "U…", "hostname": "…"}.')
        hostname = body.get("hostname", "")
        if not isinstance(hostname, str):
            raise BadInput("hostname must be text.")
        admission = await self._enrolment.admit(
            request.match_info["token"], body["public_nkey"], hostname, visitor_address(request)
        )
        return web.json_response(admission.as_json())


@asynccontextmanager
async def open_http(
    listen: str,
    join: JoinRoutes,
    rest: RestApi,
    pages: Pages,
    ops: Ops,
    others: Sequence[web.RouteDef],
    *,
    tls: SSLContext | None = None,
    entrance: Middleware,
) -> AsyncIterator[str]:
    """Serves until left; gives HOST:PORT. `entrance`: what each request passes first. Raises CannotStart."""
    traces = opened()
    outermost = [] if traces is None else [traced_visits(traces)]
    app = web.Application(client_max_size=_MOST_BODY_BYTES, middlewares=[*outermost, entrance, _failures(pages)])
    app.on_response_prepare.append(_guard)
    docs = (web.get("/docs", rest.docs), web.get("/docs/postman.json", rest.postman))
    app.add_routes([web.get("/", _front_page(ops, pages)), *docs, *join.routes(), *pages.routes, *others])
    app.add_subapp(PREFIX, rest.application())
    # A packed body is not unpacked here, by anybody: a gibibyte may be in each megabyte of it.
    runner = TimelyRunner(app, access_log=None, shutdown_timeout=5.0, auto_decompress=False)
    await runner.setup()
    host, port = parse_address(listen)
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            raise CannotStart(
                f"The HTTP port {listen} of admin cannot be opened ({error.strerror}); is another Forebay running?"
            ) from error
        yield f"{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _front_page(ops: Ops, pages: Pages) -> Handler:
    async def front_page(request: web.Request) -> web.StreamResponse:
        if pages.wants_page(request):
            return await pages.front(request)
        return web.json_response(
            {"service": "forebay admin", "version": version("forebay"), "waiting_for": ops.missing, "docs": "/docs"}
        )

    return front_page


def _as_script(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/x-shellscript", headers={"cache-control": "no-store"})


async def _guard(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in _GUARDS.items():
        response.headers.setdefault(name, value)


def _failures(pages: Pages) -> Middleware:
    @web.middleware
    async def failures_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ForebayError as error:
            status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
            headers = {"retry-after": "2"} if status == 503 else {}
            return web.json_response({"error": error.message}, status=status, headers=headers)
        except web.HTTPException as error:
            if error.status == 404 and pages.wants_page(request):
                return pages.visits.not_found(request)
            return web.json_response({"error": error.reason}, status=error.status)
        except Exception:
            log.exception("request failed", extra={"action": "http_failed", "method": request.method})
            return web.json_response({"error": "Something went wrong in Forebay."}, status=500)

    return failures_as_json
