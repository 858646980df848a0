"""Ollama's pages that change which models an engine has: pull, push, create, copy, delete and blobs, in memory.

    engine.library.layers = (Layer(5000), Layer(70))      # of whatever is pulled
    engine.library.missing.add("nosuch")                  # pulling that fails, after the first line, as Ollama's does
    ...
    assert engine.library.models == {"fake-model", "tiny"}

Its shelf is its own: the model lists and generation go on with the models that the engine was started with. An engine that
is given a library lists and generates with what is in it, and says which of them are in memory; several may be given one, as
those of a machine that share a folder:

    library = Library(("tiny",))
    async with FakeEngine(flavour=Flavour.OLLAMA, library=library) as engine: ...
    assert library.resident == {"tiny": -1}               # its keep_alive"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.fakes.engine_faults import FaultKind
from tests.fakes.engine_refusals import Refused
from tests.fakes.engine_sending import HIT, Broken, close_connection

Json = dict[str, Any]
_REFUSED = "invalid_request_error"
_NAME = re.compile(r"(?:[\w.:-]+/)?(?:[\w.-]+/)?[\w.-]+(?::[\w.-]+)?", re.ASCII)
_DURATION = re.compile(r"-?(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")


@dataclass(frozen=True, slots=True)
class Layer:
    size: int
    digest: str = ""

    @property
    def name(self) -> str:
        return self.digest or "sha256:" + hashlib.sha256(str(self.size).encode()).hexdigest()


class Library:
    def __init__(self, models: tuple[str, ...]) -> None:
        self.models = {_short(model) for model in models}
        self.blobs: dict[str, bytes] = {}
        self.layers: tuple[Layer, ...] = (Layer(1000), Layer(60))
        self.pieces = 4
        """How often the progress of a layer is told."""
        self.every_s = 0.001
        """Between two lines of progress."""
        self.resident: dict[str, object] = {}
        """In memory, with the `keep_alive` that was said last, None for the usual."""
        self.capabilities: dict[str, list[str]] = {}
        """Of models that differ from the others."""
        self.fetched: dict[str, int] = {}
        """Of each layer, what has come; what was cut off goes on from there."""
        self.fetched_bytes = 0
        self.missing: set[str] = set()
        """Models that no pull finds."""
        self.asked: list[tuple[str, Json]] = []
        """Path and body of each request with one, in the order in which they came."""
        self.blob_bytes = 0
        """Of blobs that are arriving or have arrived."""
        self.under_way = 0
        self.cut_off = 0
        """Requests whose client went before their end."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/pull", self._pull),
            web.post("/api/push", self._push),
            web.post("/api/create", self._create),
            web.post("/api/copy", self._copy),
            web.delete("/api/delete", self._delete),
            web.head("/api/blobs/{digest}", self._head_blob),
            web.post("/api/blobs/{digest}", self._take_blob),
        ]

    def has(self, model: str) -> bool:
        return _short(model) in self.models

    def can(self, model: str) -> list[str]:
        return self.capabilities.get(_short(model), ["completion", "embedding"])

    def use(self, model: str, keep_alive: object) -> str:
        """Into memory, or out of it: what Ollama calls the reason."""
        if isinstance(keep_alive, bool) or (isinstance(keep_alive, str) and not _DURATION.fullmatch(keep_alive)):
            raise Refused(400, f'time: invalid duration "{keep_alive}"', _REFUSED)
        name = _short(model)
        if keep_alive in (0, "0s"):
            self.resident.pop(name, None)
            return "unload"
        self.resident[name] = self.resident.get(name) if keep_alive is None else keep_alive
        return "load"

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        return await self._tell(request, self._pulling)

    async def _pulling(self, body: Json) -> AsyncGenerator[Json, None]:
        model = _model(body)
        yield {"status": "pulling manifest"}
        if _short(model) in self.missing:
            yield {"error": "pull model manifest: file does not exist"}
            return
        layers, pieces = self.layers, self.pieces
        for part in range(pieces + 1):
            for layer in layers:
                told: Json = {"status": f"pulling {layer.name[7:19]}", "digest": layer.name, "total": layer.size}
                there = self.fetched.get(layer.name, 0)
                completed = max(there, layer.size * part // pieces)
                self.fetched[layer.name] = completed
                self.fetched_bytes += completed - there
                yield told | ({"completed": completed} if completed else {})
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        self.models.add(_short(model))
        yield {"status": "success"}

    async def _push(self, request: web.Request) -> web.StreamResponse:
        return await self._tell(request, self._pushing)

    async def _pushing(self, body: Json) -> AsyncGenerator[Json, None]:
        model = _model(body)
        yield {"status": "retrieving manifest"}
        if not self.has(model):
            yield {"error": f"couldn't retrieve manifest for specified model: {model}"}
            return
        yield {"status": "pushing 0123456789ab", "digest": "sha256:0123", "total": 10, "completed": 10}
        yield {"status": "pushing manifest"}
        yield {"status": "success"}

    async def _create(self, request: web.Request) -> web.StreamResponse:
        return await self._tell(request, self._creating)

    async def _creating(self, body: Json) -> AsyncGenerator[Json, None]:
        digests = list((body.get("files") or {}).values())
        for digest in digests:
            if digest not in self.blobs:
                raise Refused(400, f"blob {digest} not found", _REFUSED)
            yield {"status": f"using existing layer {digest}"}
        if not digests and not self.has(str(body.get("from", ""))):
            raise Refused(400, "neither 'from' or 'files' was specified", _REFUSED)
        yield {"status": "writing manifest"}
        self.models.add(_short(_model(body)))
        yield {"status": "success"}

    async def _copy(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        if not self.has(body["source"]):
            raise Refused(404, f'model "{body["source"]}" not found', "not_found_error")
        self.models.add(_short(body["destination"]))
        return web.Response()

    async def _delete(self, request: web.Request) -> web.Response:
        model = _model(await self._body(request))
        if not self.has(model):
            raise Refused(404, f"model '{model}' not found", "not_found_error")
        self.models.remove(_short(model))
        self.resident.pop(_short(model), None)
        self.fetched.clear()  # of nothing else, as far as tests go
        return web.Response()

    async def _head_blob(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.match_info["digest"] in self.blobs else 404)

    async def _take_blob(self, request: web.Request) -> web.Response:
        digest = request.match_info["digest"]
        if digest in self.blobs:
            return web.Response()
        self.under_way += 1
        try:
            raw = bytearray()
            async for piece in request.content.iter_any():
                raw += piece
                self.blob_bytes += len(piece)
        except BaseException:
            self.cut_off += 1
            raise
        finally:
            self.under_way -= 1
        found = "sha256:" + hashlib.sha256(raw).hexdigest()
        if found != digest:
            raise Refused(400, f'digest mismatch, expected "{digest}", got "{found}"', _REFUSED)
        self.blobs[digest] = bytes(raw)
        return web.Response(status=201)

    async def _body(self, request: web.Request) -> Json:
        try:
            body: Json = json.loads(await request.read())
        except ValueError as error:
            raise Refused(400, str(error), _REFUSED) from error
        self.asked.append((request.path, body))
        return body

    async def _tell(
        self, request: web.Request, work: Callable[[Json], AsyncGenerator[Json, None]]
    ) -> web.StreamResponse:
        """As a stream, unless the body says otherwise; an error that comes first is told by the status."""
        body = await self._body(request)
        lines = work(body)
        self.under_way += 1
        try:
            first = await anext(lines)
            if body.get("stream") is False:
                last = first
                async for line in lines:
                    await asyncio.sleep(self.every_s)
                    last = line
                return web.json_response(last, status=500 if "error" in last else 200)
            response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
            await response.prepare(request)
            await response.write(_line(first))
            told = 1
            async for line in lines:
                hit = request[HIT]
                if fault := hit.due(FaultKind.STALL_AFTER, told):
                    await asyncio.sleep(fault.seconds)
                if hit.due(FaultKind.MALFORMED_SSE, told):
                    await response.write(b"<html>Bad Gateway</html>\n")
                if fault := hit.due(FaultKind.ERROR_EVENT_AFTER, told):
                    await response.write(_line({"error": fault.message}))
                    return response
                if cut := hit.due(FaultKind.CUT_AFTER, told):
                    await response.write(_line(line)[:5])
                    close_connection(request, reset=cut.reset)
                    raise Broken
                await asyncio.sleep(self.every_s)
                await response.write(_line(line))
                told += 1
        except (asyncio.CancelledError, ConnectionError):
            self.cut_off += 1
            raise
        finally:
            self.under_way -= 1
            await lines.aclose()
        return response


def _model(body: Json) -> str:
    model = str(body.get("model") or body.get("name") or "")
    if not _NAME.fullmatch(model) or ".." in model:
        raise Refused(400, "invalid model name", _REFUSED)
    return model


def _short(model: str) -> str:
    return model.removesuffix(":latest")


def _line(told: Json) -> bytes:
    return json.dumps(told).encode() + b"\n"
