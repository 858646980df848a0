"""How busy engines are, over real connections: how often they are asked, and what bad answers cost."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from forebay.clock import ManualClock
from forebay.metrics import Number
from forebay_registry.backend import EngineKind, Load, Rates
from forebay_registry.engines.probe import Answered, Probe, Target
from forebay_registry.engines.telemetry import Scraped, ScrapeRhythm, Telemetry
from tests.registry.engines import engine_pages

VLLM_MODELS = {"data": [{"id": "llama", "owned_by": "vllm", "max_model_len": 4096}]}
SGLANG_MODELS = {"data": [{"id": "m", "owned_by": "sglang", "max_model_len": 4096}]}


@dataclass
class Engine:
    """Answers with these pages, by path, and remembers what was asked for."""

    url: str = ""
    pages: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def times(self, path: str) -> int:
        return sum(asked == path for asked in self.asked)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        page = self.pages.get(request.path_qs)
        if page is None:
            raise web.HTTPNotFound
        if callable(page):
            made: web.StreamResponse = await page(request)
            return made
        return web.Response(body=page) if isinstance(page, bytes) else web.json_response(page)


@asynccontextmanager
async def engine_with(**pages: Any) -> AsyncIterator[Engine]:
    """By path, with `_` for its slashes."""
    engine = Engine(pages={"/" + name.replace("_", "/"): page for name, page in pages.items()})
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    engine.url = f"http://127.0.0.1:{site.port}"
    try:
        yield engine
    finally:
        await runner.cleanup()


class Watching:
    """A probe whose time the test moves."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.clock = ManualClock(1000.0)
        self.outcomes = {outcome: Number() for outcome in Scraped}
        rhythm = ScrapeRhythm(every_s=15.0, per_s=0.01, timeout_s=0.5)
        telemetry = Telemetry(self.clock, rhythm, outcomes=self.outcomes, jitter=lambda: 0.5)
        self._probe = Probe(session, self.clock, timeout_s=2.0, telemetry=telemetry)

    async def look(self, engine: Engine, kind: EngineKind, after_s: float = 0.0) -> Answered:
        self.clock.advance(after_s)
        answer = await self._probe.look(Target(engine.url, kind))
        assert isinstance(answer, Answered), answer
        return answer

    async def fail(self, engine: Engine, kind: EngineKind) -> None:
        assert not isinstance(await self._probe.look(Target(engine.url, kind)), Answered)

    def ended(self) -> dict[Scraped, float]:
        return {outcome: number.value for outcome, number in self.outcomes.items() if number.value}


@pytest.fixture
def watching(session: aiohttp.ClientSession) -> Watching:
    return Watching(session)


async def test_gauges_are_read_every_fifteen_seconds_and_the_list_of_models_at_every_look(watching: Watching) -> None:
    async with engine_with(v1_models=VLLM_MODELS, health={}, metrics=engine_pages.VLLM_REPLICAS) as engine:
        engine.pages["/version"] = {"version": "0.32.0"}
        first = await watching.look(engine, EngineKind.VLLM)
        assert first.load == Load(3, 5, 0.5, 1000.0, running_loras=("law", "sql"))
        assert (first.seen.kv_tokens, first.seen.version, first.seen.slots) == (18_000, "0.32.0", None)
        between = [await watching.look(engine, EngineKind.VLLM, after_s=2.0) for _ in range(7)]
        assert {answer.load for answer in between} == {None}
        assert {answer.seen for answer in between} == {first.seen}, "what it was started with stays known"
        assert (await watching.look(engine, EngineKind.VLLM, after_s=2.0)).load is not None
        assert (engine.times("/v1/models"), engine.times("/metrics"), engine.times("/version")) == (9, 2, 1)


def test_few_engines_are_read_at_every_look_and_many_as_often_as_is_said() -> None:
    rhythm = ScrapeRhythm()
    assert rhythm.interval_s(1) < 1.0
    assert rhythm.interval_s(20) == 2.0
    assert rhythm.interval_s(1000) == 15.0


