"""The connections of one process to its engines: those that are free are asked again, the one that was used last first."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Self

from forebay_gateway.http_out.connection import Connection
from forebay_gateway.http_out.dialing import Dialer
from forebay_gateway.http_out.request import Address, Request
from forebay_gateway.http_out.response import Response
from forebay_gateway.http_out.sending import send_body

_IDLE_S = 3.0  # llama.cpp's and vLLM's servers close theirs after 5 s
_SWEEP_S = 1.0
_MOST_STALE = 8


class Pool:
    """Use `open_pool`."""

    def __init__(self, dialer: Dialer, idle_s: float) -> None:
        """`idle_s`: unused connections are kept so long."""
        self._dialer, self._idle_s = dialer, idle_s
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Address, list[Connection]] = defaultdict(list)
        """The longest unused first."""
        self._all: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()
        await asyncio.sleep(0)  # connections that were cut are closed in the next turn

    async def ask(self, request: Request, before_write: Callable[[Connection], None]) -> Response:
        """Its head has come then. `before_write` is called in each loop turn in which the request is written, or begins to
        be, with the connection that it goes over. Raises OSError, and what `before_write` raises."""
        stale = 0
        while True:
            may_reuse = request.can_repeat and stale < _MOST_STALE
            connection = self._take(request.target.address) if may_reuse else None
            is_reused = connection is not None
            if connection is None:
                connection = await self._dial(request.target.address)
            try:
                before_write(connection)
            except BaseException:
                self.freed(connection)
                raise
            response = connection.ask(request)
            try:
                if request.is_in_pieces:
                    await send_body(connection, response, request.body)
                else:
                    await response.wait_head()
            except OSError:
                if not is_reused or response.has_spoken:
                    raise
                # The engine closed an idle connection in the moment in which we took it. That says nothing about the
                # engine: take another.
                stale += 1
            else:
                return response

    def _take(self, address: Address) -> Connection | None:
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.is_open:
                if self._loop.time() - connection.idle_since < self._idle_s:
                    return connection
                connection.abort()
        return None

    async def _dial(self, address: Address) -> Connection:
        return await self._dialer.dial(address, lambda: Connection(self._loop, self, address))

    # --- heard of connections (connection.Keeper) -------------------------------------------------------------------

    def made(self, connection: Connection) -> None:
        self._all.add(connection)

    def freed(self, connection: Connection) -> None:
        connection.idle_since = self._loop.time()
        self._idle[connection.address].append(connection)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)

    def lost(self, connection: Connection) -> None:
        self._all.discard(connection)

    # ----------------------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """One timer for all."""
        before = self._loop.time() - self._idle_s
        for address, idle in list(self._idle.items()):
            kept = [connection for connection in idle if connection.is_open and connection.idle_since > before]
            for connection in idle:
                if connection.idle_since <= before:
                    connection.abort()
            if kept:
                self._idle[address] = kept
            else:
                del self._idle[address]
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep) if self._idle else None

    def _close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._idle.clear()
        for connection in list(self._all):
            connection.abort()


def open_pool(connect_s: float, *, allow_link_local: bool = False, idle_s: float = _IDLE_S) -> Pool:
    """To be entered, in a loop. `connect_s`: for looking up, connecting and TLS together."""
    return Pool(Dialer(connect_s, allow_link_local=allow_link_local), idle_s)
