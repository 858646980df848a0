"""Where people and programs sign in, on admin's HTTP port: pages for browsers, JSON for programs.

What changes something under a browser's cookie needs the token of its own page, and nothing of another site's is done.
Passwords and tokens come in bodies, never in addresses, but for a reset, whose address is good once."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from aiohttp import web

from forebay.client_addresses import neighbourhood
from forebay.clock import Clock
from forebay.errors import BadInput, ForebayError, NotAuthenticated, NotFound, Unavailable
from forebay.rpc import caller_address
from forebay_admin.audit.audit_store import Interface, through
from forebay_admin.json_form import moment
from forebay_admin.security.visitor import visitor_address
from forebay_admin.sign_in.badges import Badges
from forebay_admin.sign_in.bearers import (
    SESSION_COOKIE,
    Bearer,
    BearerKind,
    csrf_token,
    is_csrf_token,
    parse_bearer,
)
from forebay_admin.sign_in.bodies import read_form, read_json
from forebay_admin.sign_in.devices import INTERVAL_S, Standing, shown
from forebay_admin.sign_in.door import Door, Entry
from forebay_admin.sign_in.lockout import TooManyAttempts
from forebay_admin.sign_in.origin import ForeignPage, demand_own_page, safe_next
from forebay_admin.sign_in.pace import Pace, TooOften
from forebay_admin.sign_in.pages import HOME, POLICY, THEME_COOKIE, Draws, SignInPages
from forebay_admin.sign_in.round_trip import RoundTrip
from forebay_admin.sign_in.sessions import Badge, SessionKind, Visitor
from forebay_admin.sign_in.waiting_room import WaitingRoom
from forebay_admin.wire_forms import moment_us

log = logging.getLogger(__name__)

_STATE_COOKIE = "forebay_state"
_STATUS: tuple[tuple[type[ForebayError], int], ...] = (
    (TooManyAttempts, 429),
    (TooOften, 429),
    (ForeignPage, 403),
    (BadInput, 400),
    (NotAuthenticated, 401),
    (NotFound, 404),
    (Unavailable, 503),
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SignInRoutes:
    def __init__(
        self,
        door: Door,
        waiting_room: WaitingRoom,
        round_trip: RoundTrip,
        badges: Badges,
        pepper: bytes,
        clock: Clock,
        draws: Draws,
        *,
        own_url: str,
        grpc_address: str,
    ) -> None:
        """`own_url`: where others reach this port. `grpc_address`: where programs then make their calls; its host may be
        that of `own_url`, and is empty then."""
        self._door = door
        self._waiting_room = waiting_room
        self._round_trip = round_trip
        self._badges = badges
        self._pepper = pepper
        self._clock = clock
        self._own_url = own_url
        self._grpc_address = grpc_address
        self._is_secure = own_url.startswith("https:")
        self._pages = SignInPages(draws)
        self._pace = Pace(at_once=30, every_s=1.0)

    def routes(self) -> list[web.RouteDef]:
        table: tuple[tuple[str, str, Handler], ...] = (
            ("GET", "/sign-in", self._page),
            ("POST", "/sign-in", self._password_form),
            ("POST", "/sign-in/token", self._password_json),
            ("GET", "/sign-in/me", self._me),
            ("POST", "/sign-out", self._sign_out),
            ("GET", "/sign-in/password", self._reset_page),
            ("POST", "/sign-in/password", self._reset),
            ("GET", "/sign-in/with/{provider}", self._to_provider),
            ("GET", "/sign-in/callback/{provider}", self._from_provider),
            ("POST", "/sign-in/device", self._device_begins),
            ("POST", "/sign-in/device/token", self._device_asks),
            ("GET", "/device", self._device_page),
            ("POST", "/device", self._device_decided),
        )
        return [web.route(verb, path, self._guarded(handler)) for verb, path, handler in table]

    def _guarded(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            way, where = through.set(Interface.SIGN_IN), caller_address.set(visitor_address(request))
            try:
                self._pace.demand(neighbourhood(visitor_address(request)), self._clock.monotonic())
                if request.method != "GET":
                    demand_own_page(request.headers, self._own_url)
                return await handler(request)
            except ForebayError as error:
                return self._refusal(request, error)
            finally:
                caller_address.reset(where)
                through.reset(way)

        return handle

    # --- passwords ----------------------------------------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.StreamResponse:
        badge, _ = self._who(request)
        if badge is not None and "next" not in request.query:
            return _see_other(HOME)
        next_path = safe_next(request.query.get("next", HOME))
        return _html(self._pages.sign_in(_theme(request), next_path, self._round_trip.titles))

    async def _password_form(self, request: web.Request) -> web.StreamResponse:
        form = await read_form(request, "name", "password")
        next_path = safe_next(form.get("next", HOME))
        try:
            entry = await self._door.by_password(form["name"], form["password"], _visitor(request, SessionKind.WEB))
        except (NotAuthenticated, TooManyAttempts) as error:
            page = self._pages.sign_in(_theme(request), next_path, self._round_trip.titles, error.message)
            return _html(page, _status(error), _headers(error))
        return self._enter(request, entry, next_path)

    async def _password_json(self, request: web.Request) -> web.StreamResponse:
        told = await read_json(request, "name", "password")
        entry = await self._door.by_password(told["name"], told["password"], _visitor(request, SessionKind.PROGRAM))
        return web.json_response(self._token(entry))

    async def _me(self, request: web.Request) -> web.StreamResponse:
        badge, bearer = self._who(request)
        if badge is None or bearer is None:
            raise NotAuthenticated("You are not signed in.")
        expires = moment(moment_us(badge.expires_at)) if badge.expires_at is not None else None
        return web.json_response(
            {
                "user": badge.user_name,
                "role": badge.role.value,
                "session_id": badge.id,
                "expires_at": expires,
                "csrf": csrf_token(self._pepper, bearer),
            }
        )

    async def _sign_out(self, request: web.Request) -> web.StreamResponse:
        """Of a browser by its cookie and its page's token, of a program by its bearer."""
        bearer = _bearer(request)
        if bearer is None:
            form = await read_form(request)
            _, found = self._who(request)
            if found is not None:
                self._demand_csrf(found, form.get("csrf", ""))
                bearer = str(found)
        if bearer is not None:
            await self._door.sign_out(bearer)
        response = _see_other("/sign-in") if _bearer(request) is None else web.json_response({"signed_out": True})
        response.del_cookie(SESSION_COOKIE, path="/")
        return response

    async def _reset_page(self, request: web.Request) -> web.StreamResponse:
        return _html(self._pages.set_password(_theme(request), request.query.get("token", "")[:200]))

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        is_json = request.content_type == "application/json"
        told = await (read_json if is_json else read_form)(request, "token", "password")
        try:
            user = await self._door.spend_reset(told["token"], told["password"])
        except ForebayError as error:
            if is_json:
                raise
            return _html(
                self._pages.set_password(_theme(request), told["token"][:200], error.message),
                _status(error),
                _headers(error),
            )
        if is_json:
            return web.json_response({"user": user.name})
        text = f"{user.name} has a new password."
        return _html(self._pages.said(_theme(request), "Done", text, ("/sign-in", "Sign in with it")))

    # --- providers ----------------------------------------------------------------------------------------------------

    async def _to_provider(self, request: web.Request) -> web.StreamResponse:
        next_path = safe_next(request.query.get("next", HOME))
        where, sealed = await self._round_trip.begin(request.match_info["provider"], next_path)
        response = _see_other(where)
        response.set_cookie(
            _STATE_COOKIE,
            sealed,
            max_age=600,
            path="/sign-in/callback",
            httponly=True,
            secure=self._is_secure,
            samesite="Lax",  # the provider sends the browser back
        )
        return response

    async def _from_provider(self, request: web.Request) -> web.StreamResponse:
        visitor = _visitor(request, SessionKind.WEB)
        try:
            entry, next_path = await self._round_trip.end(
                request.match_info["provider"], request.cookies.get(_STATE_COOKIE, ""), dict(request.query), visitor
            )
        except ForebayError as error:
            log.info("sign-in refused", extra={"action": "sign_in_refused", "why": error.message})
            page = self._pages.sign_in(_theme(request), HOME, self._round_trip.titles, error.message)
            response = _html(page, _status(error), _headers(error))
        else:
            response = self._enter(request, entry, next_path)
        response.del_cookie(_STATE_COOKIE, path="/sign-in/callback")
        return response

    # --- devices ------------------------------------------------------------------------------------------------------

    async def _device_begins(self, request: web.Request) -> web.StreamResponse:
        asked = await self._waiting_room.begin(_visitor(request, SessionKind.PROGRAM))
        code = shown(asked.device.user_code)
        return web.json_response(
            {
                "device_code": str(asked.bearer),
                "user_code": code,
                "verification_uri": f"{self._own_url}/device",
                "verification_uri_complete": f"{self._own_url}/device?code={code}",
                "expires_in": int((asked.device.expires_at.timestamp()) - self._clock.now()),
                "interval": INTERVAL_S,
            }
        )

    async def _device_asks(self, request: web.Request) -> web.StreamResponse:
        told = await read_json(request, "device_code")
        found = await self._waiting_room.ask(told["device_code"], _visitor(request, SessionKind.PROGRAM))
        if isinstance(found, Standing):
            return web.json_response({"error": found.value}, status=400)
        return web.json_response(self._token(found))

    async def _device_page(self, request: web.Request) -> web.StreamResponse:
        badge, bearer = self._who(request)
        code = request.query.get("code", "")[:40]
        if badge is None or bearer is None:
            onward = f"/device?code={quote(code, safe='')}" if code else "/device"
            return _see_other(f"/sign-in?next={quote(onward, safe='')}")
        if not code:
            return _html(self._pages.device_code(_theme(request)))
        try:
            waiting = await self._waiting_room.look(code)
        except (BadInput, NotFound) as error:
            return _html(self._pages.device_code(_theme(request), error.message), _status(error))
        return _html(self._pages.device(_theme(request), waiting, badge.user_name, csrf_token(self._pepper, bearer)))

    async def _device_decided(self, request: web.Request) -> web.StreamResponse:
        badge, bearer = self._who(request)
        if badge is None or bearer is None:
            raise NotAuthenticated("You are not signed in any more: sign in, and type the code again.")
        form = await read_form(request, "code", "decision", "csrf")
        self._demand_csrf(bearer, form["csrf"])
        is_confirmed = form["decision"] == "confirm"
        await self._waiting_room.decide(form["code"], badge, is_confirmed=is_confirmed)
        if is_confirmed:
            return _html(self._pages.said(_theme(request), "Done", "The device is signed in. You can close this page."))
        return _html(
            self._pages.said(_theme(request), "Refused", "The device was not signed in. You can close this page.")
        )

    # --- all of them --------------------------------------------------------------------------------------------------

    def _who(self, request: web.Request) -> tuple[Badge | None, Bearer | None]:
        """Whose cookie it is, while their session lets them in."""
        held = parse_bearer(request.cookies.get(SESSION_COOKIE, ""))
        if held is None or held.kind is not BearerKind.SESSION:
            return None, None
        try:
            return self._badges.demand(str(held)), held
        except NotAuthenticated:
            return None, None

    def _demand_csrf(self, bearer: Bearer, told: str) -> None:
        if not is_csrf_token(self._pepper, bearer, told):
            raise ForeignPage

    def _enter(self, request: web.Request, entry: Entry, next_path: str) -> web.Response:
        response = _see_other(next_path)
        response.set_cookie(
            SESSION_COOKIE,
            str(entry.bearer),
            expires=None,
            max_age=int(entry.session.expires_at.timestamp() - self._clock.now()),
            path="/",
            httponly=True,
            secure=self._is_secure,
            samesite="Lax",
        )
        return response

    def _token(self, entry: Entry) -> dict[str, Any]:
        return {
            "access_token": str(entry.bearer),
            "token_type": "Bearer",
            "expires_at": moment(moment_us(entry.session.expires_at)),
            "user": entry.session.user_name,
            "admin_grpc": self._grpc_address,
        }

    def _refusal(self, request: web.Request, error: ForebayError) -> web.Response:
        wants_page = "text/html" in request.headers.get("accept", "")
        why = error.message
        if isinstance(error, Unavailable):
            # Whoever asks is a stranger yet: where databases are and what they say is not theirs to know.
            log.warning("sign-in not possible", extra={"action": "sign_in_unavailable", "why": why})
            why = "This does not work at the moment: try again shortly."
        if wants_page:
            return _html(self._pages.said(_theme(request), "That did not work", why), _status(error), _headers(error))
        return web.json_response({"error": why}, status=_status(error), headers=_headers(error))


def _visitor(request: web.Request, kind: SessionKind) -> Visitor:
    return Visitor(kind, visitor_address(request), request.headers.get("user-agent", ""))


def _bearer(request: web.Request) -> str | None:
    kind, _, credential = request.headers.get("authorization", "").partition(" ")
    return credential.strip() if kind.lower() == "bearer" else None


def _html(text: str, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    response = web.Response(text=text, status=status, content_type="text/html", headers=headers)
    response.headers["content-security-policy"] = POLICY
    response.headers["referrer-policy"] = (
        "same-origin"  # with none at all, browsers would not say where a form comes from
    )
    return response


def _theme(request: web.Request) -> str:
    return request.cookies.get(THEME_COOKIE, "")


def _see_other(where: str) -> web.Response:
    return web.Response(status=303, headers={"location": where})


def _status(error: ForebayError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 409)


def _headers(error: ForebayError) -> dict[str, str]:
    return {"retry-after": str(max(1, round(error.retry_after_s)))} if error.retry_after_s else {}