async def test_rates_are_those_since_the_scrape_before_and_none_after_a_restart(watching: Watching) -> None:
    async with engine_with(v1_models=VLLM_MODELS, metrics=engine_pages.VLLM_REPLICAS) as engine:
        await watching.look(engine, EngineKind.VLLM)
        later = engine_pages.VLLM_REPLICAS
        for was, now in ((b'hits_total{engine="0"} 100', b'hits_total{engine="0"} 700'), (b"} 600.0", b"} 1600.0")):
            later = later.replace(was, now)
        engine.pages["/metrics"] = later
        answer = await watching.look(engine, EngineKind.VLLM, after_s=20.0)
        assert answer.load is not None
        assert answer.load.rates == Rates(20.0, 50.0, 0.0, 0.6, 0.0)
        engine.pages["/metrics"] = engine_pages.VLLM_REPLICAS
        answer = await watching.look(engine, EngineKind.VLLM, after_s=20.0)
        assert answer.load is not None
        assert (answer.load.running, answer.load.rates) == (3, None)
        assert engine.times("/version") == 2, "after a restart it may be another version"


async def test_an_engine_that_returns_is_read_at_once(watching: Watching) -> None:
    async with engine_with(v1_models=VLLM_MODELS, metrics=engine_pages.VLLM_V0) as engine:
        await watching.look(engine, EngineKind.VLLM)
        engine.pages["/v1/models"] = b"<html>"
        await watching.fail(engine, EngineKind.VLLM)
        engine.pages["/v1/models"] = VLLM_MODELS
        answer = await watching.look(engine, EngineKind.VLLM, after_s=1.0)
        assert answer.load is not None
        assert (answer.load.running, engine.times("/metrics"), engine.times("/version")) == (3, 2, 2)


async def test_after_a_restart_nothing_is_believed_of_the_engine_before(watching: Watching) -> None:
    async with engine_with(v1_models=SGLANG_MODELS, metrics=engine_pages.SGLANG) as engine:
        engine.pages["/server_info"] = engine_pages.SGLANG_INFO
        assert (await watching.look(engine, EngineKind.SGLANG)).seen.slots == 256
        del engine.pages["/server_info"]
        engine.pages["/metrics"] = b"sglang:num_running_reqs 0\nsglang:prompt_tokens_total 1\n"
        answer = await watching.look(engine, EngineKind.SGLANG, after_s=16.0)
        assert (answer.seen.slots, answer.seen.kv_tokens) == (None, None)


async def test_a_cache_in_which_the_longest_text_does_not_fit_is_not_believed(watching: Watching) -> None:
    config = b'vllm:cache_config_info{block_size="16",num_gpu_blocks="1"} 1\nvllm:num_requests_running 0\n'
    async with engine_with(v1_models=VLLM_MODELS, metrics=config) as engine:
        assert (await watching.look(engine, EngineKind.VLLM)).seen.kv_tokens is None


