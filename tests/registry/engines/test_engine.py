"""The real llama.cpp, looked at as the registry does."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from forebay.clock import SystemClock
from forebay.local.demo_engine import DEMO_NAME, open_demo_engine
from forebay_registry.backend import EngineKind
from forebay_registry.engines.outcome import Outcome
from forebay_registry.engines.probe import Answered, Failed, Probe, Target
from forebay_registry.engines.telemetry import ScrapeRhythm, Telemetry

NO_HUB = "http://127.0.0.1:9"


@pytest.fixture
async def place() -> AsyncIterator[Path]:
    place = Path(tempfile.mkdtemp())
    yield place
    shutil.rmtree(place)


@pytest.mark.engine
async def test_the_real_llamacpp_tells_slots_context_and_who_runs(session: aiohttp.ClientSession, place: Path) -> None:
    clock = SystemClock()
    probe = Probe(session, clock, timeout_s=5.0, telemetry=Telemetry(clock, ScrapeRhythm(every_s=0.0, timeout_s=5.0)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = place / "engine.log"
    async with open_demo_engine(place / "model", port=port, log=log, slots=2, hub=NO_HUB) as engine:
        answer = await probe.look(Target(engine.url, None))
        assert isinstance(answer, Answered), answer
        assert (answer.seen.kind, answer.seen.slots) == (EngineKind.LLAMACPP, 2)
        assert {model.name for model in answer.seen.models} == {engine.model, DEMO_NAME}
        for model in answer.seen.models:
            assert model.context_length == 4096
            assert {"chat", "completion"} <= set(model.capabilities)
            assert (model.trained_context_length, model.quantization) == (32768, "Q4_K - Medium")
            assert model.size_bytes is not None
            assert model.size_bytes > 100_000_000
        assert answer.load is not None
        assert (answer.load.running, answer.load.waiting) == (0, 0)

        chat = {
            "model": engine.model,
            "messages": [{"role": "user", "content": "Tell a long story."}],
            "stream": True,
            "max_tokens": 400,
            "stop": ["<never>"],
        }
        async with session.post(f"{engine.url}/v1/chat/completions", json=chat) as response:
            await response.content.readany()
            busy = await probe.look(Target(engine.url, EngineKind.LLAMACPP))
            assert isinstance(busy, Answered)
            assert busy.load is not None
            assert busy.load.running == 1

        async with asyncio.timeout(10):
            while True:
                idle = await probe.look(Target(engine.url, None), EngineKind.LLAMACPP)
                if isinstance(idle, Answered) and idle.load is not None and idle.load.running == 0:
                    break
        assert idle.load.rates is not None
        assert idle.load.rates.completion_tokens_per_s is not None, "it counts what it writes"

        await engine.server.stop()
        gone = await probe.look(Target(engine.url, None))
        assert isinstance(gone, Failed)
        assert gone.outcome is Outcome.REFUSED
