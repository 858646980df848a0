"""A search server that answers as SearXNG's JSON API does, with what a test gives it, and remembers what it was asked. On a
loop of its own, so that tests with a browser, which have none, can hold it too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

PATH = "/search"


@dataclass
class SearchServer:
    results: Sequence[Any] = ()
    status: int = 200
    body: bytes | None = None
    """Instead of the results."""
    stalls: bool = False
    """Whether it answers nothing at all."""
    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    """What stood in the queries."""
    keys: list[str] = field(default_factory=list)
    """The header `authorization` of each."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        self.keys.append(request.headers.get("authorization", ""))
        if self.stalls:
            await asyncio.Event().wait()
        if self.status // 100 == 3:
            return web.Response(status=self.status, headers={"location": f"{PATH}?elsewhere"})
        if self.body is not None:
            return web.Response(status=self.status, body=self.body, content_type="application/json")
        told = {"query": request.query.get("q", ""), "results": list(self.results), "suggestions": []}
        return web.json_response(told, status=self.status)


@contextmanager
def open_search_server(**given: Any) -> Iterator[SearchServer]:
    server = SearchServer(**given)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="search-server")
    thread.start()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_get(PATH, server.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        server.url = f"http://{host}:{port}{PATH}"
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
