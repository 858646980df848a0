"""The way to the engines: one pool of connections for the process, and answers that end at once when nobody wants them.

There is no limit on the time to headers or on the whole: a queue in an engine and a long answer are both ordinary. Whoever
waits here is ended from outside: by the client's going, by the registry's word, or by the request's deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import orjson

from forebay.errors import ForebayError
from forebay_gateway.broken_connection import why_broken
from forebay_gateway.canonical.upload import Upload
from forebay_gateway.engine_answer import EngineAnswer, TroubledEngine, read_error
from forebay_gateway.engines.credentials import NOTHING, headers_for
from forebay_gateway.engines.errors import (
    Blame,
    EngineTrouble,
    judge,
    mentions_stream_options,
)
from forebay_gateway.fleet import Backend
from forebay_gateway.http_out.connection import Connection
from forebay_gateway.http_out.form import Form
from forebay_gateway.http_out.pool import Pool, open_pool
from forebay_gateway.http_out.request import BodyPieces, Request, Targets, header_lines
from forebay_gateway.http_out.response import Response
from forebay_gateway.keyring import Keyring, Tried, Using

_MOST_ASKED = 16 << 20
"""Bytes of a small answer: a list of many models, or the tokens of a long prompt."""
_JSON = b"content-type: application/json\r\n"
_BYTES = b"content-type: application/octet-stream\r\n"


class Body(Protocol):
    def __call__(self, *, ask_usage: bool) -> bytes | Upload: ...


@dataclass(frozen=True, slots=True)
class _ErrorAnswer:
    status: int
    told: bytes
    retry_after: str | None


class Upstream:
    """Use `open_upstream`."""

    def __init__(self, pool: Pool, keyring: Keyring) -> None:
        self._pool = pool
        self._targets = Targets()
        self._keyring = keyring
        self._without_usage: set[str] = set()
        """Backends that refuse `stream_options`."""

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._pool.__aexit__(kind, error, traceback)

    async def send(
        self,
        backend: Backend,
        path: str,
        body: Body,
        *,
        model: str = "",
        request_id: str,
        traceparent: str | None,
        before_write: Callable[[Connection], None],
        said: Mapping[str, str] = NOTHING,
        tracestate: str = "",
    ) -> EngineAnswer:
        """Posts and waits for status 200; `body(ask_usage=…)` gives the request, `said` the client's headers that go with
        it. What a credential is refused for is asked again with another one of the backend. `before_write` is called in each
        loop turn in which the request is written, with the connection that it goes over. Whoever has the answer closes it.
        Raises TroubledEngine, or the ForebayError that the client gets."""
        if backend.has_credential:
            return await self._send_with_one(
                backend, path, body, model, request_id, traceparent, before_write, said, tracestate
            )
        headers = _headers(backend, request_id, traceparent, None, said, tracestate)
        answered = await self._post_asking_usage(backend, path, body, headers, before_write)
        if isinstance(answered, Response):
            return EngineAnswer(answered)
        raise _as_error(judge(answered.status, answered.told, answered.retry_after, None))

    async def _send_with_one(
        self,
        backend: Backend,
        path: str,
        body: Body,
        model: str,
        request_id: str,
        traceparent: str | None,
        before_write: Callable[[Connection], None],
        said: Mapping[str, str],
        tracestate: str,
    ) -> EngineAnswer:
        tried = Tried()
        while True:
            with self._take(backend, model, tried) as using:
                headers = _headers(backend, request_id, traceparent, using.secret, said, tracestate)
                answered = await self._post_asking_usage(backend, path, body, headers, before_write)
                if isinstance(answered, Response):
                    using.accepted()
                    return EngineAnswer(answered, using)
                judged = using.judge(answered.status, answered.told, answered.retry_after)
                if not using.hear(judged) or not isinstance(judged, EngineTrouble):
                    raise _as_error(judged)
            tried.said = judged

    async def _post_asking_usage(
        self,
        backend: Backend,
        path: str,
        body: Body,
        headers: dict[str, str],
        before_write: Callable[[Connection], None],
    ) -> Response | _ErrorAnswer:
        asks = backend.id not in self._without_usage
        request = self._request(backend, "POST", path, body(ask_usage=asks), headers)
        try:
            response = await self._pool.ask(request, before_write)
        except OSError as error:
            raise _no_answer(error) from error
        if response.status == 200:
            return response
        told = await read_error(response)
        if asks and mentions_stream_options(response.status, told):
            response = await self._ask(backend, "POST", path, body(ask_usage=False), headers, before_write)
            if response.status == 200:  # else it was the client's own `stream_options` that the engine did not like
                self._without_usage.add(backend.id)
                return response
            told = await read_error(response)
        return _ErrorAnswer(response.status, told, response.header(b"retry-after"))

    def pass_on(
        self, backend: Backend, method: str, path: str, body: bytes | AsyncIterator[bytes], *, request_id: str
    ) -> AbstractAsyncContextManager[EngineAnswer]:
        """A request of any method, and its answer whatever its status. A body that comes in pieces is taken as fast as the
        engine takes it. Raises TroubledEngine."""

        async def ask() -> EngineAnswer:
            with self._take(backend) as using:
                headers = _headers(backend, request_id, None, using.secret)
                sent = body if isinstance(body, bytes) else BodyPieces(lambda: body, None, can_repeat=False)
                response = await self._ask(backend, method, path, sent, headers, _nothing)
                if response.status < 400:
                    using.accepted()
                return EngineAnswer(response)

        return _Asking(ask)

    async def ask(
        self,
        backend: Backend,
        path: str,
        body: bytes | None,
        *,
        request_id: str,
        within_s: float,
        said: Mapping[str, str] = NOTHING,
    ) -> dict[str, Any]:
        """A small JSON object that costs the engine nothing: `body` is posted; without one it is a GET. `said`: the client's
        headers that go with it. Raises TroubledEngine, or the engine's refusal as a ForebayError."""
        try:
            async with asyncio.timeout(within_s):
                raw = await self._ask_small(backend, path, body, request_id, said)
        except TimeoutError as error:
            raise _no_answer(error) from error
        try:
            told = orjson.loads(raw)
        except orjson.JSONDecodeError:
            told = None
        if not isinstance(told, dict):
            raise TroubledEngine(EngineTrouble(Blame.FAILED, f"Its answer to {path} is not a JSON object."))
        return told

    async def _ask_small(
        self, backend: Backend, path: str, body: bytes | None, request_id: str, said: Mapping[str, str]
    ) -> bytes:
        with self._take(backend) as using:
            headers = _headers(backend, request_id, None, using.secret, said)
            method = "GET" if body is None else "POST"
            response = await self._ask(backend, method, path, body or b"", headers, _nothing)
            try:
                if response.status != 200:
                    retry_after = response.header(b"retry-after")
                    judged = using.judge(response.status, await read_error(response), retry_after)
                    using.hear(judged)
                    raise _as_error(judged)
                using.accepted()
                return await EngineAnswer(response).read_all(_MOST_ASKED)
            finally:
                response.close()

    def _take(self, backend: Backend, model: str = "", tried: Tried | None = None) -> Using:
        """To be entered. Raises TroubledEngine, or EngineRefused."""
        taken = self._keyring.take(backend, model, tried or Tried())
        if isinstance(taken, Using):
            return taken
        raise _as_error(taken)

    async def _ask(
        self,
        backend: Backend,
        method: str,
        path: str,
        body: bytes | Upload | BodyPieces,
        headers: dict[str, str],
        before_write: Callable[[Connection], None],
    ) -> Response:
        """Its head has come. Raises TroubledEngine."""
        request = self._request(backend, method, path, body, headers)
        try:
            return await self._pool.ask(request, before_write)
        except OSError as error:
            raise _no_answer(error) from error

    def _request(
        self,
        backend: Backend,
        method: str,
        path: str,
        body: bytes | Upload | BodyPieces,
        headers: dict[str, str],
    ) -> Request:
        """Raises TroubledEngine."""
        if isinstance(body, bytes):
            lines = _JSON + header_lines(headers)
        elif isinstance(body, Upload):
            form = Form(body)
            body, lines = form.body(), header_lines({**headers, "content-type": form.content_type})
        else:
            lines = _BYTES + header_lines(headers)
        try:
            return Request(self._targets.get(method, backend.url, path), lines, body)
        except ValueError as error:
            raise TroubledEngine(EngineTrouble(Blame.UNREACHABLE, f"No answer came: {error}")) from error


