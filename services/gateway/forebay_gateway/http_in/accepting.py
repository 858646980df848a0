"""Takes connections from a listening socket that other processes take from too, each when it is its turn.

asyncio's own servers take what they can get. Here a worker that has more connections than another lets it go first for a
moment; if that one is busy, clients do not wait for it."""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

log = logging.getLogger(__name__)

PATIENCE_S = 0.005
"""How long the others may go first."""
_GLANCE_S = 0.001
"""How often it is looked meanwhile whether they have."""
_A_TURN = 16
"""The most that is taken in one turn of the loop: answers under way are not to wait for newcomers."""
_OUT_OF_TURN = 4
"""The same once patience has ended: the others may only have been slow to wake up."""
_EXHAUSTED_S = 0.5
_LEAVE_S = 1.0
"""How long those that were taken last may go on with their handshake."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Seat(Protocol):
    def has_turn(self) -> bool: ...
    def note(self, connections: int) -> None:
        """So many are open here."""
        ...

    def leave(self) -> None:
        """No more are taken here."""
        ...


@asynccontextmanager
async def accepting(
    listener: socket.socket,
    make_protocol: Callable[[], asyncio.BaseProtocol],
    tls: ssl.SSLContext | None,
    seat: Seat,
    *,
    patience_s: float = PATIENCE_S,
    first: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[None]:
    """Until left; then this process's copy of the listener is closed, and those taken so far go on. `first`: what is waited
    for, beside, before any is taken."""
    door = _Door(listener, make_protocol, tls, seat, patience_s)
    opening = asyncio.create_task(_open_after(first, door), name="open-door")
    try:
        yield
    finally:
        opening.cancel()
        await asyncio.wait([opening])
        await door.close()


async def _open_after(first: Callable[[], Awaitable[None]] | None, door: _Door) -> None:
    if first is not None:
        await first()
    door.open()


class _Door:
    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        tls: ssl.SSLContext | None,
        seat: Seat,
        patience_s: float,
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._tls = tls
        self._seat = seat
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._connections = 0
        self._connecting: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._patience_ends = 0.0
        self._queue = select.poll()
        self._queue.register(listener, select.POLLIN)
        self._is_open = False

    def open(self) -> None:
        self._listener.setblocking(False)
        self._is_open = True
        self._seat.note(0)
        self._listen()

    async def close(self) -> None:
        self._is_open = False
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._seat.leave()
        self._listener.close()
        if self._connecting:
            await asyncio.wait(self._connecting, timeout=_LEAVE_S)
            for task in self._connecting:
                task.cancel()

    def _take(self) -> None:
        for _ in range(_A_TURN):
            if not self._seat.has_turn():
                self._patience_ends = self._loop.time() + self._patience_s
                self._wait(_GLANCE_S, self._glance)
                return
            if not self._take_one():
                return

    def _glance(self) -> None:
        """Whether those who were to go first have done so."""
        if not self._queue.poll(0):
            self._listen()
        elif self._seat.has_turn():
            self._listen()
            self._take()
        elif self._loop.time() < self._patience_ends:
            self._pause = self._loop.call_later(_GLANCE_S, self._glance)
        else:
            self._listen()
            for _ in range(_OUT_OF_TURN):
                if not self._take_one():
                    return

    def _take_one(self) -> bool:
        """False: nothing more is to be taken now."""
        try:
            taken, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in _EXHAUSTED:
                # The queue keeps them, and the loop would report it as readable for ever.
                why = {"action": "accept", "why": error.strerror, "open": self._connections}
                log.error("no more connections can be taken", extra=why)
                self._wait(_EXHAUSTED_S, self._listen)
                return False
            return True  # that client has gone again, or its network has
        self._connections += 1
        self._seat.note(self._connections)
        connection = _Counted(taken, self._gone)
        task = self._loop.create_task(self._connect(connection), name="connect")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return True

    async def _connect(self, connection: _Counted) -> None:
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._make_protocol, connection, ssl=self._tls)
        except OSError as error:  # it left before it was greeted, or its handshake failed: ssl's errors are among these
            log.debug("connection not made", extra={"action": "accept", "why": str(error)})
            connection.close()
        except BaseException:
            connection.close()
            raise

    def _gone(self) -> None:
        self._connections -= 1
        if self._is_open:
            self._seat.note(self._connections)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, then)

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._take)


class _Counted(socket.socket):
    """A connection that says when its transport has let go of it: by closing it, or, as uvloop does, by detaching it. Which
    protocol it has by then, this one or another to which it was handed on, makes no difference."""

    def __init__(self, taken: socket.socket, on_gone: Callable[[], None]) -> None:
        super().__init__(taken.family, taken.type, taken.proto, fileno=taken.detach())
        self._on_gone: Callable[[], None] | None = on_gone

    def close(self) -> None:
        self._tell()
        super().close()

    def detach(self) -> int:
        self._tell()
        return super().detach()

    def _tell(self) -> None:
        on_gone, self._on_gone = self._on_gone, None
        if on_gone is not None:
            on_gone()
