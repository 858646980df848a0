"""A wire between a client and a TCP server that can be cut, slowed and mended while bytes are on it.

A blackhole loses nothing: as on a real network, what is under way arrives when the wire is mended, if anybody still listens.
That is the hard case for whoever was told meanwhile that it had failed."""

from __future__ import annotations

import asyncio
import socket
import struct
from enum import Enum
from types import TracebackType

_CHUNK = 64 * 1024
_MOST_UNDER_WAY = 256
"""Chunks that a slow wire holds in one direction before it takes no more."""
_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class Cut(Enum):
    BLACKHOLE = "blackhole"
    """Nothing passes and nobody is told. New connections are taken and hear nothing."""
    RESET = "reset"
    """Connections are reset, new ones refused."""


class CutWire:
    """Entered: `port` on loopback leads to the server. Left: it is closed."""

    def __init__(self, server_port: int, server_host: str = "127.0.0.1") -> None:
        self._server = server_host, server_port
        self._listener: asyncio.Server | None = None
        self._place = socket.socket()
        """Bound and never listening: the port stays ours while new connections are refused."""
        self._to_server, self._to_client = asyncio.Event(), asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.passed = 0
        """Bytes, both ways."""
        self._delay_s = 0.0

    async def __aenter__(self) -> CutWire:
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port = self._place.getsockname()[1]
        await self.mend()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._place.close()

    def cut(self, how: Cut = Cut.BLACKHOLE, *, to_server: bool = True, to_client: bool = True) -> None:
        """With `to_server=False` or `to_client=False` a blackhole lets that direction pass."""
        if how is Cut.RESET:
            self._reset()
            return
        if to_server:
            self._to_server.clear()
        if to_client:
            self._to_client.clear()

    def slow(self, delay_s: float) -> None:
        """What is sent from now on arrives so much later, each way, and in the order in which it was sent."""
        self._delay_s = delay_s

    async def mend(self) -> None:
        """Neither cut nor slow."""
        self._delay_s = 0.0
        self._to_server.set()
        self._to_client.set()
        if self._listener is None:
            self._listener = await asyncio.start_server(self._carry, "127.0.0.1", self.port, reuse_port=True)

    def _reset(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in list(self._writers):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            writer.transport.abort()

    async def _carry(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(to_client)
        try:
            await self._to_server.wait()
            from_server, to_server = await asyncio.open_connection(*self._server)
            self._writers.add(to_server)
            try:
                async with asyncio.TaskGroup() as ways:
                    ways.create_task(self._pump(from_client, to_server, self._to_server))
                    ways.create_task(self._pump(from_server, to_client, self._to_client))
            finally:
                self._writers.discard(to_server)
                to_server.transport.abort()
        except* (OSError, asyncio.CancelledError):
            pass  # either end went, or the wire was cut
        finally:
            self._writers.discard(to_client)
            self._tasks.discard(task)
            to_client.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_open: asyncio.Event) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_UNDER_WAY)
        async with asyncio.TaskGroup() as ends:
            ends.create_task(self._take(source, under_way))
            ends.create_task(self._give(under_way, sink, is_open))

    async def _take(self, source: asyncio.StreamReader, under_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        clock = asyncio.get_running_loop()
        while True:
            try:
                chunk = await source.read(_CHUNK)
            except ConnectionResetError:
                chunk = b""  # heard no sooner than an orderly end
            await under_way.put((clock.time() + self._delay_s, chunk))
            if not chunk:
                return

    async def _give(
        self, under_way: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter, is_open: asyncio.Event
    ) -> None:
        clock = asyncio.get_running_loop()
        while True:
            due, chunk = await under_way.get()
            if due > (now := clock.time()):
                await asyncio.sleep(due - now)
            await is_open.wait()
            if not chunk:
                sink.write_eof()
                return
            try:
                sink.write(chunk)
                await sink.drain()
            except OSError:
                await asyncio.sleep(self._delay_s)  # that nobody takes it has a way to go too
                raise
            self.passed += len(chunk)
