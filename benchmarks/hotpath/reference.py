"""A relay that does nothing but relay, on the same interpreter and event loop as the gateway: what the gateway costs is told
as a multiple of it, which is nearly the same on every machine.

Run as `python -m benchmarks.hotpath.reference PORT ENGINE_PORT`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import httptools

from benchmarks.hotpath.engines import until_connected
from benchmarks.hotpath.loads import System
from benchmarks.hotpath.machine import Cores
from forebay.launch import loop_factory
from tests.conftest import free_port


class _Client(asyncio.Protocol):
    """One request after the other, each with a plain length."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._wire: asyncio.Transport | None = None
        self._came = b""
        self._engine: _Engine | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        came = self._came = self._came + data
        head, mark, body = came.partition(b"\r\n\r\n")
        if not mark:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._came = b""
        self._relay.pass_on(came, self)

    def begin(self, engine: _Engine) -> None:
        self._engine = engine

    def answer(self, piece: bytes) -> None:
        if self._wire is not None:
            self._wire.write(piece)

    def end(self) -> None:
        self._engine = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire = None
        if self._engine is not None:
            self._engine.abort()


class _Engine(asyncio.Protocol):
    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._wire: asyncio.Transport | None = None
        self._client: _Client | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)

    def ask(self, request: bytes, client: _Client) -> None:
        assert self._wire is not None
        self._client, self._is_over = client, False
        client.begin(self)
        self._wire.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        client = self._client
        if client is None:
            return
        client.answer(data)
        if self._is_over:
            self._client = None
            client.end()
            self._relay.free.append(self)

    def on_message_complete(self) -> None:
        self._is_over = True

    def abort(self) -> None:
        self._client = None
        if self._wire is not None:
            self._wire.abort()


class Relay:
    def __init__(self, engine_port: int) -> None:
        self._engine_port = engine_port
        self.free: list[_Engine] = []
        self._dialling: set[asyncio.Task[None]] = set()

    def pass_on(self, request: bytes, client: _Client) -> None:
        if self.free:
            self.free.pop().ask(request, client)
            return
        task = asyncio.get_running_loop().create_task(self._dial(request, client))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _dial(self, request: bytes, client: _Client) -> None:
        loop = asyncio.get_running_loop()
        _, engine = await loop.create_connection(lambda: _Engine(self), "127.0.0.1", self._engine_port)
        engine.ask(request, client)


async def _serve(port: int, engine_port: int) -> None:
    relay = Relay(engine_port)
    server = await asyncio.get_running_loop().create_server(lambda: _Client(relay), "127.0.0.1", port)
    await server.serve_forever()


@asynccontextmanager
async def open_reference(cores: Cores, engine_port: int) -> AsyncIterator[System]:
    """Listens when entered."""
    port = free_port()
    words = (sys.executable, "-m", "benchmarks.hotpath.reference", str(port), str(engine_port))
    process = await asyncio.create_subprocess_exec(*cores.pinned(cores.system), *words)
    try:
        await until_connected(port, within_s=20)
        yield System("reference", port, (process.pid,))
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
