"""All connections of our own, and what they have in common: who answers, what becomes of those on which something else is
asked for, and one look at how long each has waited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

from forebay_gateway.cors import Origins
from forebay_gateway.http_in.framer import Head
from forebay_gateway.http_in.incoming import Incoming
from forebay_gateway.http_in.outgoing import Outgoing

_LOOK_S = 5.0
_GLANCE_S = 0.05

Answer = Callable[[Incoming, Outgoing], Coroutine[Any, Any, None]]
"""Answers one request. Raises ConnectionError and CancelledError when its client has gone."""


class Hot(Protocol):
    origins: Origins

    def find(self, head: Head, peer: str, before: Answer | None) -> Answer | None:
        """None: it is not one of the hot addresses. `peer`: the address of the connection's other end. `before`: what was
        found there for the very same head, if that was the last one."""
        ...


class Connection(Protocol):
    @property
    def task(self) -> asyncio.Task[None] | None: ...
    def look(self, now: float) -> None: ...
    def drain(self) -> None: ...
    def close_idle(self, since: float) -> None: ...
    def abort(self) -> None: ...


class Connections:
    def __init__(self, hot: Hot, make_other: Callable[[], asyncio.Protocol]) -> None:
        """`make_other`: what a connection becomes on which something else is asked for."""
        self.hot, self.make_other = hot, make_other
        self.open: set[Connection] = set()
        self.is_draining = False
        self.is_leaving = False
        """Requests are answered as ever, and each answer that begins is the last on its connection."""
        self._emptied: asyncio.Event | None = None

    def add(self, connection: Connection) -> None:
        self.open.add(connection)

    def remove(self, connection: Connection) -> None:
        self.open.discard(connection)
        if not self.open and self._emptied is not None:
            self._emptied.set()

    async def watch(self) -> None:
        """Ends those that are idle or slow for too long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_S)
            for connection in list(self.open):
                connection.look(loop.time())

    async def leave(self, idle_s: float, within_s: float) -> None:
        """Until no connection is left, or for so long. Who asks on an open one is answered as ever, and connects to somebody
        else the next time; only those end that have been idle for `idle_s`. If one ended at once, a request might be on its
        way to it: clients send the next one as soon as they have an answer."""
        self.is_leaving = True
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self.open and loop.time() < began + within_s:
            await asyncio.sleep(_GLANCE_S)
            idle_since = loop.time() - idle_s
            if idle_since >= began:
                for connection in list(self.open):
                    connection.close_idle(idle_since)

    def drain(self) -> None:
        """Those that are idle end, and the others after the answer that is under way. New ones take no request."""
        self.is_draining = True
        for connection in list(self.open):
            connection.drain()

    async def cut(self, within_s: float) -> None:
        """Ends what is left: answers after so long, and then whoever has not taken the last of one after as long again."""
        tasks = [connection.task for connection in self.open if connection.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self.open:
            self._emptied = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._emptied.wait()
        for connection in list(self.open):
            connection.abort()
