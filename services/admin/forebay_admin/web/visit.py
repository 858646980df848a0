"""A page that is being asked for: who looks, what they may, the operators' calls that are made for them, and the answer.

Every call goes through the same door as gRPC and REST, so that rights, audit and errors are the same; a page decides none of
them. Whoever is not signed in has no calls at all, but for what is everybody's."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from aiohttp import web

from forebay.client_addresses import neighbourhood
from forebay.clock import Clock
from forebay.errors import BadInput, ForebayError, NotAllowed, NotAuthenticated, NotFound, Unavailable
from forebay.rpc import caller
from forebay_admin.audit.audit_store import Interface
from forebay_admin.people.access import OPERATOR, Access, Actor
from forebay_admin.people.roles import Reach
from forebay_admin.rest import failures
from forebay_admin.rest.api import calling
from forebay_admin.rest.credential import CSRF_HEADER
from forebay_admin.security.visitor import visitor_address
from forebay_admin.sign_in.bearers import SESSION_COOKIE, BearerKind, csrf_token, is_csrf_token, parse_bearer
from forebay_admin.sign_in.origin import ForeignPage, demand_own_page
from forebay_admin.sign_in.pace import Pace, TooOften
from forebay_admin.sign_in.pages import THEME_COOKIE, THEMES
from forebay_admin.web.forms import MOST_BYTES, Form, read_form
from forebay_admin.web.navigation import Place, menu
from forebay_admin.web.policy import HEADERS, content_policy
from forebay_admin.web.rendering import Rendering

log = logging.getLogger(__name__)

CALL_S = 30.0
"""The longest that a call may take."""
NOTICE_COOKIE = "forebay_notice"
CSRF_FIELD = "csrf"
LEFT_OPEN_HEADER = "x-forebay-left-open"
"""Sent by scripts of a page with what they ask again and again while it is open."""

_SHOW_NOTICE_S = 60
_STRANGERS_AT_ONCE, _STRANGERS_EVERY_S = 300, 0.1
"""How many pages an address gets for nobody, since each takes some milliseconds: enough for a lecture hall behind one."""
_NO_TEXT = re.compile("[\0\ud800-\udfff]")

T = TypeVar("T")

Handle = Callable[["Visit"], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Guard:
    """Who is let in at an address."""

    path: str
    call: str | None
    """The operators' call that whoever comes has to be allowed; None: whoever is signed in."""
    whole: bool
    """And not about their own things alone."""
    is_public: bool
    """Nobody too."""

    def lets_in(self, actor: Actor) -> bool:
        if self.call is None:
            return True
        reach = actor.reach(self.call)
        return reach is Reach.ALL or (reach is Reach.OWN and not self.whole)


class NoPage(NotFound):
    """There is no such page."""


