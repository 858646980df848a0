"""A gRPC channel whose certificates may be replaced while calls run on it.

gRPC fixes a channel's credentials when it is made. So new files get a channel of their own: it connects beside the one in
use, new calls go to it as soon as it has, and the old one is closed when the last call on it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from forebay.internal_tls import Pem, WatchedTls

Options = Sequence[tuple[str, Any]]
_READY = grpc.ChannelConnectivity.READY


class RenewedChannel(grpc.aio.Channel):
    def __init__(self, address: str, options: Options, watched: WatchedTls) -> None:
        self._address, self._options, self._watched = address, options, watched
        self._current = _Link(address, options, watched.newest())
        self._next: _Link | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._retired: set[_Link] = set()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._link().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._link().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        while (state := self.get_state(try_to_connect=True)) is not _READY:
            await self.wait_for_state_change(state)

    def unary_unary(self, method: str, *forms: Any, **more: Any) -> Any:
        return self._callable("unary_unary", method, forms, more)

    def unary_stream(self, method: str, *forms: Any, **more: Any) -> Any:
        return self._callable("unary_stream", method, forms, more)

    def stream_unary(self, method: str, *forms: Any, **more: Any) -> Any:
        return self._callable("stream_unary", method, forms, more)

    def stream_stream(self, method: str, *forms: Any, **more: Any) -> Any:
        return self._callable("stream_stream", method, forms, more)

    async def close(self, grace: float | None = None) -> None:
        links = [self._current, *self._retired, *([self._next] if self._next else [])]
        self._retired.clear()
        await asyncio.gather(*(link.channel.close(grace) for link in links), *self._closing)

    async def __aenter__(self) -> RenewedChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _callable(self, kind: str, method: str, forms: tuple[Any, ...], more: dict[str, Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            link = self._link()
            begun = link.callable(kind, method, forms, more)(*arguments, **named)
            link.calls += 1
            begun.add_done_callback(lambda _: self._call_ended(link))
            return begun

        return call

    def _link(self) -> _Link:
        """The one for a call that begins now. One with new files takes over when it is connected, or when the one before is
        not: files that the others refuse break nothing that still works."""
        pem = self._watched.newest()
        if pem is not (self._next or self._current).pem:
            if self._next is not None:
                self._close_soon(self._next)
            self._next = _Link(self._address, self._options, pem)
            self._next.channel.get_state(try_to_connect=True)
        if self._next is not None and (self._next.is_connected or not self._current.is_connected):
            before, self._current, self._next = self._current, self._next, None
            self._retired.add(before)
            self._close_if_idle(before)
        return self._current

    def _call_ended(self, link: _Link) -> None:
        link.calls -= 1
        self._close_if_idle(link)

    def _close_if_idle(self, link: _Link) -> None:
        if link in self._retired and not link.calls:
            self._retired.discard(link)
            self._close_soon(link)

    def _close_soon(self, link: _Link) -> None:
        closing = asyncio.get_running_loop().create_task(link.channel.close(), name="close-renewed-channel")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


class _Link:
    """One channel with the files it was made with."""

    def __init__(self, address: str, options: Options, pem: Pem) -> None:
        self.pem = pem
        credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.cert)
        self.channel = grpc.aio.secure_channel(address, credentials, options=options)
        self.calls = 0
        self._methods: dict[str, Callable[..., Any]] = {}

    @property
    def is_connected(self) -> bool:
        return self.channel.get_state() is _READY

    def callable(self, kind: str, method: str, forms: tuple[Any, ...], more: dict[str, Any]) -> Callable[..., Any]:
        if method not in self._methods:
            self._methods[method] = getattr(self.channel, kind)(method, *forms, **more)
        return self._methods[method]
