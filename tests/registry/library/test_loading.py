"""Loading on engines that are not Ollama: adapters on vLLM and SGLang, models of llama.cpp's router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from forebay.clock import SystemClock
from forebay_registry.backend import EngineKind
from forebay_registry.engines.probe import Target
from forebay_registry.library import loading
from forebay_registry.library.door import MAX_PAGE_BYTES, Door
from forebay_registry.library.loading import load, unload
from forebay_registry.library.trouble import EngineTrouble
from tests.registry.library.views import view


class Engine:
    """Pages by method and path; what was asked is written down."""

    def __init__(self, pages: dict[str, Any]) -> None:
        self._pages = pages
        self.asked: list[tuple[str, Any]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = f"{request.method} {request.path}"
        body = await request.json() if request.can_read_body else None
        self.asked.append((asked, body))
        page = self._pages.get(asked)
        if page is None:
            return web.json_response({"detail": "Not Found"}, status=404)
        answer: web.StreamResponse = page(body) if callable(page) else web.json_response(page)
        return answer


@asynccontextmanager
async def at(session: aiohttp.ClientSession, engine: Engine) -> AsyncIterator[Door]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield Door(session, Target(f"http://127.0.0.1:{site.port}", None), "one")
    finally:
        await runner.cleanup()


WORD = {"choices": [{"text": "Hi"}]}


@pytest.mark.parametrize(("kind", "before"), [(EngineKind.VLLM, "/v1"), (EngineKind.SGLANG, "")])
async def test_adapters_are_loaded_by_name_and_place_and_unloaded_by_name(
    session: aiohttp.ClientSession, kind: EngineKind, before: str
) -> None:
    engine = Engine(
        {
            f"POST {before}/load_lora_adapter": lambda body: web.Response(text="Success: LoRA adapter added."),
            f"POST {before}/unload_lora_adapter": {"success": True},
            "POST /v1/completions": WORD,
        }
    )
    async with at(session, engine) as door:
        backend = view("one", "base", kind=kind)
        loaded = await load(door, backend, "sql", keep_alive="", source="team/sql", clock=SystemClock())
        assert loaded.warmup_ms is not None
        await unload(door, kind, "sql")
    assert engine.asked == [
        (f"POST {before}/load_lora_adapter", {"lora_name": "sql", "lora_path": "team/sql"}),
        ("POST /v1/completions", {"model": "sql", "prompt": "Hello", "max_tokens": 1}),
        (f"POST {before}/unload_lora_adapter", {"lora_name": "sql"}),
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"object": "error", "message": "The adapter 'sql' is loaded."}, "one says: The adapter 'sql' is loaded."),
        ({"success": False, "error_message": "rank 64 > 16"}, "one says: rank 64 > 16"),
        ({"error": {"message": "no such file"}}, "one says: no such file"),
    ],
)
async def test_a_refusal_is_told_in_the_engines_words(
    session: aiohttp.ClientSession, answer: dict[str, Any], words: str
) -> None:
    engine = Engine({"POST /load_lora_adapter": lambda body: web.json_response(answer, status=400)})
    async with at(session, engine) as door:
        with pytest.raises(EngineTrouble) as trouble:
            await load(
                door, view("one", kind=EngineKind.SGLANG), "sql", keep_alive="", source="a/b", clock=SystemClock()
            )
    assert (trouble.value.message, trouble.value.is_final) == (words, True)


async def test_a_router_is_waited_for_until_the_model_is_there(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_LOOK_S", 0.001)
    states: list[dict[str, Any]] = [
        {"value": "unloaded"},
        {"value": "loading"},
        {"value": "loading"},
        {"value": "loaded"},
    ]

    def listed(body: Any) -> web.Response:
        status = states.pop(0) if len(states) > 1 else states[0]
        return web.json_response(
            {"data": [{"id": "other", "status": {"value": "loaded"}}, {"id": "m", "status": status}]}
        )

    engine = Engine({"GET /models": listed, "POST /models/load": {"success": True}, "POST /v1/completions": WORD})
    async with at(session, engine) as door:
        backend = view("one", "m", kind=EngineKind.LLAMACPP)
        assert (await load(door, backend, "m", keep_alive="", source="", clock=SystemClock())).warmup_ms is not None
        assert ("POST /models/load", {"model": "m"}) in engine.asked
        engine.asked.clear()
        await load(door, backend, "m", keep_alive="", source="", clock=SystemClock())
        assert [asked for asked, _ in engine.asked] == ["GET /models", "POST /v1/completions"], (
            "what is there is not loaded"
        )
        states[:] = [{"value": "unloaded"}, {"value": "unloaded", "failed": True, "exit_code": 1}]
        with pytest.raises(EngineTrouble, match=r"could not load m \(exit status 1\)"):
            await load(door, backend, "m", keep_alive="", source="", clock=SystemClock())


async def test_a_llama_cpp_that_is_no_router_says_so(session: aiohttp.ClientSession) -> None:
    engine = Engine({"GET /models": {"data": [{"id": "m"}]}})
    async with at(session, engine) as door:
        with pytest.raises(EngineTrouble, match=r"is its llama\.cpp a router"):
            await load(
                door, view("one", "m", kind=EngineKind.LLAMACPP), "m", keep_alive="", source="", clock=SystemClock()
            )


async def test_a_model_that_is_loaded_and_does_not_answer_is_told(session: aiohttp.ClientSession) -> None:
    engine = Engine(
        {
            "POST /v1/load_lora_adapter": {},
            "POST /v1/completions": lambda body: web.json_response({"error": "out of memory"}, status=500),
        }
    )
    async with at(session, engine) as door:
        loaded = await load(
            door, view("one", kind=EngineKind.VLLM), "sql", keep_alive="", source="a/b", clock=SystemClock()
        )
    assert (loaded.warmup_ms, loaded.note) == (
        None,
        "It is loaded, and its first answer failed: one says: out of memory",
    )


async def test_pages_that_are_no_engines_do_no_harm(session: aiohttp.ClientSession) -> None:
    engine = Engine(
        {
            "GET /html": lambda body: web.Response(text="<html>", content_type="text/html"),
            "GET /away": lambda body: web.Response(status=302, headers={"location": "http://169.254.169.254/"}),
            "GET /long": lambda body: web.Response(body=b"x" * (MAX_PAGE_BYTES + 1)),
            "POST /long": lambda body: web.Response(body=b"x" * (MAX_PAGE_BYTES + 1)),
        }
    )
    async with at(session, engine) as door:
        with pytest.raises(EngineTrouble, match="is a proxy or a login in between"):
            await door.ask("GET", "/html", within_s=5)
        with pytest.raises(EngineTrouble, match=r"sends to http://169\.254\.169\.254/; register that address instead"):
            await door.ask("GET", "/away", within_s=5)
        with pytest.raises(EngineTrouble, match="answers more than 8 MiB"):
            await door.ask("GET", "/long", within_s=5)
        with pytest.raises(EngineTrouble, match="sends lines without end"):
            async for _ in door.lines("/long", {}, first_s=5):
                pass
