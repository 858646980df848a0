"""What an engine answers: a status, and a body that is read as fast as it is wanted, and that ends at once when nobody wants
it. Asking is `upstream`'s part."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import lru_cache

from forebay.errors import ForebayError
from forebay_gateway.broken_connection import why_broken
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.errors import MOST_BYTES, Blame, EngineTrouble
from forebay_gateway.http_out.response import Response
from forebay_gateway.keyring import Using

_STREAMS = ("text/event-stream", "application/x-ndjson")
_UNTOLD = "application/octet-stream"
_SANE_TYPE = re.compile(r"[\x20-\x7e]+")


class TroubledEngine(Exception):
    """This attempt failed and another backend may do better."""

    def __init__(self, trouble: EngineTrouble) -> None:
        super().__init__(trouble.message)
        self.trouble = trouble


class EngineAnswer:
    """A status, 200 but for `pass_on`, and a body, read as fast as it is asked for and no faster."""

    __slots__ = ("_response", "_using", "close")

    def __init__(self, response: Response, using: Using | None = None) -> None:
        self._response = response
        self._using = using
        self.close = response.close
        """At once, whatever is under way. The connection may be used again if the answer had come whole."""

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
        return _is_stream(self._response.headers.get(b"content-type"))

    @property
    def content_type(self) -> str:
        """With its parameters."""
        told = self._response.header(b"content-type") or _UNTOLD
        return told if _SANE_TYPE.fullmatch(told) else _UNTOLD

    async def read(self) -> bytes:
        """What has arrived; empty at the end. Raises TroubledEngine when the connection broke."""
        try:
            return await self._response.read()
        except OSError as error:
            raise _broken(error) from error

    async def read_all(self, most: int) -> bytes:
        """The whole body. Raises TroubledEngine, also when it is longer than `most`."""
        try:
            whole = await self._response.read_all(most)
        except OSError as error:
            raise _broken(error) from error
        if whole is None:
            raise TroubledEngine(EngineTrouble(Blame.FAILED, f"Its answer is longer than {most} bytes."))
        return whole

    async def pour(self, take: Callable[[bytes], bool]) -> None:
        """Gives `take` each piece in the loop turn in which it arrives, and nothing at the end, until it returns True. What
        it raises is raised here, and TroubledEngine when the connection broke."""
        try:
            await self._response.pour(take)
        except OSError as error:
            if error is not self._response.error:  # but one of `take`
                raise
            raise _broken(error) from error

    def pass_framed(self, take: Callable[[bytes], bool] | None) -> None:
        """While it is poured: what its connection brings is offered to `take` first, as it came, where that may be a whole
        chunk of the chunked coding; what it returns False for comes as ever."""
        self._response.take_framed = take

    def stop_pouring(self) -> None:
        self._response.stop_pouring()

    def pause(self) -> None:
        """The engine is slowed until `resume`."""
        self._response.pause()

    def resume(self) -> None:
        self._response.resume()

    async def wait_end(self, within_s: float) -> None:
        """Until the engine has ended its body, which frees its slot and lets the connection be used again."""
        if self._response.is_complete:
            return
        try:
            async with asyncio.timeout(within_s):
                await self._response.pour(lambda piece: not piece)
        except OSError:
            self.close()


@lru_cache(maxsize=64)
def _is_stream(content_type: bytes | None) -> bool:
    told = content_type.decode("latin-1") if content_type else ""
    return bool(_SANE_TYPE.fullmatch(told)) and told.partition(";")[0].strip().lower() in _STREAMS


async def read_error(response: Response) -> bytes:
    """The first part of an error's body; the connection is not used again if there is more."""
    pieces: list[bytes] = []
    size = 0
    try:
        while size < MOST_BYTES and (piece := await response.read()):
            pieces.append(piece)
            size += len(piece)
    except OSError:
        pieces.append(b" (cut off)")
    finally:
        response.close()
    return b"".join(pieces)[:MOST_BYTES]


def _broken(error: OSError) -> TroubledEngine:
    return TroubledEngine(EngineTrouble(Blame.UNREACHABLE, f"Its connection broke: {why_broken(error)}"))
