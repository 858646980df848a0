"""An engine that takes whatever is valid JSON or a valid form, and answers it as if it had made sense.

What a real engine would refuse it lets pass, so that every error that a client sees is the gateway's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from aiohttp import web

from forebay.wire.v1 import types_pb2
from tests.gateway.house import MODEL, House, eventually, open_house

Json = dict[str, Any]

_USAGE = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
_ENDED = {"done": True, "done_reason": "stop", "prompt_eval_count": 2, "eval_count": 1}
_PICTURE = {"created": 1, "data": [{"b64_json": "eA=="}]}
_ANSWERS: dict[str, Json] = {
    "/v1/chat/completions": {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]
    },
    "/v1/completions": {"choices": [{"index": 0, "text": "yes", "finish_reason": "stop"}]},
    "/v1/embeddings": {"object": "list", "data": [{"index": 0, "embedding": [1.0]}]},
    "/v1/rerank": {"results": [{"index": 0, "relevance_score": 1.0}]},
    "/v1/score": {"data": [{"index": 0, "score": 1.0}]},
    "/v1/moderations": {"results": [{"flagged": False}]},
    "/v1/images/generations": _PICTURE,
    "/v1/images/edits": _PICTURE,
    "/v1/audio/transcriptions": {"text": "yes"},
    "/v1/audio/translations": {"text": "yes"},
    "/tokenize": {"count": 2, "tokens": [1, 2], "max_model_len": 4096},
    "/apply-template": {"prompt": "hello"},
    "/api/chat": {"message": {"role": "assistant", "content": "yes"}, **_ENDED},
    "/api/generate": {"response": "yes", **_ENDED},
    "/api/embed": {"embeddings": [[1.0]], "prompt_eval_count": 2},
    "/api/embeddings": {"embedding": [1.0]},
    "/api/show": {"capabilities": ["completion"]},
    **{path: {"status": "success"} for path in ("/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete")},
}


@dataclass
class AcceptingEngine:
    url: str = ""
    bodies: list[Any] = field(default_factory=list)
    """What came, in the order in which it came: parsed JSON, or the parts of a form."""
    running: int = 0
    invalid: list[str] = field(default_factory=list)
    """What no engine could have read."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.running += 1
        try:
            return await self._answer(request)
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.content_type == "multipart/form-data":
            body: Any = await _parts(request)
        else:
            try:
                body = json.loads(await request.read(), parse_constant=_no_constants)
            except ValueError as error:
                self.invalid.append(f"{request.path}: {error}")
                return web.json_response({"error": {"message": str(error)}}, status=400)
        self.bodies.append(body)
        if request.path == "/v1/audio/speech":
            return web.Response(body=b"RIFF", content_type="audio/wav")
        told = {"model": MODEL, **_ANSWERS[request.path]}
        if request.path.startswith("/api/"):
            return web.json_response(told)
        if isinstance(body, dict) and body.get("stream") is True and "choices" in told:
            return web.Response(text=_streamed(request.path, told), content_type="text/event-stream")
        return web.json_response({**told, "usage": _USAGE})


def _streamed(path: str, told: Json) -> str:
    (choice,) = told["choices"]
    if path == "/v1/chat/completions":
        choice = {"index": 0, "delta": choice["message"], "finish_reason": "stop"}
    chunks = [{"model": MODEL, "choices": [choice]}, {"model": MODEL, "choices": [], "usage": _USAGE}]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


async def _parts(request: web.Request) -> list[tuple[str, str | None, bytes]]:
    """(name, file name, content) of each."""
    parts = []
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        parts.append((str(part.name), part.filename, bytes(await part.read())))  # type: ignore[union-attr]
    return parts


def _no_constants(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


@asynccontextmanager
async def open_accepting_engine() -> AsyncIterator[AcceptingEngine]:
    engine = AcceptingEngine()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/{path:.*}", engine.answer)
    app.router.add_delete("/{path:.*}", engine.answer)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    engine.url = f"http://127.0.0.1:{site.port}"
    try:
        yield engine
    finally:
        await runner.cleanup()


@asynccontextmanager
async def open_accepting_house(
    directory: Path, kind: types_pb2.EngineKind.ValueType = types_pb2.ENGINE_KIND_VLLM, **changes: Any
) -> AsyncIterator[tuple[House, AcceptingEngine]]:
    async with open_accepting_engine() as engine, open_house(directory, **changes) as house:
        house.scheduler.slots["b1"] = 256  # as many as a request may ask for and more
        house.registry.put("b1", engine.url, kind=kind, slots=256)
        await _offered(house)
        yield house, engine


async def demand_rest(house: House, engine: AcceptingEngine) -> None:
    """Nothing is left running anywhere, and no slot or memory is held."""
    await eventually(
        lambda: (
            not house.metric("forebay_gateway_running")
            and not house.metric("forebay_gateway_held_body_bytes")
            and not house.scheduler.held
            and not house.scheduler.queue
            and not engine.running
        ),
        lambda: f"left: {house.scheduler.held}, {house.scheduler.queue}, {engine.running} at the engine",
    )
    assert engine.invalid == []


async def _offered(house: House) -> None:
    async with asyncio.timeout(30):
        while True:
            async with house.client.get(f"{house.url}/v1/models", headers=house.headers) as answer:
                if MODEL in await answer.text():
                    return
