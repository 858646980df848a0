"""What the fake cloud providers have in common: one aiohttp server that checks its key, takes faults, writes down what came
and answers generations by the rules of `engine_wishes`. Each provider's words are its own file's business."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

from tests.fakes.engine_faults import Fault, FaultBox, FaultKind, Hit
from tests.fakes.engine_orders import Answer, BadOrder, Order, Pace, answer, order_chat
from tests.fakes.engine_sending import Broken, close_connection

Json = dict[str, Any]
API_KEY = "a-providers-key"
CONTEXT_TOKENS = 4096


class Refused(Exception):
    """An error answer. `kind` is the provider's word for it."""

    def __init__(self, status: int, kind: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.retry_after_s = status, kind, retry_after_s


@dataclass(slots=True)
class Asked:
    path: str
    """With its query."""
    headers: dict[str, str]
    """By lower-case name."""
    body: Any


@dataclass(slots=True)
class Planned:
    order: Order
    answer: Answer

    @property
    def prompt_tokens(self) -> int:
        return sum(self.order.prompt_tokens)


class FakeProvider:
    """Subclasses say `routes`, `check_headers` and `error_body`."""

    beginning = ""
    """Of its addresses, before /v1."""

    def __init__(self, *, models: Sequence[str] = ("fake-model",), pace: Pace | None = None) -> None:
        self.models = tuple(models)
        self.pace = pace or Pace(tokens_per_s=4000.0, ttft_s=0.0, answer_tokens=8)
        self.faults = FaultBox()
        self.refusals: dict[str, Refused] = {}
        """What is said to those who show one of these keys."""
        self.error_in_stream: Refused | None = None
        """What a fault in a stream says, instead of what it usually says."""
        self.asked: list[Asked] = []
        self.url = ""
        app = web.Application(middlewares=[self._attend], client_max_size=64 << 20)
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    def check_headers(self, request: web.Request) -> None:
        raise NotImplementedError

    def error_body(self, error: Refused) -> Json:
        raise NotImplementedError

    def plan(self, chat: Json) -> Planned:
        """`chat`: what was asked, in OpenAI's words, by which wishes are read."""
        try:
            order = order_chat(chat)
        except BadOrder as error:
            raise Refused(400, "invalid_request_error", str(error)) from error
        return Planned(order, answer(order, self.pace, CONTEXT_TOKENS))

    async def send_stream(
        self, request: web.Request, begin: Sequence[bytes], pieces: Sequence[bytes], end: Sequence[bytes], error: bytes
    ) -> web.StreamResponse:
        """`begin` before the first piece, `end` after the last, `error` when a fault wants one."""
        hit = request[HIT]
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for event in begin:
            await response.write(event)
        for number in range(len(pieces) + 1):
            if cut := hit.due(FaultKind.CUT_AFTER, number):
                close_connection(request, reset=cut.reset)
                raise Broken
            if hit.due(FaultKind.ERROR_EVENT_AFTER, number):
                await response.write(error)
                await response.write_eof()
                return response
            if number < len(pieces) and pieces[number]:
                await asyncio.sleep(1 / self.pace.tokens_per_s)
                await response.write(pieces[number])
        for event in end if hit[FaultKind.NO_DONE] is None else end[:-1]:
            await response.write(event)
        await response.write_eof()
        return response

    @web.middleware
    async def _attend(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        generates = request.method == "POST"
        request[HIT] = hit = self.faults.take(request.path, generates=generates)
        if generates:
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.asked.append(Asked(request.path_qs, headers, _parsed(await request.read())))
        try:
            if close := hit[FaultKind.CLOSE_BEFORE_HEADERS]:
                close_connection(request, reset=close.reset)
                raise Broken
            if refused := self.refusals.get(_key_shown(request)):
                raise refused
            self.check_headers(request)
            _act(hit[FaultKind.STATUS])
            return await handler(request)
        except Broken:
            return web.Response(status=500)  # never arrives
        except Refused as error:
            after = {} if error.retry_after_s is None else {"retry-after": f"{error.retry_after_s:g}"}
            return web.json_response(self.error_body(error), status=error.status, headers=after)


HIT = web.RequestKey("provider_hit", Hit)


def fields_in(value: Any, where: str, required: str, optional: str = "") -> Json:
    """`value` as an object that has all of the required fields and no others than these. Raises Refused."""
    if not isinstance(value, dict):
        raise Refused(400, "invalid_request_error", f"{where}: Input should be an object")
    for name in required.split():
        if name not in value:
            raise Refused(400, "invalid_request_error", f"{where}{name}: Field required")
    for name in value:
        if name not in required.split() + optional.split():
            raise Refused(400, "invalid_request_error", f"{where}{name}: Extra inputs are not permitted")
    return value


def _key_shown(request: web.Request) -> str:
    named = (request.headers.get(name) for name in ("x-api-key", "x-goog-api-key", "api-key"))
    return next(filter(None, named), request.headers.get("authorization", "").removeprefix("Bearer "))


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _act(fault: Fault | None) -> None:
    if fault is not None:
        kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(fault.status, "api_error")
        raise Refused(fault.status, kind, fault.message, fault.retry_after_s)
