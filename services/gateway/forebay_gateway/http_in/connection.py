"""A client's connection: hot requests are read here, one after the other, and answered in tasks of their own. At the first
request of another kind aiohttp gets the connection, with all bytes that came, for the rest of its life.

Reading never pauses while a request is answered, since only who reads hears of a client that goes."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from typing import cast

from forebay_gateway.http_in.connections import Answer, Connections
from forebay_gateway.http_in.framer import Head, NotHot, read_head
from forebay_gateway.http_in.visit import Visit

log = logging.getLogger(__name__)

_MOST_AHEAD = 256 << 10
"""Bytes of further requests that came before their turn."""
HEAD_S = 30.0
"""How long a head may take, from its first byte to its last."""
LINGER_S = 10.0
"""How long the rest of a body is read that nobody wants, so that its client hears why; and how long one that was told
everything may take to take it."""
_IDLE_S = 3630.0
"""Longer than proxies in front keep a connection that is not used; as aiohttp's."""


class HotConnection(asyncio.Protocol):
    __slots__ = (
        "_ahead",
        "_answer",
        "_drains",
        "_has_dropped",
        "_head",
        "_head_bytes",
        "_is_closing",
        "_loop",
        "_others",
        "_peer",
        "_since",
        "_skip",
        "_task",
        "_transport",
        "_visit",
        "is_full",
        "is_last",
    )

    def __init__(self, others: Connections) -> None:
        self._others = others
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        """None when the client has gone, or the connection is aiohttp's."""
        self._peer = ""
        self._ahead: bytes | bytearray = b""
        """What came and belongs to no request yet."""
        self._visit: Visit | None = None
        self._task: asyncio.Task[None] | None = None
        self._skip = 0
        """Bytes to come of a body that was answered without them."""
        self._since = self._loop.time()
        """When what is waited for began, while no request is answered."""
        self._head: Head | None = None
        """Of the request before: clients say the same again and again."""
        self._head_bytes = b""
        self._answer: Answer | None = None
        """To the same."""
        self._drains: asyncio.Future[None] | None = None
        self._is_closing = False
        self._has_dropped = False
        """More came than was taken."""
        self.is_full = False
        self.is_last = others.is_draining

    # --- what the transport tells -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = made = cast(asyncio.Transport, transport)
        peer = made.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else str(peer or "")
        wire = made.get_extra_info("socket")
        if wire is not None and wire.family in (socket.AF_INET, socket.AF_INET6):
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._others.add(self)

    def data_received(self, data: bytes) -> None:
        visit = self._visit
        if visit is None:
            self._take(bytes(self._ahead) + data if self._ahead else data)
            return
        if visit.missing:
            piece = data[: visit.missing]
            visit.feed(piece)
            data = data[len(piece) :]
        if data:
            self._keep(data)

    def eof_received(self) -> bool:
        self._gone()  # a client that says it is done is done, as with aiohttp
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._others.remove(self)
        self._gone()

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        self._wake()

    # --- one request after the other --------------------------------------------------------------------------------

    def _take(self, came: bytes) -> None:
        """While none is answered. `came`: from the beginning of one, or from the rest of a body that nobody wants."""
        if self._transport is None or self._is_closing:
            return
        if self._skip:
            skipped = min(self._skip, len(came))
            self._skip -= skipped
            came = came[skipped:]
            if self._skip:
                return
            self._since = self._loop.time()
        if self.is_last:
            self._has_dropped = self._has_dropped or came != b""
            self._leave()
            return
        if not came:
            return
        before = None
        if self._head is not None and came.startswith(self._head_bytes):
            head, before = self._head, self._answer
        else:
            read = read_head(came, len(self._ahead))
            if read is NotHot.MORE:
                if not self._ahead:
                    self._since = self._loop.time()
                self._ahead = came
                return
            if not isinstance(read, Head):
                self._hand_over(came)
                return
            head, self._head, self._head_bytes = read, read, came[: read.size]
        answer = self._answer = self._others.hot.find(head, self._peer, before)
        if answer is None:
            self._hand_over(came)
            return
        self._begin(head, answer, came)

    def _begin(self, head: Head, answer: Answer, came: bytes) -> None:
        end, size = head.size + head.content_length, len(came)
        self.is_last = self._others.is_leaving
        visit = self._visit = Visit(
            self,
            head.content_length,
            self._others.hot.origins,
            head.headers.get("origin"),
            body=came[head.size : end] if size >= end else None,
            keeps_alive=head.keeps_alive,
        )
        self._ahead = b""
        if head.size < size < end:
            visit.feed(came[head.size :])
        elif size > end:
            self._keep(came[end:])
        self._task = self._loop.create_task(self._serve(visit, answer), name="hot-request")

    async def _serve(self, visit: Visit, answer: Answer) -> None:
        try:
            await answer(visit, visit)
        except ConnectionError as error:
            log.debug("client went", extra={"action": "client_gone", "error": repr(error)})
        except Exception:
            log.exception("answer failed inside the gateway", extra={"action": "internal"})
        finally:
            self._end(visit)

    def _end(self, visit: Visit) -> None:
        """The request has been answered, or was given up."""
        visit.leave()
        self._visit = self._task = None
        self._since = self._loop.time()
        if self._transport is None:
            return
        if not visit.is_whole:
            self.abort()
            return
        self.is_last = self.is_last or visit.closes
        self._skip = visit.missing
        if not self._skip and (self._ahead or self.is_last):
            came, self._ahead = bytes(self._ahead), b""
            self._take(came)

    def _keep(self, data: bytes) -> None:
        """For when the answer that is under way has ended."""
        if not self._ahead:
            self._ahead = bytearray()
        if self.is_last or len(self._ahead) + len(data) > _MOST_AHEAD:
            self.is_last, self._has_dropped, self._ahead = True, True, b""
        else:
            self._ahead += data

    def _hand_over(self, came: bytes) -> None:
        transport, self._transport = self._transport, None
        assert transport is not None
        self._others.remove(self)
        self._ahead = b""
        other = self._others.make_other()
        transport.set_protocol(other)
        other.connection_made(transport)
        if self.is_full:
            other.pause_writing()
        other.data_received(came)

    # --- for the one that is answered (visit.Line) ------------------------------------------------------------------

    def write(self, part: bytes, *more: bytes) -> None:
        if self._transport is None or self._is_closing:
            raise ConnectionResetError("the client has gone")
        if more:
            self._transport.writelines((part, *more))
        else:
            self._transport.write(part)

    def drained(self) -> Awaitable[None] | None:
        if not self.is_full or self._transport is None:
            return None
        if self._drains is None or self._drains.done():
            self._drains = self._loop.create_future()
        return self._drains

    def hold_reading(self, is_held: bool) -> None:
        if self._transport is not None and not self._is_closing:
            if is_held:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def abort(self) -> None:
        if self._transport is not None:
            self._is_closing = True
            self._transport.abort()

    # --- for all of them (connections.Connections) ------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Ends it when it has been idle or slow for too long. `now`: of the loop."""
        waited_s = now - self._since
        if self._visit is not None:
            return
        if self._is_closing:
            if waited_s > LINGER_S:
                self.abort()
        elif waited_s > (LINGER_S if self._skip else HEAD_S if self._ahead else _IDLE_S):
            self.close()

    def drain(self) -> None:
        self.is_last = True
        if self._visit is None:
            self.close()

    def close_idle(self, since: float) -> None:
        """Ends it if nothing is answered on it, and nothing has come, since then. By the clock of the loop."""
        if self._visit is None and self._since <= since:
            self.close()

    def close(self) -> None:
        """When what was written has gone out."""
        if self._transport is not None and not self._is_closing:
            self._is_closing = True
            self._since = self._loop.time()
            self._transport.close()

    def _leave(self) -> None:
        """Nothing more is answered. Closed at once, a connection on which more came than was read is reset, and its client
        might lose the answer: so it is read on until the client has closed it too, or for a while (RFC 9112, 9.6)."""
        if self._has_dropped and self._transport is not None and self._transport.can_write_eof():
            self._is_closing = True
            self._since = self._loop.time()
            try:
                self._transport.write_eof()
            except OSError:  # the client has reset it meanwhile
                self.abort()
        else:
            self.close()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """That answers a request."""
        return self._task

    # ----------------------------------------------------------------------------------------------------------------

    def _gone(self) -> None:
        self._transport = None
        self._wake()
        task, self._task = self._task, None  # told once; and it remembers where it was told, and so us
        if task is not None:
            task.cancel()
        if self._visit is not None:
            self._visit.leave()  # its task may never have begun, and so never end it

    def _wake(self) -> None:
        if self._drains is not None and not self._drains.done():
            self._drains.set_result(None)
