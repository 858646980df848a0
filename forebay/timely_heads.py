"""Connections of aiohttp's server on which the head of a request, the first as any later one, has to be whole in time:
aiohttp itself waits for it without end. What comes after a head is left to who reads it; after a broken one, to nobody."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.web_protocol import RequestHandler, _ErrInfo


class TimelyConnection(RequestHandler):
    head_s = 30.0
    """How long a head may take, from its first byte to its last."""

    _head_ends: asyncio.TimerHandle | None = None
    """While a head has begun and is not whole."""
    _is_broken = False
    """It will be told so, and its connection ends."""

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        super().data_received(data)
        if self._messages and isinstance(broken := self._messages[-1][0], _ErrInfo):
            # Its frames have what came and this connection, which would have it until the collector looks.
            broken.exc.__traceback__ = None
            self._is_broken = True
        if self._waiter is None or self._waiter.done():  # aiohttp has a request, and its answer is under way
            self._forget_head()
        elif self._head_ends is None:
            self._head_ends = asyncio.get_running_loop().call_later(self.head_s, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _forget_head(self) -> None:
        if self._head_ends is not None:
            self._head_ends.cancel()
            self._head_ends = None


class TimelyRunner(web.AppRunner):
    """Serves an application on such connections."""

    async def _make_server(self) -> web.Server:
        usual = await super()._make_server()
        return _Server(usual.request_handler, request_factory=usual.request_factory, loop=usual._loop, **usual._kwargs)


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return TimelyConnection(self, loop=self._loop, **self._kwargs)
