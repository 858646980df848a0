"""The addresses at which nearly all requests come, answered without aiohttp: the same routes, the same Exchange."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from forebay.client_addresses import client_address
from forebay.errors import ForebayError
from forebay_gateway.callers.call import Call, new_request_id, read_call
from forebay_gateway.cors import Origins
from forebay_gateway.http_in.connections import Answer
from forebay_gateway.http_in.framer import Head
from forebay_gateway.http_in.incoming import Incoming
from forebay_gateway.http_in.outgoing import Outgoing
from forebay_gateway.relay import Exchange
from forebay_gateway.route import Route
from forebay_gateway.serving import Means
from forebay_gateway.turned_away import answer_to, dialect_of, mistake

log = logging.getLogger(__name__)

HOT_PATHS = (
    *("/v1/chat/completions", "/v1/completions", "/v1/embeddings"),
    *("/v1/messages", "/api/chat", "/api/generate"),
)


class HotRoutes:
    def __init__(self, means: Means, origins: Origins, routes: Iterable[Route]) -> None:
        self.origins = origins
        self._means = means
        self._proxies = means.settings.proxies
        self._routes = {route.path: route for route in routes if route.path in HOT_PATHS}

    def find(self, head: Head, peer: str, before: Answer | None) -> Answer | None:
        version = self._means.endpoints.version
        if type(before) is _Answering and before.version == version:
            call, route = before.call, before.route
            if not before.has_id:
                call = call._replace(request_id=new_request_id())
            return _Answering(self._means, call, route, version, has_id=before.has_id)
        if not head.path.rstrip("/").endswith(HOT_PATHS):
            return None
        headers, proxies = head.headers, self._proxies
        lines = (headers[proxies.header],) if proxies.networks and proxies.header in headers else ()
        address = client_address(peer, lines, proxies)
        call = read_call("POST", head.path, headers, "", self._means.endpoints, address)
        found = self._routes.get(call.path.rstrip("/"))
        if found is None:
            return None
        return _Answering(self._means, call, found, version, has_id=headers.get("x-request-id") == call.request_id)


class _Answering:
    """One request."""

    __slots__ = ("_means", "call", "has_id", "route", "version")

    def __init__(self, means: Means, call: Call, route: Route, version: int, *, has_id: bool) -> None:
        """`version`: of the virtual endpoints by which its address was understood. `has_id`: its client named it."""
        self._means, self.call, self.route, self.version, self.has_id = means, call, route, version, has_id

    def __call__(self, request: Incoming, client: Outgoing) -> Coroutine[Any, Any, None]:
        means, call = self._means, self.call
        try:
            if not means.guard.gate.is_open:
                means.guard.demand(call)
            return Exchange(means, request, client, call, self.route).serve()
        except ForebayError as error:
            means.guard.note(call, error)
            return self._refuse(client, error)
        except Exception:
            log.exception(
                "request failed inside the gateway",
                extra={"action": "internal", "request_id": call.request_id, "route": call.path},
            )
            return self._refuse(client, mistake(call.request_id))

    async def _refuse(self, client: Outgoing, error: ForebayError) -> None:
        await client.send(*answer_to(dialect_of(self.call), error, self.call.request_id))
