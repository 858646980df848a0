"""One look at one engine, over real connections: each kind, each way to fail, and the real llama.cpp."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from forebay.clock import ManualClock
from forebay_registry.backend import EngineKind, Load, Model
from forebay_registry.engines.outcome import Outcome
from forebay_registry.engines.pages import MAX_BODY_BYTES
from forebay_registry.engines.probe import Answered, Failed, Probe, Target
from forebay_registry.engines.telemetry import ScrapeRhythm, Telemetry
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.fakes.engine_pages import VERSION

CLOCK = ManualClock()


@pytest.fixture
def probe(session: aiohttp.ClientSession) -> Probe:
    # The clock stands still; a probe that reads gauges at every look does so all the same.
    telemetry = Telemetry(CLOCK, ScrapeRhythm(every_s=0.0, timeout_s=0.5))
    return Probe(session, CLOCK, timeout_s=1.0, telemetry=telemetry)


async def look(probe: Probe, url: str, kind: EngineKind | None = None, bearer: str | None = None) -> Answered:
    answer = await probe.look(Target(url, kind, bearer))
    assert isinstance(answer, Answered), answer
    return answer


async def failure(probe: Probe, url: str, kind: EngineKind | None = None, bearer: str | None = None) -> Failed:
    answer = await probe.look(Target(url, kind, bearer))
    assert isinstance(answer, Failed), answer
    return answer


@asynccontextmanager
async def pages(**answers: Any) -> AsyncIterator[str]:
    """A server whose pages, by path with `_` for `/`, give these answers, or do what these handlers do."""

    async def answer(request: web.Request) -> web.StreamResponse:
        given = answers.get(request.path.strip("/").replace("/", "_"))
        if given is None:
            raise web.HTTPNotFound
        if callable(given):
            response: web.StreamResponse = await given(request)
            return response
        return web.json_response(given) if not isinstance(given, str) else web.Response(text=given)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}"
    finally:
        await runner.cleanup()


async def test_llamacpp_is_recognised_and_tells_slots_context_and_load(probe: Probe) -> None:
    async with FakeEngine(flavour=Flavour.LLAMA_CPP, slots=3, context_tokens=2048, models=("m",)) as engine:
        answer = await look(probe, engine.url)
        assert answer.seen.kind is EngineKind.LLAMACPP
        assert answer.seen.slots == 3
        assert answer.seen.models == (Model("m", 2048, trained_context_length=2048),)
        assert answer.seen.version == VERSION
        assert answer.load == Load(0, 0, None, CLOCK.now())


async def test_vllm_is_recognised_and_tells_context_and_load(probe: Probe) -> None:
    async with FakeEngine(flavour=Flavour.VLLM, slots=3, context_tokens=4096, models=("m",)) as engine:
        answer = await look(probe, engine.url)
        assert (answer.seen.kind, answer.seen.slots) == (EngineKind.VLLM, None)
        assert (answer.seen.kv_tokens, answer.seen.version) == (3 * 4096, VERSION)
        assert answer.seen.models == (Model("m", 4096),)
        assert answer.load == Load(0, 0, 0.0, CLOCK.now())


async def test_sglang_is_recognised_and_tells_context_and_load(probe: Probe) -> None:
    async with FakeEngine(flavour=Flavour.SGLANG, slots=3, context_tokens=4096, models=("m",)) as engine:
        answer = await look(probe, engine.url)
        assert (answer.seen.kind, answer.seen.slots) == (EngineKind.SGLANG, 3)
        assert (answer.seen.kv_tokens, answer.seen.version) == (3 * 4096, VERSION)
        assert answer.seen.models == (Model("m", 4096),)
        assert answer.load == Load(0, 0, 0.0, CLOCK.now())


async def test_ollama_is_recognised_and_tells_what_is_loaded_but_no_load(probe: Probe) -> None:
    async with FakeEngine(flavour=Flavour.OLLAMA, context_tokens=4096, models=("m",)) as engine:
        answer = await look(probe, engine.url)
        assert answer.seen.kind is EngineKind.OLLAMA
        (model,) = answer.seen.models
        assert (model.name, model.context_length, model.loaded) == ("m:latest", 4096, True)
        assert (model.capabilities, model.trained_context_length) == (("completion", "embedding"), 4096)
        assert (model.size_bytes, model.vram_bytes, model.quantization) == (300_000_000, 300_000_000, "Q4_K_M")
        assert answer.seen.version == VERSION
        assert answer.load is None


async def test_whatever_else_lists_its_models_is_openai(probe: Probe) -> None:
    async with pages(v1_models={"data": [{"id": "gpt", "owned_by": "system"}]}) as url:
        answer = await look(probe, url)
        assert answer.seen.kind is EngineKind.OPENAI
        assert answer.load is None


async def test_what_the_operator_said_is_not_found_out_again(probe: Probe) -> None:
    async with FakeEngine(flavour=Flavour.ANY) as engine:
        assert (await look(probe, engine.url, EngineKind.LLAMACPP)).seen.kind is EngineKind.LLAMACPP
        assert (await look(probe, engine.url, EngineKind.OLLAMA)).seen.kind is EngineKind.OLLAMA
        assert (await look(probe, engine.url, EngineKind.OPENAI)).seen.kind is EngineKind.OPENAI


async def test_while_another_page_fails_the_kind_stays_open_and_the_engine_counts_as_healthy(probe: Probe) -> None:
    async def broken(request: web.Request) -> web.Response:
        return web.Response(status=500)

    async with pages(v1_models={"data": [{"id": "m"}]}, metrics=broken) as url:
        answer = await look(probe, url)
        assert (answer.seen.kind, len(answer.seen.models)) == (None, 1)


async def test_running_requests_are_seen(probe: Probe, session: aiohttp.ClientSession) -> None:
    async with FakeEngine(flavour=Flavour.LLAMA_CPP, slots=2, pace=Pace(tokens_per_s=20)) as engine:
        chat = {"model": "fake-small", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        async with session.post(f"{engine.url}/v1/chat/completions", json=chat) as response:
            await response.content.readany()
            answer = await look(probe, engine.url)
            assert answer.load is not None
            assert answer.load.running == 1


async def test_without_metrics_llamacpps_slots_page_tells_the_load(probe: Probe) -> None:
    models = {"data": [{"id": "m", "owned_by": "llamacpp"}]}
    props = {"total_slots": 2, "endpoint_metrics": False}
    slots = [{"is_processing": True}, {"is_processing": False}]
    async with pages(v1_models=models, health={}, props=props, slots=slots) as url:
        assert (await look(probe, url)).load == Load(1, None, None, CLOCK.now())


async def test_an_engine_that_is_too_busy_for_its_gauges_is_healthy_with_an_unknown_load(probe: Probe) -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    models = {"data": [{"id": "m", "owned_by": "vllm"}]}
    async with pages(v1_models=models, health={}, metrics=hang) as url:
        answer = await look(probe, url)
        assert answer.seen.models == (Model("m"),)
        assert answer.load is None


async def test_a_loading_engine_fails_with_its_own_words(probe: Probe) -> None:
    async with FakeEngine(flavour=Flavour.LLAMA_CPP) as engine:
        engine.faults.add(Fault(FaultKind.UNHEALTHY, times=None))
        failed = await failure(probe, engine.url)
        assert failed.outcome is Outcome.LOADING
        assert "503 (Loading model)" in failed.reason


async def test_nobody_listening_is_told_from_a_wrong_host(probe: Probe) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refused = await failure(probe, f"http://127.0.0.1:{free.getsockname()[1]}")
    assert refused.outcome is Outcome.REFUSED
    assert refused.reason.startswith("Nothing listens at 127.0.0.1:")
    unknown = await failure(probe, "http://no-such-host.invalid")
    assert unknown.outcome is Outcome.UNREACHABLE
    assert "no-such-host.invalid" in unknown.reason


async def test_a_hung_engine_fails_in_time_and_delays_nobody_else(probe: Probe) -> None:
    async with FakeEngine() as hung, FakeEngine() as well:
        hung.faults.add(Fault(FaultKind.SLOW_HEADERS, on="/v1/models", seconds=30, times=None))
        loop = asyncio.get_running_loop()
        began = loop.time()
        looking = [asyncio.create_task(probe.look(Target(hung.url, None))) for _ in range(20)]
        await look(probe, well.url)
        assert loop.time() - began < 10
        answers = await asyncio.gather(*looking)
        assert loop.time() - began < 10
        assert {a.outcome for a in answers if isinstance(a, Failed)} == {Outcome.TIMEOUT}
        assert all("did not answer within 1 s" in a.reason for a in answers if isinstance(a, Failed))


async def test_an_engine_that_cuts_the_connection_is_unreachable(probe: Probe) -> None:
    async with FakeEngine() as engine:
        engine.faults.add(Fault(FaultKind.CLOSE_BEFORE_HEADERS, on="/", times=None, reset=True))
        assert (await failure(probe, engine.url)).outcome is Outcome.UNREACHABLE


async def test_the_credential_is_sent_and_never_told(probe: Probe) -> None:
    async with FakeEngine(flavour=Flavour.VLLM, api_key="engine-secret") as engine:
        assert (await look(probe, engine.url, bearer="engine-secret")).seen.kind is EngineKind.VLLM
        failed = await failure(probe, engine.url, bearer="wrong-secret")
        assert failed.outcome is Outcome.CREDENTIAL
        assert "wrong-secret" not in failed.reason + repr(Target(engine.url, None, "wrong-secret"))


async def test_a_redirect_is_not_followed_with_the_credential(probe: Probe) -> None:
    seen: list[str | None] = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append(request.headers.get("authorization"))
        return web.json_response({"data": []})

    async with pages(v1_models=elsewhere) as other:

        async def redirect(request: web.Request) -> web.Response:
            raise web.HTTPFound(f"{other}/v1/models")

        async with pages(v1_models=redirect) as url:
            failed = await failure(probe, url, EngineKind.OPENAI, "secret")
            assert f"sends to {other}/v1/models; register that address" in failed.reason
            assert seen == []


async def test_an_answer_without_end_is_cut_off(probe: Probe) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(MAX_BODY_BYTES // 65536 + 2):
            await response.write(b" " * 65536)
        return response

    async with pages(v1_models=endless) as url:
        failed = await failure(probe, url, EngineKind.OPENAI)
        assert failed.outcome in (Outcome.BAD_ANSWER, Outcome.TIMEOUT)


async def test_a_web_page_is_no_engine(probe: Probe) -> None:
    async with pages(v1_models="<html>please log in</html>") as url:
        failed = await failure(probe, url)
        assert failed.outcome is Outcome.BAD_ANSWER
        assert "not an engine of this kind: its answer is not JSON" in failed.reason
    async with pages() as url:
        assert "has no /v1/models and is not Ollama" in (await failure(probe, url)).reason


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\xff\xfe\r\nContent-Length: 0\r\n\r\n",
        b'HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\n{"error": "a\\u0000b"}',
    ],
)
async def test_what_neither_the_wire_nor_postgres_takes_is_in_no_reason(probe: Probe, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        failed = await failure(probe, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert "\N{REPLACEMENT CHARACTER}" in failed.reason
    assert failed.reason.isprintable()