class _Asking:
    """The answer, which ends when it is left."""

    __slots__ = ("_answer", "_ask")

    def __init__(self, ask: Callable[[], Awaitable[EngineAnswer]]) -> None:
        self._ask = ask
        self._answer: EngineAnswer | None = None

    async def __aenter__(self) -> EngineAnswer:
        self._answer = await self._ask()
        return self._answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._answer is not None
        self._answer.close()


def open_upstream(keyring: Keyring, connect_s: float, *, allow_link_local: bool = False) -> Upstream:
    """To be entered, in a loop."""
    # The registry refuses such addresses when they are told; what a name leads to may be another one by now.
    return Upstream(open_pool(connect_s, allow_link_local=allow_link_local), keyring)


def _headers(
    backend: Backend,
    request_id: str,
    traceparent: str | None,
    secret: str | None,
    said: Mapping[str, str] = NOTHING,
    tracestate: str = "",
) -> dict[str, str]:
    headers = {"x-request-id": request_id, **headers_for(backend.kind, secret, said)}
    if traceparent is not None:
        headers["traceparent"] = traceparent
        if tracestate:
            headers["tracestate"] = tracestate
    return headers


def _nothing(connection: Connection) -> None:
    pass


def _no_answer(error: OSError) -> TroubledEngine:
    return TroubledEngine(EngineTrouble(Blame.UNREACHABLE, f"No answer came: {why_broken(error)}"))


def _as_error(judged: EngineTrouble | ForebayError) -> Exception:
    return TroubledEngine(judged) if isinstance(judged, EngineTrouble) else judged