@dataclass(slots=True)
class Visit:
    request: web.Request
    actor: Actor | None
    """None: nobody is signed in."""
    now: float
    """Unix seconds."""
    csrf: str
    """The token that forms send back; empty for nobody."""
    form: Form = field(default_factory=Form)
    """Empty but for a POST."""
    unknown: dict[str, str] = field(default_factory=dict)
    """What could not be asked while the page was made, and why, by call."""
    is_left_open: bool = False
    """It goes on without anybody's doing: no use of the session, which a forgotten window does not keep alive."""
    _visits: Visits = field(kw_only=True)
    _bearer: str = field(kw_only=True, default="", repr=False)

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    def part(self, name: str) -> str:
        """Of the address: /console/nodes/{name}."""
        return self.request.match_info[name]

    @property
    def user(self) -> str:
        """Raises NotAuthenticated."""
        return self.known.name

    @property
    def known(self) -> Actor:
        """Raises NotAuthenticated."""
        if self.actor is None:
            raise NotAuthenticated("You are not signed in.")
        return self.actor

    def reach(self, call: str) -> Reach:
        return self.actor.reach(call) if self.actor is not None else Reach.NONE

    def may(self, call: str) -> bool:
        """About their own things at least."""
        return self.reach(call) is not Reach.NONE

    def may_all(self, call: str) -> bool:
        return self.reach(call) is Reach.ALL

    async def ask(self, call: str, message: Any) -> Any:
        """The operators' call of that name, made for who looks. Raises ForebayError."""
        with self.calling(call):
            async with _in_time():
                return await getattr(self._visits.operator, call)(message, None)

    async def collect(self, call: str, message: Any, most: int = 1000) -> list[Any]:
        """Of a call that answers one after the other, the first so many, or all. Raises ForebayError."""
        found: list[Any] = []
        with self.calling(call):
            async with _in_time(), aclosing(getattr(self._visits.operator, call)(message, None)) as answers:
                async for answer in answers:
                    found.append(answer)
                    if len(found) >= most:
                        break
        return found

    async def ask_or_none(self, call: str, message: Any) -> Any:
        """None where what is asked is away, or is not theirs to know; `unknown` then says why."""
        return await self.told_or_none(call, self.ask(call, message))

    async def told_or_none(self, call: str, told: Awaitable[T]) -> T | None:
        """The same of what is made of a call's answer."""
        try:
            return await told
        except (Unavailable, NotAllowed, failures.TookTooLong) as error:
            self.unknown[call] = self.why(error)
            return None

    def why(self, error: ForebayError) -> str:
        """What whoever looks is told of it. Where databases are and what they say is no stranger's business."""
        if self.actor is None and _status(error) >= 500:
            return "This cannot be told at the moment: try again shortly."
        return error.message

    @contextmanager
    def calling(self, call: str) -> Iterator[None]:
        """For calls that answer one after the other: `async for` within it. Raises NotAuthenticated, NotAllowed."""
        with calling(Interface.WEB, visitor_address(self.request)):
            if not self._bearer:
                raise NotAuthenticated("You are not signed in.")
            if self.is_left_open:
                caller.set(self.known.key_id)
                self._visits.access.demand_still(call)
            else:
                caller.set(self._visits.access(f"{OPERATOR}/{call}", self._bearer))
            yield

    def is_still_let_in(self, call: str) -> bool:
        """Of a page that is left open: with the rights that it was opened with, since what it shows was chosen by them."""
        if self.actor is None:
            return False
        with calling(Interface.WEB, visitor_address(self.request)):
            caller.set(self.actor.key_id)
            try:
                self._visits.access.demand_still(call)
                return self._visits.access.actor().rights == self.actor.rights
            except ForebayError:
                return False

    # --- answers ------------------------------------------------------------------------------------------------------

    def render(self, template: str, **told: Any) -> str:
        """A piece of a page, with what every template knows."""
        return self._visits.rendering.text(template, {**self._known_everywhere(), **told})

    def page(
        self, template: str, *, title: str, status: int = 200, connects: tuple[str, ...] = (), **told: Any
    ) -> web.Response:
        """`connects`: origins besides ours that its scripts may call."""
        text = self.render(template, title=title, **told)
        response = web.Response(text=text, status=status, content_type="text/html", headers=HEADERS)
        if connects:
            response.headers["content-security-policy"] = content_policy(connects)
        if NOTICE_COOKIE in self.request.cookies:
            response.del_cookie(NOTICE_COOKIE, path="/")
        return response

    def fragment(self, template: str, **told: Any) -> web.Response:
        return web.Response(text=self.render(template, **told), content_type="text/html", headers=HEADERS)

    def done(self, path: str, notice: str = "") -> web.Response:
        """On to another page, which says once what was done."""
        response = see_other(path)
        if notice:
            response.set_cookie(
                NOTICE_COOKIE,
                quote(notice[:300]),
                max_age=_SHOW_NOTICE_S,
                path="/",
                httponly=True,
                secure=self._visits.is_secure,
                samesite="Strict",
            )
        return response

    def _known_everywhere(self) -> dict[str, Any]:
        theme = self.request.cookies.get(THEME_COOKIE, "")
        return {
            "visit": self,
            "now": self.now,
            "csrf": self.csrf,
            "menu": menu(self.request.path, self._is_shown) if self.actor is not None else (),
            "theme": theme if theme in THEMES else "",
            "notice": unquote(self.request.cookies.get(NOTICE_COOKIE, ""))[:300],
        }

    def _is_shown(self, place: Place) -> bool:
        if place.call is None:
            return True
        return self.may_all(place.call) if place.whole else self.may(place.call)


