"""A fake API of Kubernetes: real HTTP, lists and watches with resourceVersions, and the ways in which it lets one down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import web

Odd = Callable[[web.Request], Awaitable[web.StreamResponse]]


class KubernetesApi:
    """`async with KubernetesApi() as api:`, then `put` and `drop` objects. `odd` answers the next request instead."""

    def __init__(self, token: str = "secret") -> None:
        self.token = token
        self.version = 10
        self.oldest = 0
        """Watches from before it are 410."""
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.events: list[tuple[int, str, str, dict[str, Any]]] = []
        """(version, kind, type, object)."""
        self.odd: list[Odd] = []
        self.lists = self.watches = 0
        self.is_away = False
        self._moved = asyncio.Condition()
        self._open: set[asyncio.Task[Any]] = set()
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/ml/{kind:services}", self._answer)
        app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/ml/{kind:endpointslices}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await self._site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        await self._runner.cleanup()

    async def put(self, kind: str, item: dict[str, Any]) -> None:
        meta = item["metadata"]
        key = (kind, meta["namespace"], meta["name"])
        await self._happen(kind, "MODIFIED" if key in self.objects else "ADDED", key, item)
        self.objects[key] = item

    async def drop(self, kind: str, name: str) -> None:
        item = self.objects.pop((kind, "ml", name))
        await self._happen(kind, "DELETED", (kind, "ml", name), item)

    async def bookmark(self, kind: str) -> None:
        await self._happen(kind, "BOOKMARK", (kind, "", ""), {"metadata": {}})

    def forget(self) -> None:
        """Every watch from now on has to list first."""
        self.oldest = self.version + 1
        self.version += 1

    def cut(self) -> None:
        """Every open watch ends in the middle."""
        for task in list(self._open):
            task.cancel()

    async def _happen(self, kind: str, what: str, key: tuple[str, str, str], item: dict[str, Any]) -> None:
        self.version += 1
        told = json.loads(json.dumps(item))
        told["metadata"]["resourceVersion"] = str(self.version)
        self.events.append((self.version, kind, what, told))
        async with self._moved:
            self._moved.notify_all()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.odd:
            return await self.odd.pop(0)(request)
        if self.is_away:
            return web.Response(status=503, text="away")
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        assert request.query["labelSelector"] == "forebay.io/backend=true"
        kind = request.match_info["kind"]
        if "watch" not in request.query:
            self.lists += 1
            items = [item for (one, _, _), item in self.objects.items() if one == kind]
            begin = int(request.query.get("continue", "0"))
            more = str(begin + 1) if begin + 1 < len(items) else ""
            page = {
                "items": items[begin : begin + 1],
                "metadata": {"resourceVersion": str(self.version), "continue": more},
            }
            return web.json_response(page)
        assert request.query["allowWatchBookmarks"] == "true"
        return await self._watch(request, kind, int(request.query["resourceVersion"]))

    async def _watch(self, request: web.Request, kind: str, since: int) -> web.StreamResponse:
        self.watches += 1
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if since < self.oldest:
                gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410}}
                await response.write(json.dumps(gone).encode() + b"\n")
                return response
            while True:
                for version, of, what, item in self.events:
                    if of == kind and version > since:
                        since = version
                        line = json.dumps({"type": what, "object": item}).encode() + b"\n"
                        await response.write(line[:20])  # lines come in pieces
                        await response.write(line[20:])
                async with self._moved:
                    await self._moved.wait()
        except asyncio.CancelledError:
            if request.transport is None or request.transport.is_closing():
                raise  # its client went
            await response.write(b'{"type":"MODIFIED","object":{"metadata":{"name":"half a li')
            request.transport.close()
            return response
        finally:
            self._open.discard(task)
