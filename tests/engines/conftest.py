"""Real engines of other kinds, each a program of an environment of its own, and gateways in front of them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import ollama
import pytest
from openai import AsyncOpenAI

from forebay.wire.v1 import types_pb2
from tests.conftest import free_port
from tests.engines.program import python_of, running
from tests.gateway.house import MODEL, House, open_house

HERE = Path(__file__).parent
VOICE, EAR = "joe", "tiny.en"


@pytest.fixture(scope="session")
def speech_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL: Piper as `joe`, Whisper as `tiny.en`."""
    url = f"http://127.0.0.1:{free_port()}"
    command: list[str | Path] = [python_of("speech"), HERE / "speech_server.py", "--port", url.rpartition(":")[2]]
    with running(command, f"{url}/v1/models", tmp_path_factory.mktemp("speech") / "log"):
        yield url


@pytest.fixture(scope="session")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of llama.cpp with all-MiniLM-L6-v2, named MODEL."""
    directory = tmp_path_factory.mktemp("sentence_model")
    weights, url = directory / "minilm.gguf", f"http://127.0.0.1:{free_port()}"
    subprocess.run([python_of("speech"), HERE / "minilm_gguf.py", weights], check=True, timeout=60)
    command: list[str | Path] = [
        sys.executable, "-m", "forebay.local.llama_server", "-m", weights, "--port", url.rpartition(":")[2], "-np", "2",
        "-c", "1024", "--alias", MODEL, "--embeddings",
    ]  # fmt: skip
    try:
        with running(command, f"{url}/health", directory / "log"):
            yield url
    finally:
        weights.unlink()


@pytest.fixture
async def speaking_house(speech_server: str, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as house:
        await put_engine(house, speech_server, types_pb2.ENGINE_KIND_OPENAI, 2, models=(VOICE, EAR))
        yield house


@pytest.fixture
async def embedding_house(sentence_model: str, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as house:
        await put_engine(house, sentence_model, types_pb2.ENGINE_KIND_LLAMACPP, 2)
        yield house


async def put_engine(
    house: House, url: str, kind: types_pb2.EngineKind.ValueType, slots: int, models: tuple[str, ...] = (MODEL,)
) -> None:
    """When this returns, the gateway has heard of it."""
    house.registry.put("b1", url, kind=kind, models=models, slots=slots)
    house.scheduler.slots["b1"] = slots
    async with asyncio.timeout(10):
        while True:
            async with house.client.get(f"{house.url}/v1/models/{models[0]}", headers=house.headers) as answer:
                if answer.status == 200:
                    return


def openai_of(house: House) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0)


def ollama_of(house: House) -> ollama.AsyncClient:
    return ollama.AsyncClient(host=house.url, headers=house.headers)
