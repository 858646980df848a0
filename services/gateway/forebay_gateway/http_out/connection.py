"""One connection to an engine: a request goes out, its answer is taken apart, and then the next may be asked."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from forebay_gateway.canonical.repeated_chunk import is_framed
from forebay_gateway.http_out.failures import ClosedEarly, NotHttp
from forebay_gateway.http_out.request import Address, Request
from forebay_gateway.http_out.response import Response

_MOST_HEAD = 64 << 10
"""Bytes, with those of interim answers; what one read brings beyond is let pass."""
_MOST_INFLATED = 32 << 20
"""Bytes that one read may become, of an engine that compresses although it was asked not to."""
_BODILESS = (204, 304)
_SMALL = 64 << 10
"""Bytes of a body that are copied behind the head rather than written beside it."""
_LEAVE_S = 0.5
"""So long an engine has to close what we left; twice a way of 200 ms, and some time to notice."""


class Keeper(Protocol):
    """Hears of a connection's life."""

    def made(self, connection: Connection) -> None: ...
    def freed(self, connection: Connection) -> None:
        """It may be used again."""
        ...

    def lost(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    __deletable__ = ("_parser",)  # for the compiler
    _transport: asyncio.Transport | None = None
    _response: Response | None = None
    """None: nothing is asked."""
    idle_since = 0.0
    """On the loop's clock; of one that is free."""
    _is_paused = False
    _is_full = False
    _room: asyncio.Future[None] | None = None
    """Of whoever waits until the engine takes more."""
    is_written = True
    """The request went out whole."""
    is_left = False
    """Nobody wants what is under way, and the engine may not know it yet."""
    _leaving: asyncio.TimerHandle | None = None

    # Of the answer that is being read:
    _is_head = False
    _is_interim = False
    _has_head = False
    _is_over = False
    _keeps_alive = False
    _ends_by_closing = False
    _has_surplus = False
    _head_bytes = 0
    _fault = ""
    _is_between = False
    """No part of a chunk has come without its end; looked at only where chunks may pass as they are."""
    _inflating: zlib._Decompress | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, keeper: Keeper, address: Address) -> None:
        self._loop, self._keeper, self.address = loop, keeper, address
        self._parser = self._new_parser()
        self._headers: dict[bytes, bytes] = {}
        self._fresh: list[bytes] = []
        """Of the body, what this turn brought."""
        self._when_over: list[Callable[[], None]] = []

    def _new_parser(self) -> httptools.HttpResponseParser:
        parser = httptools.HttpResponseParser(self)
        # What common clients put up with in answers, ours did too; nothing of them is passed on as it came.
        parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        return parser

    # --- asking -----------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: Request) -> Response:
        """Writes it; of a body that goes in pieces only the head. Nothing else is under way."""
        transport = self._transport
        assert self._response is None
        response = Response(self, self._loop)
        if transport is None:  # the engine closed it as soon as it was made
            response.broke(ClosedEarly())
            return response
        self._response = response
        self._is_head = request.target.is_head
        head, body = request.head, request.body
        if not isinstance(body, bytes) or request.is_in_pieces:
            self.is_written = False
            transport.write(head)
        elif len(body) <= _SMALL:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        return response

    async def write(self, piece: bytes | memoryview) -> None:
        """Of the body, as soon as the engine takes it. Raises ClosedEarly."""
        if self._is_full:
            room = self._room = self._loop.create_future()
            await room
        if self._transport is None:
            raise ClosedEarly
        self._transport.write(piece)

    # --- for the answer (response.Line) -----------------------------------------------------------------------------

    def pause(self) -> None:
        if not self._is_paused and self._transport is not None and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def leave(self) -> None:
        """The engine hears at once that nobody wants its answer. It has heard when it closes too, which ends the connection;
        one that does not is waited for no longer than `_LEAVE_S`. Where no half of a connection can be closed (TLS), or
        the engine has not got all of the request, it ends now."""
        transport = self._transport
        if transport is None or not self._may_half_close(transport):
            self.abort()
            return
        self._response, self.is_left = None, True
        self.resume()  # else its end would not be heard
        self._leaving = self._loop.call_later(_LEAVE_S, self.abort)
        try:
            transport.write_eof()
        except OSError:  # the engine has reset it meanwhile
            self.abort()

    def _may_half_close(self, transport: asyncio.Transport) -> bool:
        is_whole = self.is_written and not transport.get_write_buffer_size()
        return is_whole and not transport.is_closing() and transport.can_write_eof()

    def when_over(self, then: Callable[[], None]) -> None:
        """Of one that is left: called when the engine has heard of it, or has had the time to."""
        self._when_over.append(then)

    def abort(self) -> None:
        """A mere close would wait for unsent bytes, and over TLS for the other side's farewell."""
        self._response = None
        if self._transport is not None:
            self._transport.abort()

    def fail(self, error: OSError) -> None:
        response = self._response
        self.abort()
        if response is not None:
            response.broke(error)

    # --- called by the loop -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._keeper.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        del self._parser  # which holds us: the collector is not to be waited for
        self._keeper.lost(self)
        self.resume_writing()
        if self._leaving is not None:
            self._leaving.cancel()
            self.is_left = False
            for then in self._when_over:
                then()
        response, self._response = self._response, None
        if response is None:
            return
        if exc is None and self._ends_by_closing:
            response.completed()
        else:
            response.broke(exc if isinstance(exc, OSError) else ClosedEarly())

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            if not self.is_left:  # nobody asked
                self.abort()
            return
        take_framed = response.take_framed
        if take_framed is not None and self._is_between:
            try:
                if take_framed(data):
                    return
            except Exception as error:
                response.failed(error)
                return
        response.has_spoken = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._is_over:  # else it went on after the end
                self._fault = self._fault or str(error) or "it is not HTTP"
            self._has_surplus = True
        if not self._has_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD:
                self._fault = self._fault or "its head is too long"
        fresh = self._fresh
        if fresh:
            self._fresh = []
            piece = fresh[0] if len(fresh) == 1 else b"".join(fresh)
            if piece:
                response.arrived(piece)
            # Whatever was before it: where the parser told a piece that fills its own chunk, it is between two of them.
            self._is_between = response.take_framed is not None and is_framed(data, piece)
        else:
            self._is_between = False
        if self._fault:
            self.fail(NotHttp(self._fault))
        elif self._is_over and self._response is response:
            self._end(response)

    # --- called by the parser, within data_received -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_over:
            self._has_surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # else it comes after the body
            self._headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        if self._has_head:
            return
        status = self._parser.get_status_code()
        headers = self._headers
        if status < 200:
            self._is_interim, self._headers = True, {}
            return
        self._has_head = True
        encoding = headers.get(b"content-encoding")
        if encoding is not None and not self._is_head:
            self._begin_inflating(encoding)
        if self._is_head:
            self._is_over, self._keeps_alive = True, self._parser.should_keep_alive()
        elif status not in _BODILESS and b"content-length" not in headers:
            self._ends_by_closing = not headers.get(b"transfer-encoding", b"").lower().rstrip().endswith(b"chunked")
        if self._response is not None:
            self._response.begun(status, headers)

    def on_body(self, piece: bytes) -> None:
        if self._is_over:
            self._has_surplus = True
        elif self._inflating is None:
            self._fresh.append(piece)
        elif not self._fault:
            self._inflate(piece)

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = False
        elif not self._is_over:
            self._is_over, self._keeps_alive = True, self._parser.should_keep_alive()

    # ----------------------------------------------------------------------------------------------------------------

    def _end(self, response: Response) -> None:
        """The answer has come whole."""
        self._response = None
        transport = self._transport
        may_go_on = (
            self._keeps_alive
            and self.is_written
            and not self._has_surplus
            and transport is not None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
        )
        if may_go_on:
            if self._is_head:
                self._parser = self._new_parser()  # it waits for a body that does not come
            self._headers, self._head_bytes = {}, 0
            self._has_head = self._is_over = self._ends_by_closing = False
            self._inflating = None
            if self._is_paused:
                self.resume()
            self._keeper.freed(self)
        else:
            self.abort()
        response.completed()

    def _begin_inflating(self, encoding: bytes) -> None:
        match encoding.strip().lower():
            case b"gzip" | b"x-gzip" | b"deflate":
                self._inflating = zlib.decompressobj(zlib.MAX_WBITS | 32)
            case b"identity" | b"":
                pass
            case _:
                self._fault = "it is encoded as nobody asked for"

    def _inflate(self, piece: bytes) -> None:
        assert self._inflating is not None
        try:
            self._fresh.append(self._inflating.decompress(piece, _MOST_INFLATED))
        except zlib.error:
            self._fault = "it is not encoded as its head says"
        else:
            if self._inflating.unconsumed_tail:
                self._fault = "more of it is compressed than can be taken at once"
