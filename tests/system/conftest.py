"""Installations that the system tests share: one with the real llama.cpp and two gateways, and one before a fake engine.

They end with the last of these tests, not with the run: nine idle processes each cost all tests that come after them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.system.installation import Installation, start_up

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="package")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Everything real: `forebay up` with llama.cpp (2 slots) and two gateways."""
    data_dir = tmp_path_factory.mktemp("real") / "data"
    running = start_up(data_dir, "--gateways", "2", "--engine-slots", "2")
    yield running
    running.stop()


class FakeEngineProcess:
    """The fake engine in a process of its own, steered through its control URL."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.engine", "--port", "0", *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url: str = json.loads(self._process.stdout.readline())["url"]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def fake_engine() -> Iterator[FakeEngineProcess]:
    """Four slots, a token each 50 ms."""
    engine = FakeEngineProcess("--slots", "4", "--tokens-per-s", "20")
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def before_fake(fake_engine: FakeEngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """`forebay up` with two gateways before the fake engine, which it knows from its settings file."""
    directory = tmp_path_factory.mktemp("fake")
    settings = directory / "forebay.toml"
    settings.write_text(
        f'[[registry.backends]]\nname = "fake"\nurl = "{fake_engine.url}"\nkind = "openai"\nslots = 4\n'
    )
    running = start_up(directory / "data", "--gateways", "2", "--no-engine", "--config", str(settings))
    yield running
    running.stop()


@pytest.fixture(scope="package")
def own_engine() -> Iterator[FakeEngineProcess]:
    """Four slots, a token each 50 ms, and nobody else's."""
    engine = FakeEngineProcess("--slots", "4", "--tokens-per-s", "20")
    yield engine
    engine.stop()


@pytest.fixture(scope="package")
def with_standby(own_engine: FakeEngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """`forebay up` with two schedulers and two gateways before a fake engine, `fake`."""
    directory = tmp_path_factory.mktemp("standby")
    settings = directory / "forebay.toml"
    settings.write_text(f'[[registry.backends]]\nname = "fake"\nurl = "{own_engine.url}"\nkind = "openai"\nslots = 4\n')
    running = start_up(
        directory / "data", "--gateways", "2", "--schedulers", "2", "--no-engine", "--config", str(settings)
    )
    yield running
    running.stop()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=100), connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        yield session


@pytest.fixture
async def seen(client: aiohttp.ClientSession, fake_engine: FakeEngineProcess) -> Any:
    """Asks the fake engine what it saw."""

    async def ask() -> Any:
        async with client.get(f"{fake_engine.url}/control/seen") as answer:
            return await answer.json()

    return ask
