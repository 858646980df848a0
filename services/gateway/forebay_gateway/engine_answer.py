"""What an engine answers: a status, and a body that is read as fast as it is wanted, and that ends at once when nobody wants
it. Asking is `upstream`'s part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from forebay.errors import ForebayError
from forebay_gateway.broken_connection import why_broken
from forebay_gateway.engines.errors import MOST_BYTES, Blame, EngineTrouble
from forebay_gateway.fleet import EngineKind
from forebay_gateway.keyring import Using


class TroubledEngine(Exception):
    """This attempt failed and another backend may do better."""

    def __init__(self, trouble: EngineTrouble) -> None:
        super().__init__(trouble.message)
        self.trouble = trouble


class EngineAnswer:
    """A status, 200 but for `pass_on`, and a body, read as fast as it is asked for and no faster."""

    def __init__(self, response: aiohttp.ClientResponse, using: Using | None = None) -> None:
        self._response = response
        self._using = using

    @property
    def shown_to(self) -> EngineKind | None:
        """The kind of engine, if a credential was shown to it."""
        return self._using.shown_to if self._using is not None else None

    def was_none(self, judged: EngineTrouble | ForebayError) -> None:
        """An error came in its place, which may be about the credential."""
        if self._using is not None:
            self._using.hear_late(judged)

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def is_stream(self) -> bool:
        return self._response.content_type in ("text/event-stream", "application/x-ndjson")

    @property
    def content_type(self) -> str:
        """With its parameters."""
        return self._response.headers.get("content-type", "application/octet-stream")

    async def read(self) -> bytes:
        """What has arrived; empty at the end. Raises TroubledEngine when the connection broke."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise TroubledEngine(
                EngineTrouble(Blame.UNREACHABLE, f"Its connection broke: {why_broken(error)}")
            ) from error

    async def read_all(self, most: int) -> bytes:
        """The whole body. Raises TroubledEngine, also when it is longer than `most`."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            size += len(piece)
            if size > most:
                raise TroubledEngine(EngineTrouble(Blame.FAILED, f"Its answer is longer than {most} bytes."))
            pieces.append(piece)
        return b"".join(pieces)

    async def wait_end(self, within_s: float) -> None:
        """Until the engine has ended its body, which frees its slot and lets the connection be used again."""
        try:
            async with asyncio.timeout(within_s):
                while await self._response.content.readany():
                    continue
        except (aiohttp.ClientError, OSError, TimeoutError):
            self.close()

    def close(self) -> None:
        """At once, whatever is under way."""
        self._response.close()


class ClosedAtOnce(aiohttp.ClientResponse):
    """Its connection ends at once when it is closed, also while its headers are waited for."""

    def close(self) -> None:
        connection = self.connection
        if connection is not None and connection.transport is not None:
            # A mere close would wait for unsent bytes, and over TLS for the other side's farewell.
            connection.transport.abort()
        super().close()


@asynccontextmanager
async def reading(response: aiohttp.ClientResponse, using: Using | None = None) -> AsyncIterator[EngineAnswer]:
    """The connection may be used again if the answer was read to its end."""
    answer = EngineAnswer(response, using)
    try:
        yield answer
    finally:
        if response.content.at_eof():
            response.release()
        else:
            answer.close()


async def read_error(response: aiohttp.ClientResponse) -> bytes:
    """The first part of an error's body; the connection is not used again if there is more."""
    pieces: list[bytes] = []
    size = 0
    try:
        while size < MOST_BYTES and (piece := await response.content.readany()):
            pieces.append(piece)
            size += len(piece)
    except (aiohttp.ClientError, OSError):
        pieces.append(b" (cut off)")
    finally:
        response.close()
    return b"".join(pieces)[:MOST_BYTES]
