"""The way to the engines: one pool of connections for the process, and answers that end at once when nobody wants them.

There is no limit on the time to headers or on the whole: a queue in an engine and a long answer are both ordinary. Whoever
waits here is ended from outside: by the client's going, by the registry's word, or by the request's deadline."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp
import orjson

from forebay.engine_sockets import socket_factory
from forebay.errors import ForebayError
from forebay_gateway.broken_connection import why_broken
from forebay_gateway.canonical.upload import Upload
from forebay_gateway.engine_answer import ClosedAtOnce, EngineAnswer, TroubledEngine, read_error, reading
from forebay_gateway.engines.credentials import NOTHING, headers_for
from forebay_gateway.engines.errors import (
    Blame,
    EngineTrouble,
    mentions_stream_options,
)
from forebay_gateway.fleet import Backend
from forebay_gateway.keyring import Keyring, Tried, Using

_IDLE_S = 3.0
"""Unused connections are kept so long. llama.cpp's and vLLM's servers close theirs after 5 s."""
_READ_BUFFER = 1 << 16
_MOST_STALE = 8
_MOST_ASKED = 16 << 20
"""Bytes of a small answer: a list of many models, or the tokens of a long prompt."""
_LARGE_BODY = 1 << 20
"""Bytes from which on a request is written piece by piece, as fast as the engine takes it."""


@dataclass(slots=True)
class _Start:
    """What the connection pool tells about one request."""

    before_write: Callable[[], None]
    is_reused: bool = False


@dataclass(frozen=True, slots=True)
class _ErrorAnswer:
    status: int
    told: bytes
    retry_after: str | None


class Upstream:
    """Use `open_upstream`."""

    def __init__(self, session: aiohttp.ClientSession, keyring: Keyring) -> None:
        self._session = session
        self._keyring = keyring
        self._without_usage: set[str] = set()
        """Backends that refuse `stream_options`."""

    def tells_usage(self, backend: Backend) -> bool:
        """Whether this backend may be asked for usage in a stream."""
        return backend.id not in self._without_usage

    @asynccontextmanager
    async def send(
        self,
        backend: Backend,
        path: str,
        body: Callable[[bool], bytes | Upload],
        *,
        model: str = "",
        request_id: str,
        traceparent: str | None,
        before_write: Callable[[], None],
        said: Mapping[str, str] = NOTHING,
    ) -> AsyncIterator[EngineAnswer]:
        """Posts and waits for status 200; `body(ask_usage)` gives the request, `said` the client's headers that go with it.
        What a credential is refused for is asked again with another one of the backend. `before_write` is called in each
        loop turn in which the request is written. Raises TroubledEngine, or the ForebayError that the client gets."""
        tried = Tried()
        while True:
            with self._take(backend, model, tried) as using:
                headers = self._headers(backend, request_id, traceparent, using, said)
                answered = await self._post_asking_usage(backend, path, body, headers, before_write)
                if isinstance(answered, aiohttp.ClientResponse):
                    using.accepted()
                    break
                judged = using.judge(answered.status, answered.told, answered.retry_after)
                if not using.hear(judged) or not isinstance(judged, EngineTrouble):
                    raise _as_error(judged)
            tried.said = judged
        async with reading(answered, using) as answer:
            yield answer

    async def _post_asking_usage(
        self,
        backend: Backend,
        path: str,
        body: Callable[[bool], bytes | Upload],
        headers: dict[str, str],
        before_write: Callable[[], None],
    ) -> aiohttp.ClientResponse | _ErrorAnswer:
        asks = self.tells_usage(backend)
        response = await self._post(backend, path, body(asks), headers, before_write)
        if response.status == 200:
            return response
        told = await read_error(response)
        if asks and mentions_stream_options(response.status, told):
            response = await self._post(backend, path, body(False), headers, before_write)
            if response.status == 200:  # else it was the client's own `stream_options` that the engine did not like
                self._without_usage.add(backend.id)
                return response
            told = await read_error(response)
        return _ErrorAnswer(response.status, told, response.headers.get("retry-after"))

    @asynccontextmanager
    async def pass_on(
        self, backend: Backend, method: str, path: str, body: bytes | AsyncIterator[bytes], *, request_id: str
    ) -> AsyncIterator[EngineAnswer]:
        """A request of any method, and its answer whatever its status. A body that comes in pieces is taken as fast as the
        engine takes it. Raises TroubledEngine."""
        with self._take(backend) as using:
            headers = self._headers(backend, request_id, None, using)
            if isinstance(body, bytes) and method == "POST":
                response = await self._post(backend, path, body, headers, lambda: None)
            else:
                headers["content-type"] = "application/json" if isinstance(body, bytes) else "application/octet-stream"
                try:
                    response = await self._session.request(
                        method,
                        f"{backend.url}{path}",
                        data=body,
                        headers=headers,
                        allow_redirects=False,
                        trace_request_ctx=_Start(lambda: None),
                    )
                except (aiohttp.ClientError, OSError) as error:
                    raise TroubledEngine(
                        EngineTrouble(Blame.UNREACHABLE, f"No answer came: {why_broken(error)}")
                    ) from error
            if response.status < 400:
                using.accepted()
        async with reading(response) as answer:
            yield answer

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
        with self._take(backend) as using:
            headers = self._headers(backend, request_id, None, using, said)
            context = _Start(lambda: None)
            try:
                async with (
                    asyncio.timeout(within_s),
                    self._session.request(
                        "GET" if body is None else "POST",
                        f"{backend.url}{path}",
                        data=body,
                        headers=headers,
                        allow_redirects=False,
                        trace_request_ctx=context,
                    ) as response,
                ):
                    if response.status != 200:
                        retry_after = response.headers.get("retry-after")
                        judged = using.judge(response.status, await read_error(response), retry_after)
                        using.hear(judged)
                        raise _as_error(judged)
                    using.accepted()
                    raw = await EngineAnswer(response).read_all(_MOST_ASKED)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise TroubledEngine(
                    EngineTrouble(Blame.UNREACHABLE, f"No answer came: {why_broken(error)}")
                ) from error
        try:
            told = orjson.loads(raw)
        except orjson.JSONDecodeError:
            told = None
        if not isinstance(told, dict):
            raise TroubledEngine(EngineTrouble(Blame.FAILED, f"Its answer to {path} is not a JSON object."))
        return told

    def _take(self, backend: Backend, model: str = "", tried: Tried | None = None) -> Using:
        """To be entered. Raises TroubledEngine, or EngineRefused."""
        taken = self._keyring.take(backend, model, tried or Tried())
        if isinstance(taken, Using):
            return taken
        raise _as_error(taken)

    def _headers(
        self,
        backend: Backend,
        request_id: str,
        traceparent: str | None,
        using: Using,
        said: Mapping[str, str] = NOTHING,
    ) -> dict[str, str]:
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",  # a compressed stream would be held back until a block is full
            "x-request-id": request_id,
        }
        if traceparent is not None:
            headers["traceparent"] = traceparent
        return headers | headers_for(backend.kind, using.secret, said)

    async def _post(
        self,
        backend: Backend,
        path: str,
        body: bytes | Upload,
        headers: dict[str, str],
        before_write: Callable[[], None],
    ) -> aiohttp.ClientResponse:
        start = _Start(before_write)
        try:
            for _ in range(_MOST_STALE):
                start.is_reused = False
                try:
                    return await self._post_once(backend, path, body, headers, start)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    if not start.is_reused:
                        raise
                    # The engine closed an idle connection in the moment in which we took it. That says nothing about the
                    # engine: take another.
            raise aiohttp.ServerDisconnectedError
        except (aiohttp.ClientError, OSError) as error:
            raise TroubledEngine(EngineTrouble(Blame.UNREACHABLE, f"No answer came: {why_broken(error)}")) from error

    async def _post_once(
        self, backend: Backend, path: str, body: bytes | Upload, headers: dict[str, str], start: _Start
    ) -> aiohttp.ClientResponse:
        data: Any
        if isinstance(body, Upload):
            data, headers = _form_of(body), {name: headers[name] for name in headers if name != "content-type"}
        else:
            data = io.BytesIO(body) if len(body) > _LARGE_BODY else body
        return await self._session.post(
            f"{backend.url}{path}", data=data, headers=headers, allow_redirects=False, trace_request_ctx=start
        )


@asynccontextmanager
async def open_upstream(
    keyring: Keyring, connect_s: float, *, allow_link_local: bool = False
) -> AsyncIterator[Upstream]:
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_on_reuse)
    trace.on_connection_create_end.append(_on_create)
    session = aiohttp.ClientSession(
        # The registry refuses such addresses when they are told; what a name leads to may be another one by now.
        connector=aiohttp.TCPConnector(
            limit=0, keepalive_timeout=_IDLE_S, socket_factory=socket_factory(allow_link_local=allow_link_local)
        ),
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_read=None, sock_connect=connect_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=_READ_BUFFER,
        trace_configs=[trace],
        response_class=ClosedAtOnce,
        skip_auto_headers=("user-agent",),
        trust_env=False,
    )
    async with session:
        yield Upstream(session, keyring)


async def _on_reuse(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    start: _Start = context.trace_request_ctx
    start.is_reused = True
    start.before_write()


async def _on_create(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    start: _Start = context.trace_request_ctx
    start.before_write()


def _form_of(upload: Upload) -> aiohttp.FormData:
    # Names go on as they came; only quotes are escaped. What would end a header was refused when the form was read.
    form = aiohttp.FormData(default_to_multipart=True, quote_fields=False)
    for name, value in upload.texts:
        form.add_field(name, value)
    for file in upload.files:  # whoever sends them closes them
        form.add_field(file.field, file.path.open("rb"), filename=file.filename, content_type=file.content_type)
    return form


def _as_error(judged: EngineTrouble | ForebayError) -> Exception:
    return TroubledEngine(judged) if isinstance(judged, EngineTrouble) else judged
