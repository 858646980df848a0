"""Which engine listens there, by what only it says; against fake engines, and against what is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from forebay_gpu_agent.engines import asking
from forebay_gpu_agent.engines.asking import ask
from forebay_gpu_agent.engines.found import EngineKind
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour

Answer = Callable[[web.Request], web.StreamResponse]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[int]:
    """A program that answers every path so; gives its port."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return answer(request)

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("flavour", "kind"),
    [
        (Flavour.OLLAMA, EngineKind.OLLAMA),
        (Flavour.VLLM, EngineKind.VLLM),
        (Flavour.LLAMA_CPP, EngineKind.LLAMACPP),
        (Flavour.SGLANG, EngineKind.SGLANG),
    ],
)
async def test_each_engine_is_known_by_what_only_it_says(flavour: Flavour, kind: EngineKind) -> None:
    async with FakeEngine(flavour=flavour, models=("a", "b")) as engine:
        answer = await asyncio.to_thread(ask, "0.0.0.0", engine.port)
    assert answer is not None
    assert (answer.kind, answer.models) == (kind, 2)


async def test_an_engine_that_wants_a_key_for_its_models_gives_itself_away_by_its_gauges() -> None:
    def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/metrics":
            return web.Response(text="# HELP x\nvllm:num_requests_running 0\n")
        if request.path == "/version":
            return web.json_response({"version": "0.11.0"})
        return web.Response(status=401)

    async with serving(answer) as port:
        told = await asyncio.to_thread(ask, "127.0.0.1", port)
    assert told == asking.Answer(EngineKind.VLLM, "0.11.0", None)


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: web.Response(text="<html>login</html>", content_type="text/html"),
        lambda _: web.json_response({"data": "garbage", "models": 7, "version": 3}),
        lambda _: web.json_response([1, 2]),
        lambda _: web.Response(status=302, headers={"location": "http://169.254.169.254/"}),
        lambda _: web.Response(body=b"[" * 100_000, content_type="application/json"),
        lambda _: web.Response(body=b"x" * (2 << 20)),
    ],
    ids=["HTML", "garbage", "a list", "a redirect", "deep", "too long"],
)
async def test_what_is_no_engine_is_none(answer: Answer) -> None:
    async with serving(answer) as port:
        assert await asyncio.to_thread(ask, "127.0.0.1", port) is None


async def test_a_server_that_drips_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ENGINE_S", 0.3)

    dripping: list[asyncio.Task[None] | None] = []

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dripping.append(asyncio.current_task())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    began = time.monotonic()
    async with server:
        assert await asyncio.to_thread(ask, "127.0.0.1", port) is None
    assert time.monotonic() - began < 10
    await asyncio.wait([one for one in dripping if one is not None])
    assert await asyncio.to_thread(ask, "127.0.0.1", port) is None, "nor where nobody listens any more"