class Visits:
    """Makes handlers of what pages have, and answers for them when something goes wrong."""

    def __init__(
        self,
        operator: Any,
        access: Access,
        rendering: Rendering,
        pepper: bytes,
        clock: Clock,
        *,
        own_url: str,
    ) -> None:
        """`operator`: the servicer of the operators' calls. `own_url`: where browsers reach this port."""
        self.operator = operator
        self.access = access
        self.rendering = rendering
        self.own_url = own_url
        self.is_secure = own_url.startswith("https:")
        self.guards: list[tuple[str, Guard]] = []
        """Of each verb and address that there is."""
        self._pepper = pepper
        self.clock = clock
        self._strangers = Pace(_STRANGERS_AT_ONCE, _STRANGERS_EVERY_S)

    def get(
        self, path: str, handle: Handle, *, call: str | None = None, whole: bool = False, is_public: bool = False
    ) -> web.RouteDef:
        """`call`: without the right to which the page is not shown; None: whoever is signed in. `whole`: nor to who may
        make it about their own things alone. `is_public`: for nobody, too."""
        return self._route("GET", Guard(path, call, whole, is_public), handle)

    def post(
        self,
        path: str,
        handle: Handle,
        *,
        call: str | None = None,
        whole: bool = False,
        is_public: bool = False,
        most_bytes: int = MOST_BYTES,
    ) -> web.RouteDef:
        """Of a form of ours, which has so much in it at most. `is_public`: for nobody too, who then has no token that a page
        of another site lacks."""
        return self._route("POST", Guard(path, call, whole, is_public), handle, most_bytes)

    def _route(self, verb: str, guard: Guard, handle: Handle, most_bytes: int = MOST_BYTES) -> web.RouteDef:
        self.guards.append((verb, guard))
        answer = self._handler(handle, guard, most_bytes)
        return web.get(guard.path, answer) if verb == "GET" else web.post(guard.path, answer)

    def api(self, verb: str, path: str, handle: Handle) -> web.RouteDef:
        """For scripts of our pages, on behalf of whoever is signed in: errors are JSON, as those of the REST API. What
        changes something brings the token of a page of ours in a header."""

        async def answer(request: web.Request) -> web.StreamResponse:
            visit = self.visit(request)
            try:
                if visit.actor is None:
                    raise NotAuthenticated("You are not signed in any more: load the page again.")
                if verb != "GET":
                    demand_own_page(request.headers, self.own_url)
                    if not self._is_own_token(request, request.headers.get(CSRF_HEADER, "")):
                        raise ForeignPage
                _demand_plain(request)
                with calling(Interface.WEB, visitor_address(request)):
                    return await handle(visit)
            except ForebayError as error:
                status = _status(error)
                if status == 500:
                    log.error("page failed", extra={"action": "page_failed", "why": error.message})
                return web.json_response(failures.told(error), status=status, headers=_headers(error))

        return web.route(verb, path, answer)

    def _handler(
        self, handle: Handle, guard: Guard, most_bytes: int
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            visit = self.visit(request)
            try:
                if visit.actor is None and not guard.is_public:
                    return self._to_sign_in(request)
                if visit.actor is None:
                    self._strangers.demand(neighbourhood(visitor_address(request)), self.clock.monotonic())
                if visit.actor is not None and not guard.lets_in(visit.actor):
                    raise NotAllowed(f"{visit.user} may not see or do this; an admin gives roles.")
                if request.method == "POST":
                    demand_own_page(request.headers, self.own_url)
                    visit.form = await read_form(request, most_bytes)
                    if visit.actor is not None and not self._is_own_form(request, visit.form):
                        raise ForeignPage
                _demand_plain(request)
                return await handle(visit)
            except ForebayError as error:
                return self.refusal(visit, error)

        return answer

    def visit(self, request: web.Request, *, is_left_open: bool = False) -> Visit:
        """Who looks, by the cookie that they signed in with; nobody where that is over."""
        held = parse_bearer(request.cookies.get(SESSION_COOKIE, ""))
        now = self.clock.now()
        is_left_open = is_left_open or LEFT_OPEN_HEADER in request.headers
        if held is None or held.kind is not BearerKind.SESSION:
            return Visit(request, None, now, "", _visits=self)
        with calling(Interface.WEB, visitor_address(request)):
            try:
                whoami = f"{OPERATOR}/WhoAmI"
                caller.set(self.access.look(str(held)) if is_left_open else self.access(whoami, str(held)))
                actor = self.access.actor()
            except ForebayError:
                return Visit(request, None, now, "", _visits=self)
        token = csrf_token(self._pepper, held)
        return Visit(request, actor, now, token, is_left_open=is_left_open, _visits=self, _bearer=str(held))

    def refusal(self, visit: Visit, error: ForebayError) -> web.Response:
        """The page that says what went wrong."""
        if isinstance(error, NotAuthenticated) and visit.request.method == "GET":
            return self._to_sign_in(visit.request)
        status = _status(error)
        if status == 500:
            log.error("page failed", extra={"action": "page_failed", "why": error.message})
        title = _TITLES.get(status, "That did not work")
        response = visit.page("error.html", title=title, status=status, why=visit.why(error))
        response.headers.update(_headers(error))
        return response

    def not_found(self, request: web.Request) -> web.Response:
        return self.refusal(self.visit(request), NoPage())

    def _is_own_form(self, request: web.Request, form: Form) -> bool:
        return self._is_own_token(request, form.get(CSRF_FIELD))

    def _is_own_token(self, request: web.Request, token: str) -> bool:
        held = parse_bearer(request.cookies.get(SESSION_COOKIE, ""))
        return held is not None and is_csrf_token(self._pepper, held, token)

    def _to_sign_in(self, request: web.Request) -> web.Response:
        return see_other(f"/sign-in?next={quote(request.path_qs if request.method == 'GET' else '/', safe='')}")


_TITLES = {
    400: "Something in that was wrong",
    403: "Not allowed",
    404: "Not found",
    409: "That is there already",
    429: "Too often",
    503: "Not at the moment",
}


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(CALL_S) as deadline:
            yield
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise failures.TookTooLong from error


def _status(error: ForebayError) -> int:
    return 429 if isinstance(error, TooOften) else failures.status_of(error)


def _headers(error: ForebayError) -> dict[str, str]:
    if isinstance(error, TooOften):
        return {"retry-after": str(max(1, round(error.retry_after_s or 1.0)))}
    return failures.headers_of(error)


def _demand_plain(request: web.Request) -> None:
    """Nothing in the address that no database keeps, and nothing answers with. Raises BadInput."""
    for text in (*request.match_info.values(), *(text for pair in request.query.items() for text in pair)):
        if _NO_TEXT.search(text):
            raise BadInput("This address has a text in it that is none.")


def see_other(path: str) -> web.Response:
    return web.Response(status=303, headers={"location": path})


def demand_text(value: str, what: str, most: int = 200) -> str:
    """Of a query or an address. Raises BadInput."""
    if len(value) > most or not value.isprintable():
        raise BadInput(f"{what} cannot be that.")
    return value
