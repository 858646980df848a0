"""Finding engines among whatever else listens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from forebay.local.engine import Engine, EngineKind, discover


@asynccontextmanager
async def serving(answers: dict[str, Any]) -> AsyncIterator[int]:
    """A server with a JSON answer per path; 404 elsewhere."""

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path not in answers:
            return web.Response(status=404, text="not here")
        return web.json_response(answers[request.path])

    async with _running(answer) as port:
        yield port


@asynccontextmanager
async def _running(answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def listed(owner: str, *models: str) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": model, "object": "model", "owned_by": owner} for model in models]}


async def test_each_kind_of_engine_is_told_by_what_it_answers() -> None:
    ollama = {
        "/api/version": {"version": "0.14.0"},
        "/api/tags": {"models": [{"name": "llama3.2:latest"}]},
        "/v1/models": listed("library", "llama3.2:latest"),
    }
    vllm = {"/version": {"version": "0.11.0"}, "/v1/models": listed("vllm", "Qwen/Qwen3-8B")}
    llamacpp = {"/props": {"default_generation_settings": {}}, "/v1/models": listed("llamacpp", "gemma")}
    other = {"/v1/models": listed("sglang", "m")}
    async with serving(ollama) as a, serving(vllm) as b, serving(llamacpp) as c, serving(other) as d:
        assert await discover([a, b, c, d]) == [
            Engine(EngineKind.OLLAMA, f"http://127.0.0.1:{a}", ("llama3.2:latest",)),
            Engine(EngineKind.VLLM, f"http://127.0.0.1:{b}", ("Qwen/Qwen3-8B",)),
            Engine(EngineKind.LLAMA_CPP, f"http://127.0.0.1:{c}", ("gemma",)),
            Engine(EngineKind.OPENAI, f"http://127.0.0.1:{d}", ("m",)),
        ]


async def test_our_own_ports_are_not_asked() -> None:
    async with serving({"/v1/models": listed("forebay", "m")}) as port:
        assert await discover([port], skip={port}) == []


async def test_an_engine_without_models_is_an_engine_without_models() -> None:
    async with serving({"/api/version": {"version": "0.14.0"}, "/api/tags": {"models": None}}) as port:
        assert await discover([port]) == [Engine(EngineKind.OLLAMA, f"http://127.0.0.1:{port}", ())]


async def test_whatever_else_listens_on_a_usual_port_is_passed_over(free_port: Callable[[], int]) -> None:
    async def page(_: web.BaseRequest) -> web.Response:
        return web.Response(text="<h1>hello</h1>", content_type="text/html")

    async with _running(page) as web_page, serving({"/v1/models": ["a", "list"]}) as strange:
        assert await discover([web_page, strange, free_port()]) == []


async def test_what_wants_a_key_is_told_and_not_taken_for_nothing() -> None:
    async def locked(request: web.BaseRequest) -> web.Response:
        return web.json_response({"error": "Unauthorized"}, status=401)

    async with _running(locked) as port:
        assert await discover([port]) == [Engine(EngineKind.OPENAI, f"http://127.0.0.1:{port}", (), wants_key=True)]
