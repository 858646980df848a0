"""The REST API at work: who calls, what they ask, and what the operators' call answers, which is made right here.

A request that came whole is done whole, whether or not its client waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import orjson
from aiohttp import web
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from forebay.clock import Clock
from forebay.errors import BadInput, ForebayError, Unavailable
from forebay.metrics import Metrics
from forebay.rpc import caller, caller_address
from forebay.wire.v1 import admin_pb2
from forebay_admin.audit.audit_store import Interface, through
from forebay_admin.json_form import plain
from forebay_admin.people.access import OPERATOR, Access
from forebay_admin.rest import failures, pages, repeats
from forebay_admin.rest.answer_store import AnswerStore
from forebay_admin.rest.asked import assemble
from forebay_admin.rest.credential import signed_with
from forebay_admin.rest.docs_page import render
from forebay_admin.rest.file_forms import FORMAT, asked_form
from forebay_admin.rest.history_file import send_file
from forebay_admin.rest.routes import HAS_MORE, ROUTES, Flow, Route, Verb
from forebay_admin.rest.streams import first_of, tell_all
from forebay_admin.security.visitor import visitor_address

log = logging.getLogger(__name__)

PREFIX = "/api/v1"
JSON = "application/json"
CALL_S = 30.0
"""The longest that a call may take; a stream may take as long as there is something to tell."""

_CALLS = admin_pb2.DESCRIPTOR.services_by_name["Operator"].methods_by_name

_AT_ONCE = 16
_CALL = web.RequestKey("call", str)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def as_response(self) -> web.Response:
        return web.Response(status=self.status, body=self.body, content_type=JSON, headers=self.headers)


@cache
def _documents() -> tuple[bytes, bytes, bytes]:
    """The API's own document, its page for people, and its collection for Postman: the same as long as this runs."""
    here = files("forebay_admin.rest")
    document = here.joinpath("openapi.json").read_bytes()
    return document, render(orjson.loads(document)).encode(), here.joinpath("postman.json").read_bytes()


