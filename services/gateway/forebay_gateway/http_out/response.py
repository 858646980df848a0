"""What comes back for one request: a head, and a body that is read as fast as it is wanted. Whoever reads it is one task.

It is fed by its connection, which it outlives: once the body has come whole, the connection is another's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from forebay_gateway.http_out.failures import ClosedEarly

_MOST_UNREAD = 64 << 10
"""Bytes that wait here before the engine is paused."""


class Line(Protocol):
    """The connection that an answer comes over."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def leave(self) -> None:
        """Nobody wants the rest."""
        ...


class Response:
    status = 0
    """0: its head has not come."""
    has_spoken = False
    """Something came, be it only a byte."""
    is_complete = False
    """All of the body has come, read or not."""
    error: OSError | None = None
    """Why no more comes."""

    headers: Mapping[bytes, bytes] = MappingProxyType({})
    _waiter: asyncio.Future[None] | None = None
    _take: Callable[[bytes], bool] | None = None
    take_framed: Callable[[bytes], bool] | None = None
    """For `pour`: gets what comes over the connection before it is taken apart, where that may be a chunk of the chunked
    coding. True: it was one, and is dealt with."""
    _size = 0
    """Bytes that have come and are unread."""
    _wake_above = 0
    """Bytes that must be there before whoever waits for the body is woken."""
    _gathers = False
    """All of the body is wanted at once, so the engine is not paused."""
    _held_back = False
    """The reader asked to pause the engine."""

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        self._line: Line | None = line
        """None: what will have come has come."""
        self._loop = loop
        self._pieces: list[bytes] = []

    def header(self, name: bytes) -> str | None:
        """`name`: in lower case. The first one, if it comes several times."""
        value = self.headers.get(name)
        return value.decode("latin-1") if value is not None else None

    # --- read by one task -------------------------------------------------------------------------------------------

    @property
    def is_at_end(self) -> bool:
        """All of it was read."""
        return self.is_complete and not self._pieces

    async def wait_head(self) -> None:
        """Raises OSError. The connection ends if nobody waits for it any more."""
        try:
            while not self.status:
                if self.error is not None:
                    raise self.error
                self._waiter = self._loop.create_future()
                await self._waiter
        except BaseException:
            self.close()
            raise
        finally:
            self._waiter = None

    async def read(self) -> bytes:
        """What has come; empty at the end. Raises OSError."""
        while not self._pieces:
            if self._is_over():
                return b""
            self._wake_above = 0
            await self._wait()
        return self._taken()

    async def read_all(self, most: int) -> bytes | None:
        """The rest. None: there is more than `most` bytes of it. Raises OSError."""
        self._wake_above, self._gathers = most, True
        if self._line is not None and not self._held_back:
            self._line.resume()  # much of it may have come with the head
        try:
            while self._size <= most and not self.is_complete:
                if self.error is not None:
                    raise self.error
                await self._wait()
        finally:
            self._gathers = False
        return self._taken() if self._size <= most else None

    async def pour(self, take: Callable[[bytes], bool]) -> None:
        """Gives `take` each piece in the turn in which it comes, and nothing at the end, until it returns True. What it
        raises is raised here. Raises OSError."""
        try:
            while True:
                if self._pieces and take(self._taken()):
                    return
                if self._is_over():
                    take(b"")
                    return
                self._take = take
                await self._wait()
                if self._take is None:  # it has had enough
                    return
        finally:
            self._take = self.take_framed = None

    def stop_pouring(self) -> None:
        """As if `take` had returned True."""
        self._take = self.take_framed = None
        self.wake()

    def pause(self) -> None:
        """The engine is slowed until `resume`."""
        self._held_back = True
        if self._line is not None:
            self._line.pause()

    def resume(self) -> None:
        self._held_back = False
        if self._line is not None and self._size <= _MOST_UNREAD:
            self._line.resume()

    def close(self) -> None:
        """At once, whatever is under way."""
        line, self._line = self._line, None
        if line is not None:
            line.leave()
            self.error = self.error or ClosedEarly()
            self.wake()

    def _is_over(self) -> bool:
        """Nothing more comes. Raises OSError when that is because it broke."""
        if self.error is not None and not self._pieces:
            raise self.error
        return self.is_complete

    def _taken(self) -> bytes:
        pieces = self._pieces
        self._pieces, self._size = [], 0
        if self._line is not None and not self._held_back:
            self._line.resume()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _wait(self) -> None:
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    # --- fed by its connection --------------------------------------------------------------------------------------

    def begun(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        self.status, self.headers = status, headers
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def failed(self, error: Exception) -> None:
        """`take_framed` did."""
        self._take = self.take_framed = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def arrived(self, piece: bytes) -> None:
        """Once in each turn at most."""
        waiter, take = self._waiter, self._take
        # One that is done was woken: its task is on its way to something else.
        if take is not None and waiter is not None and not waiter.done():
            try:
                is_enough = take(piece)
            except Exception as error:
                self._take = self.take_framed = None
                waiter.set_exception(error)
            else:
                if is_enough or not piece:
                    self._take = self.take_framed = None
                    waiter.set_result(None)
            return
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._wake_above and waiter is not None and not waiter.done():
            waiter.set_result(None)
        if self._size > _MOST_UNREAD and not self._gathers and self._line is not None:
            self._line.pause()

    def completed(self) -> None:
        self._line, self.is_complete = None, True
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self._take is not None:
            self.arrived(b"")
        else:
            waiter.set_result(None)

    def broke(self, error: OSError) -> None:
        self._line, self.error = None, error
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
