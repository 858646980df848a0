"""The addresses at which nearly all requests come, answered without aiohttp: the same routes, the same Exchange."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from functools import partial

from forebay.client_addresses import client_address
from forebay.errors import ForebayError
from forebay_gateway.callers.call import Call, read_call
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

    def find(self, head: Head, peer: str) -> Answer | None:
        if not head.path.rstrip("/").endswith(HOT_PATHS):
            return None
        headers, proxies = head.headers, self._proxies
        lines = (headers[proxies.header],) if proxies.networks and proxies.header in headers else ()
        address = client_address(peer, lines, proxies)
        call = read_call("POST", head.path, headers, "", self._means.endpoints, address)
        route = self._routes.get(call.path.rstrip("/"))
        return partial(self._answer, call, route) if route is not None else None

    async def _answer(self, call: Call, route: Route, request: Incoming, client: Outgoing) -> None:
        try:
            self._means.guard.demand(call)
            await Exchange(self._means, request, client, call, route).serve()
            return
        except (ConnectionError, asyncio.CancelledError):
            raise
        except ForebayError as error:
            self._means.guard.note(call, error)
            told = error
        except Exception:
            log.exception("request failed inside the gateway", extra={"action": "internal", "route": call.path})
            told = mistake(call.request_id)
        await client.send(*answer_to(dialect_of(call), told, call.request_id))
