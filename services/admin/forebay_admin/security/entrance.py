"""Admin's HTTP port lets in by address as the gateways do: lists, bans, and whoever has what lets them in all the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from aiohttp import web
from aiohttp.typedefs import Middleware

from forebay.address_gate import Ban
from forebay.client_addresses import TrustedProxies
from forebay.clock import Clock
from forebay.forwarded import Forwards
from forebay_admin.security.events import Kind
from forebay_admin.security.gatekeeper import Gatekeeper
from forebay_admin.security.visitor import note_visitor
from forebay_admin.security.watchman import Watchman

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_REST = "/api/v1/"


class Entrance:
    def __init__(
        self,
        gatekeeper: Gatekeeper,
        watchman: Watchman,
        proxies: TrustedProxies,
        forwards: Forwards,
        clock: Clock,
        lets_in: Callable[[web.Request, str], bool],
    ) -> None:
        """`forwards`: knows what gateways pass on. `lets_in`: whether what the request is signed with lets it in, from an
        address."""
        self._gatekeeper = gatekeeper
        self._watchman = watchman
        self._proxies = proxies
        self._forwards = forwards
        self._clock = clock
        self._lets_in = lets_in

    @property
    def middleware(self) -> Middleware:
        @web.middleware
        async def enter(request: web.Request, handler: Handler) -> web.StreamResponse:
            address = note_visitor(request, self._proxies, self._forwards, self._clock.now())
            found = self._gatekeeper.look(address)
            if found is not None:
                if not isinstance(found, Ban):
                    return self._turn_away(request, address, "Requests from this address are not taken here.", None)
                if not (found.spares_valid and (_is_front_page(request) or self._lets_in(request, address))):
                    return self._turn_away(request, address, "This address is banned", found)
            return await handler(request)

        return enter

    def _turn_away(self, request: web.Request, address: str, why: str, ban: Ban | None) -> web.Response:
        until = ban.until if ban is not None else None
        reason = "address_denied" if until is None else "address_banned"
        self._watchman.refused(Kind.ADDRESS_REFUSED, reason, address, key_id="", user="", is_guess=False)
        if ban is not None:
            ends = f" until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M:%S} UTC" if until is not None else ""
            why = f"{why}{ends}{f': {ban.reason}' if ban.reason else ''}."
        message = f"{why} Ask your administrator."
        body: dict[str, object] = {"error": message, "detail": message}  # the latter for other gateways' scripts
        if request.path.startswith(_REST):
            body = {"error": {"code": reason, "message": message, "reason": reason}}
        if until is None:
            return web.json_response(body, status=403)
        wait_s = max(1, round(until - self._clock.now()))
        return web.json_response(body, status=429, headers={"retry-after": str(wait_s)})


def _is_front_page(request: web.Request) -> bool:
    """By which a proxy sees whether we are well: somebody who guesses from behind it is not to end that."""
    return request.path == "/" and request.method in ("GET", "HEAD")