async def test_sglang_tells_its_slots_and_keeps_its_key_to_itself(
    watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine_with(v1_models=SGLANG_MODELS, metrics=engine_pages.SGLANG) as engine:
        engine.pages["/get_server_info"] = engine_pages.SGLANG_INFO
        with caplog.at_level(logging.DEBUG):
            answer = await watching.look(engine, EngineKind.SGLANG)
        assert (answer.seen.slots, answer.seen.kv_tokens, answer.seen.version) == (256, 100_000, "0.5.18")
        assert "never-to-be-kept" not in caplog.text + repr(answer)
        del engine.pages["/metrics"]
        again = await watching.look(engine, EngineKind.SGLANG, after_s=16.0)
        assert (again.load, again.seen.kv_tokens) == (None, 100_000)


async def test_each_of_ollamas_models_is_asked_about_once(watching: Watching) -> None:
    tags = [{"name": f"m{n}:latest", "digest": f"d{n}"} for n in range(10)]
    shown = {"model_info": {"general.architecture": "llama", "llama.context_length": 131072}, "capabilities": ["tools"]}
    async with engine_with(api_tags={"models": tags}, api_ps={"models": []}, api_show=shown) as engine:
        engine.pages["/api/version"] = {"version": "0.33.0"}
        first = await watching.look(engine, EngineKind.OLLAMA)
        assert (first.load, first.seen.version, engine.times("/api/show")) == (None, "0.33.0", 8)
        known = {(model.trained_context_length, model.capabilities) for model in first.seen.models}
        assert known == {(131072, ("tools",)), (None, ())}
        for _ in range(3):
            last = await watching.look(engine, EngineKind.OLLAMA, after_s=16.0)
        assert engine.times("/api/show") == 10
        assert {model.trained_context_length for model in last.seen.models} == {131072}
        tags[0]["digest"] = "changed"
        await watching.look(engine, EngineKind.OLLAMA, after_s=16.0)
        assert engine.times("/api/show") == 11


async def test_of_a_router_the_models_that_run_are_asked_and_none_is_loaded_for_it(watching: Watching) -> None:
    async with engine_with(v1_models=engine_pages.ROUTER_MODELS, props=engine_pages.ROUTER_PROPS, health={}) as engine:
        engine.pages["/metrics?model=small&autoload=false"] = engine_pages.LLAMACPP
        engine.pages["/props?model=small&autoload=false"] = {"total_slots": 4}
        answer = await watching.look(engine, EngineKind.LLAMACPP)
        assert answer.load == Load(1, 2, None, 1000.0)
        assert (answer.seen.slots, answer.seen.models_at_once, answer.seen.version) == (None, 4, "b9999-7e4c0a9")
        assert {model.name: model.slots for model in answer.seen.models} == {"small": 4, "large": None, "naps": None}
        assert {path for path in engine.asked if "model=" in path} == {
            "/metrics?model=small&autoload=false",
            "/props?model=small&autoload=false",
        }


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"vllm:num_requests_running 1\n" * 2000)


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def elsewhere(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/v1/models")


async def broken(request: web.Request) -> web.StreamResponse:
    raise web.HTTPInternalServerError(text=json.dumps({"error": "out of memory"}))


async def cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    ("page", "ended", "why"),
    [
        (b"<html>please log in</html>", Scraped.UNTOLD, None),
        (b"vllm:num_requests_running NaN\n", Scraped.UNTOLD, None),
        (elsewhere, Scraped.REFUSED, "sends to /v1/models"),
        (broken, Scraped.REFUSED, "answers /metrics with 500 (out of memory)"),
        (hang, Scraped.TIMEOUT, "did not come within 0.5 s"),
        (cut, Scraped.UNREACHABLE, ""),
    ],
)
async def test_a_bad_page_costs_the_load_and_says_why_once(
    watching: Watching, caplog: pytest.LogCaptureFixture, page: Any, ended: Scraped, why: str | None
) -> None:
    async with engine_with(v1_models=VLLM_MODELS, health={}, metrics=page) as engine:
        with caplog.at_level(logging.INFO, logger="forebay_registry.engines.telemetry"):
            answers = [await watching.look(engine, EngineKind.VLLM, after_s=16.0) for _ in range(2)]
        assert [answer.load for answer in answers] == [None, None]
        assert answers[0].seen.models[0].name == "llama", "it serves all the same"
        assert watching.ended() == {ended: 2}
        told = [record.__dict__["why"] for record in caplog.records if record.message.endswith("cannot be read")]
        assert len(told) == (0 if why is None else 1)
        assert all((why or "") in text for text in told)
        engine.pages["/metrics"] = engine_pages.VLLM_V0
        assert (await watching.look(engine, EngineKind.VLLM, after_s=16.0)).load is not None


async def test_a_page_without_end_is_cut_off(watching: Watching) -> None:
    async with engine_with(v1_models=VLLM_MODELS, health={}, metrics=endless) as engine:
        answer = await watching.look(engine, EngineKind.VLLM)
        assert answer.load is None
        assert sum(watching.ended().get(bad, 0) for bad in (Scraped.BAD_ANSWER, Scraped.TIMEOUT)) == 1


async def test_nonsense_about_how_it_was_started_is_left_out(watching: Watching) -> None:
    async with engine_with(v1_models=SGLANG_MODELS, metrics=engine_pages.SGLANG) as engine:
        engine.pages["/server_info"] = b"[1, 2"
        answer = await watching.look(engine, EngineKind.SGLANG)
        assert answer.load is not None
        assert (answer.seen.slots, answer.seen.version) == (None, "")
        engine.pages["/server_info"] = {"version": "\x1b[31m", "max_running_requests": -5, "internal_states": [7, {}]}
        answer = await watching.look(engine, EngineKind.SGLANG, after_s=16.0)
        assert (answer.seen.slots, answer.seen.version) == (None, "")
