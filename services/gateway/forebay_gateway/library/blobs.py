"""Blobs: the files that Ollama makes models of, gigabytes each. They pass from client to engine piece by piece, and no piece
is looked into; whether they are what their digest says is the engine's to find out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from aiohttp import web

from forebay.errors import BadInput, ForebayError
from forebay_gateway.body import say_go_on
from forebay_gateway.library.errand import Errand
from forebay_gateway.refused import BadField, BodyStalled

BLOBS_PATH = "/api/blobs"

_DIGEST = re.compile(r"sha256:[0-9a-fA-F]{64}", re.ASCII)


def digest_in(path: str) -> str:
    """Raises BadField."""
    digest = path.removeprefix(f"{BLOBS_PATH}/").rstrip("/")
    if not _DIGEST.fullmatch(digest):
        raise BadField(
            f"invalid digest format: {digest[:80]!r} is not `sha256:` and 64 hexadecimal digits.",
            param="digest",
            code="invalid_value",
        )
    return digest


class BlobBody:
    """A request's body on its way to the engine that an errand asks."""

    def __init__(self, request: web.BaseRequest, errand: Errand, idle_s: float) -> None:
        self._request, self._errand, self._idle_s = request, errand, idle_s
        self.error: ForebayError | None = None
        """Why it ended before its end. The engine gets no end then, and takes it for nothing whole."""

    async def pieces(self) -> AsyncIterator[bytes]:
        await say_go_on(self._request)
        while True:
            self._errand.expect_others()
            try:
                async with asyncio.timeout(self._idle_s):
                    piece = await self._request.content.readany()
            except TimeoutError as error:
                self.error = BodyStalled()
                raise self.error from error
            except (web.RequestPayloadError, ConnectionError) as error:
                self.error = BadInput("The blob was cut off, or is not encoded as its headers say.")
                raise self.error from error
            self._errand.expect_engine()
            if not piece:
                return
            yield piece