class RestApi:
    def __init__(
        self, operator: Any, access: Access, answers: AnswerStore, secret: bytes, clock: Clock, metrics: Metrics
    ) -> None:
        """`operator`: the servicer of the operators' calls. `secret`: under which requests are told apart."""
        self._operator = operator
        self._access = access
        self._answers = answers
        self._secret = secret
        self._clock = clock
        self._requests = metrics.counter(
            "forebay_admin_rest_requests_total", "Requests to the REST API, by call and status.", ("call", "status")
        )
        self._document, self._docs, self._collection = _documents()

    def application(self) -> web.Application:
        """To be put under PREFIX."""
        app = web.Application(middlewares=[self._failures_as_json])
        for route in ROUTES:
            app.router.add_route(route.verb, route.path, self._handler(route))
        app.router.add_route("GET", "/openapi.json", self._openapi)
        return app

    async def _openapi(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._document, content_type=JSON)

    async def postman(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._collection, content_type=JSON)

    async def docs(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._docs, content_type="text/html", charset="utf-8")

    def lets_in(self, request: web.Request, address: str) -> bool:
        """Whether what it is signed with lets it in, from that address; nobody hears of it where it does not."""
        where = caller_address.set(address)
        try:
            return self._access.lets_in(signed_with("GET", request.headers, request.cookies, self._secret))
        except ForebayError:
            return False
        finally:
            caller_address.reset(where)

    def _handler(self, route: Route) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            request[_CALL] = route.call
            with calling(Interface.REST, visitor_address(request)):
                name = self._access(f"{OPERATOR}/{route.call}", self._signed_with(request))
                caller.set(name)
                body = await read_body(request, route.most_body_bytes)
                if route.verb is Verb.POST and repeats.HEADER in request.headers:
                    return (await self._once(route, request, name, body)).as_response()
                if route.has_file and (form := asked_form(request.query, request.headers.get("accept", ""))):
                    return await send_file(request, form, _message(route, request, body)[0], self._operator, CALL_S)
                if route.flow is Flow.STREAM:
                    message, _ = _message(route, request, body)
                    return await tell_all(request, self._call(route, message))
                return (await self._answer(route, request, body)).as_response()

        return handle

    def _signed_with(self, request: web.Request) -> str:
        return signed_with(request.method, request.headers, request.cookies, self._secret)

    async def _answer(self, route: Route, request: web.Request, body: bytes) -> Answer:
        message, page = _message(route, request, body)
        async with asyncio.timeout(CALL_S) as deadline:
            try:
                made = self._call(route, message)
                answer = await (first_of(made) if route.flow is Flow.FIRST else made)
            except TimeoutError as error:
                if not deadline.expired():
                    raise
                raise failures.TookTooLong from error
        return Answer(route.status, orjson.dumps(await _told(route, answer, page)))

    async def _once(self, route: Route, request: web.Request, name: str, body: bytes) -> Answer:
        """Of a request that carries an Idempotency-Key."""
        if route.flow is not Flow.ONE:
            raise BadInput("Answers that come one after the other are not kept: leave out the Idempotency-Key.")
        key = repeats.demand_key(request.headers[repeats.HEADER])
        mac = repeats.request_mac(self._secret, f"{request.method} {request.raw_path}", body)
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        kept = await self._answers.begin(name, key, mac, now)
        if kept is not None:
            return Answer(*repeats.answer_again(kept, mac, now), headers={repeats.REPLAYED: "true"})
        try:
            answer = await self._answer(route, request, body)
        except failures.TookTooLong:
            raise
        except ForebayError:
            with suppress(Unavailable):
                await self._answers.forget(name, key)
            raise
        try:
            await self._answers.keep(name, key, answer.status, answer.body)
        except Unavailable as error:
            log.warning("answer not kept", extra={"action": "rest_answer_not_kept", "why": error.message})
        return answer

    def _call(self, route: Route, message: Message) -> Any:
        return getattr(self._operator, route.call)(message, None)

    @web.middleware
    async def _failures_as_json(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        status = 500
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            wrong = failures.WrongVerb(f"This address takes {allowed}, and not {request.method}.")
            status = failures.status_of(wrong)
            return _refusal(wrong, {"allow": allowed})
        except web.HTTPException as error:
            status = error.status
            return _refusal(failures.NoAddress() if status == 404 else BadInput(error.reason))
        except ForebayError as error:
            status = failures.status_of(error)
            if status == 500:
                log.error("call failed", extra={"action": "rest_failed", "why": error.message})
            return _refusal(error)
        except Exception:
            log.exception("call failed", extra={"action": "rest_failed", "method": request.method})
            return _refusal(ForebayError())
        finally:
            self._requests.child(request.get(_CALL, ""), str(status)).value += 1


@contextmanager
def calling(interface: Interface, address: str) -> Iterator[None]:
    """By nobody yet. One connection's requests are answered by one task, so what is set is taken back."""
    who, way, where = caller.set(""), through.set(interface), caller_address.set(address)
    try:
        yield
    finally:
        caller_address.reset(where)
        through.reset(way)
        caller.reset(who)


async def read_body(request: web.Request, most: int) -> bytes:
    """Raises BodyTooLarge before more than that was taken, NotJson."""
    too_large = failures.BodyTooLarge(f"A body here has at most {most} bytes.")
    if (request.content_length or 0) > most:
        raise too_large
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise failures.NotJson("A body here is JSON as it is, and not compressed.")
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > most:
                raise too_large
    except (web.RequestPayloadError, ConnectionError) as error:
        raise BadInput("The body broke off.") from error
    if body and request.content_type != JSON:
        raise failures.NotJson
    return bytes(body)


def _message(route: Route, request: web.Request, body: bytes) -> tuple[Message, pages.Page]:
    """Raises BadInput."""
    query = [(name, value) for name, value in request.query.items() if not (route.has_file and name == FORMAT)]
    page = pages.Page()
    if route.pages is not None:
        about = {name: value for name, value in query if name in (pages.SIZE, pages.TOKEN)}
        page = pages.asked_page(about.get(pages.SIZE), about.get(pages.TOKEN), from_call=route.pages.from_call)
        query = [(name, value) for name, value in query if name not in about]
    message: Message = GetMessageClass(_CALLS[route.call].input_type)()
    assemble(route, message, request.match_info, query, body)
    if route.pages is not None and route.pages.from_call:
        pages.ask_for(message, page)
    return message, page


async def _told(route: Route, answer: Message, page: pages.Page) -> dict[str, Any]:
    """Raises Refused."""
    if route.refused_by and (problems := getattr(answer, route.refused_by)):
        raise failures.Refused([plain(problem) for problem in problems])
    if route.pages is None:
        return plain(answer)
    things = getattr(answer, route.pages.list)
    if route.pages.from_call:
        shown, following = things, pages.token_after(things, route.pages, has_more=getattr(answer, HAS_MORE))
    else:
        shown, following = pages.cut(things, route.pages, page)
    listed = []
    for thing in shown:
        listed.append(plain(thing))
        if len(listed) % _AT_ONCE == 0:
            await asyncio.sleep(0)  # a node with its GPUs takes the better part of a millisecond
    answer.ClearField(route.pages.list)  # what is on other pages is not made into JSON
    return {**plain(answer), route.pages.list: listed, pages.NEXT: following}


def _refusal(error: ForebayError, headers: dict[str, str] | None = None) -> web.Response:
    told = failures.told(error)
    return web.Response(
        status=failures.status_of(error),
        body=orjson.dumps(told),
        content_type=JSON,
        headers={**failures.headers_of(error), **(headers or {})},
    )
