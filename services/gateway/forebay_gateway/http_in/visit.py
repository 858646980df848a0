"""One request on a connection of our own, and the answer to it: an Incoming and an Outgoing. After it has ended nothing of
it reaches the connection, which is the next one's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Protocol

from forebay_gateway.body import too_large
from forebay_gateway.canonical.upload import Upload
from forebay_gateway.cors import Origins
from forebay_gateway.held_body import HeldBody
from forebay_gateway.http_in.heads import answer_head
from forebay_gateway.refused import BodyStalled

_MOST_UNREAD = 256 << 10
_SMALL = 64 << 10
"""Bytes up to which what is written together is put together first."""


class Line(Protocol):
    """The connection, as long as it is there."""

    is_full: bool
    is_last: bool
    """No request is taken after this one."""

    def write(self, part: bytes, *more: bytes) -> None:
        """Raises ConnectionError when the client has gone."""
        ...

    def drained(self) -> Awaitable[None] | None: ...
    def hold_reading(self, is_held: bool) -> None: ...
    def abort(self) -> None: ...


class Visit:
    __slots__ = (
        "_alarm",
        "_head",
        "_heard_at",
        "_idle_s",
        "_is_held",
        "_line",
        "_origin",
        "_origins",
        "_pieces",
        "_unread",
        "_wakes",
        "closes",
        "content_length",
        "has_begun",
        "is_whole",
        "keeps_alive",
        "missing",
    )

    takes_now = True

    def __init__(
        self,
        line: Line,
        content_length: int,
        origins: Origins,
        origin: str | None,
        *,
        body: bytes | None = None,
        keeps_alive: bool,
    ) -> None:
        """`origin`: of the page whose browser sent it. `body`: None: it comes with `feed`."""
        self._line: Line | None = line
        self._origins, self._origin = origins, origin
        self.content_length = content_length
        self.missing = content_length if body is None else 0
        """Bytes of the body that have not come yet."""
        self.keeps_alive = keeps_alive
        self.closes = False
        """The client was told that the connection ends."""
        self.has_begun = False
        self.is_whole = False
        """The answer was written to its end."""
        self._head = b""
        """Of the answer, as long as it waits for what goes out together with it."""
        self._pieces: list[bytes] = [body] if body else []
        self._unread = content_length - self.missing
        self._wakes: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._heard_at = self._idle_s = 0.0
        self._is_held = False

    # --- in ---------------------------------------------------------------------------------------------------------

    def feed(self, piece: bytes) -> None:
        """Of the body, of which `missing` bytes were to come."""
        self.missing -= len(piece)
        self._pieces.append(piece)
        self._unread += len(piece)
        if self._wakes is not None:
            self._heard_at = asyncio.get_running_loop().time()
            if not self._wakes.done():
                self._wakes.set_result(None)
        if self._unread > _MOST_UNREAD and self.missing and not self._is_held and self._line is not None:
            self._is_held = True
            self._line.hold_reading(True)

    def read_now(self, held: HeldBody, *, most_bytes: int) -> bytes | None:
        if self.missing or self.content_length > most_bytes or len(self._pieces) != 1:
            return None
        (body,) = self._pieces
        if self._is_held or not held.take_whole(body):
            return None
        self._pieces, self._unread = [], 0
        return body

    async def read(self, held: HeldBody, *, most_bytes: int, idle_s: float) -> bytes:
        if self.content_length > most_bytes:
            raise too_large(most_bytes)
        try:
            while True:
                pieces, self._pieces = self._pieces, []
                for piece in pieces:
                    await held.add(piece)
                    self._unread -= len(piece)
                if self._is_held and self._unread <= _MOST_UNREAD // 2 and self._line is not None:
                    self._is_held = False
                    self._line.hold_reading(False)
                if self._pieces:
                    continue
                if not self.missing:
                    return await held.whole()
                await self._more(idle_s)
        finally:
            if self._alarm is not None:
                self._alarm.cancel()

    def reading_upload(
        self, *, most_bytes: int, idle_s: float, directory: Path | None
    ) -> AbstractAsyncContextManager[Upload]:
        raise NotImplementedError("forms are read by aiohttp")

    async def _more(self, idle_s: float) -> None:
        """Waits for another piece. Raises BodyStalled."""
        loop = asyncio.get_running_loop()
        self._wakes, self._heard_at, self._idle_s = loop.create_future(), loop.time(), idle_s
        if self._alarm is None:
            self._alarm = loop.call_later(idle_s, self._look)
        await self._wakes

    def _look(self) -> None:
        """One timer for the whole body: it is set again when it was too early, and not with each piece."""
        loop = asyncio.get_running_loop()
        due = self._heard_at + self._idle_s
        if loop.time() < due:
            self._alarm = loop.call_at(due, self._look)
            return
        self._alarm = None
        if self._wakes is not None and not self._wakes.done():
            self._wakes.set_exception(BodyStalled())

    # --- out --------------------------------------------------------------------------------------------------------

    async def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        line = self._line
        if line is None:
            raise _ended()
        size = len(body)
        head = self._begin(line, status, headers, size)
        self.is_whole = True
        if size <= _SMALL:
            line.write(head + body)
        else:
            line.write(head, body)
        if line.is_full:
            await self._drain()

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        if self._line is None:
            raise _ended()
        self._head = self._begin(self._line, status, headers, None)
        asyncio.get_running_loop().call_soon(self._send_head)

    async def write(self, piece: bytes) -> None:
        self.write_now(piece)
        await self._drain()

    def write_now(self, piece: bytes) -> bool:
        if not piece:
            return False
        line, size = self._line, len(piece)
        if line is None or not self.has_begun:
            line = self._under_way()
        head, self._head = self._head, b""
        if size <= _SMALL:
            line.write(b"%b%x\r\n%b\r\n" % (head, size, piece))
        else:
            line.write(b"%b%x\r\n" % (head, size), piece, b"\r\n")
        return line.is_full

    @property
    def wire(self) -> Line | None:
        return self._line if self.has_begun and not self._head else None

    def drained(self) -> Awaitable[None] | None:
        return self._line.drained() if self._line is not None else None

    async def end(self, piece: bytes = b"") -> None:
        if self.is_whole:
            return
        self.is_whole = True
        head, self._head = self._head, b""
        if piece:
            self._under_way().write(b"%b%x\r\n%b\r\n0\r\n\r\n" % (head, len(piece), piece))
        else:
            self._under_way().write(head + b"0\r\n\r\n")
        await self._drain()

    def abort(self) -> None:
        if self._line is not None:
            self._line.abort()

    def leave(self) -> None:
        """It has ended, however."""
        line, self._line = self._line, None
        self._pieces = []
        if line is not None and self._is_held:
            line.hold_reading(False)
        if self._alarm is not None:
            self._alarm.cancel()

    def _begin(self, line: Line, status: int, headers: Mapping[str, str], body_bytes: int | None) -> bytes:
        if self.has_begun:
            raise RuntimeError("an answer has only one beginning")
        self.closes = line.is_last or not self.keeps_alive
        origin, origins = self._origin, self._origins
        head = answer_head(
            status,
            headers,
            origins.without_origin if origin is None else origins.headers(origin, headers),
            now=time.time(),
            body_bytes=body_bytes,
            keeps_alive=not self.closes,
        )
        self.has_begun = True
        return head

    def _send_head(self) -> None:
        """Nothing has come in this turn that it could go out with."""
        head, self._head = self._head, b""
        if head and self._line is not None:
            with suppress(ConnectionError):  # its task hears of that too
                self._line.write(head)

    async def _drain(self) -> None:
        if self._line is not None and self._line.is_full and (drained := self._line.drained()) is not None:
            await drained

    def _under_way(self) -> Line:
        if not self.has_begun:
            raise RuntimeError("an answer goes on before it has begun")
        if self._line is None:
            raise _ended()
        return self._line


def _ended() -> ConnectionResetError:
    return ConnectionResetError("the request has ended")
