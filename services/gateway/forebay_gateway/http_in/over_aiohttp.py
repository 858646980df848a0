"""A request that aiohttp reads, and its answer by aiohttp."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from aiohttp import web

from forebay_gateway.body import read_body, reading_upload
from forebay_gateway.canonical.upload import Upload
from forebay_gateway.held_body import HeldBody


class RequestOverAiohttp:
    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request

    @property
    def content_length(self) -> int | None:
        return self._request.content_length

    def read_now(self, held: HeldBody, *, most_bytes: int) -> None:
        return None

    async def read(self, held: HeldBody, *, most_bytes: int, idle_s: float) -> bytes:
        return await read_body(self._request, held, most_bytes=most_bytes, idle_s=idle_s)

    def reading_upload(
        self, *, most_bytes: int, idle_s: float, directory: Path | None
    ) -> AbstractAsyncContextManager[Upload]:
        return reading_upload(self._request, most_bytes=most_bytes, idle_s=idle_s, directory=directory)


class AnswerOverAiohttp:
    takes_now = False

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None

    @property
    def response(self) -> web.StreamResponse:
        """What was answered with, for aiohttp's server."""
        assert self._response is not None
        return self._response

    async def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self._response = web.Response(status=status, body=body, headers=headers)
        await self._response.prepare(self._request)
        await self._response.write_eof()

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self._response = response = web.StreamResponse(status=status, headers=headers)
        if self._request.version >= (1, 1):
            response.enable_chunked_encoding()
        else:
            response.force_close()  # such a client knows the end by the closing alone, even if it asked to keep alive
        await response.prepare(self._request)

    async def write(self, piece: bytes) -> None:
        await self.response.write(piece)

    def write_now(self, piece: bytes) -> bool:
        raise NotImplementedError("aiohttp's answers are written by waiting for them")

    @property
    def wire(self) -> None:
        return None

    def drained(self) -> Awaitable[None] | None:
        return None

    async def end(self, piece: bytes = b"") -> None:
        await self.response.write_eof(piece)

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()
