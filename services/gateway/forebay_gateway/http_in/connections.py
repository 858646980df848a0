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
    def abort(self) -> None: ...


class Connections:
    def __init__(self, hot: Hot, make_other: Callable[[], asyncio.Protocol]) -> None:
        """`make_other`: what a connection becomes on which something else is asked for."""
        self.hot, self.make_other = hot, make_other
        self.open: set[Connection] = set()
        self.is_draining = False
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
