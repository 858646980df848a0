"""SGLang behind a gateway: where its wire differs from the others'."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from forebay.wire.v1 import types_pb2
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, House, ask, open_house
from tests.gateway.sse_text import events


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(slots=4, flavour=Flavour.SGLANG, pace=Pace(tokens_per_s=4000.0, ttft_s=0.0, answer_tokens=4))


@pytest.fixture
async def house(tmp_path: Path, engine: FakeEngine) -> AsyncIterator[House]:
    async with open_house(tmp_path, engine) as house:
        await house.put("b1", engine.url, kind=types_pb2.ENGINE_KIND_SGLANG, slots=4)
        yield house


async def post(house: House, path: str, **body: Any) -> tuple[int, Any]:
    async with house.client.post(house.url + path, json={"model": MODEL, **body}, headers=house.headers) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_a_ranking_that_is_a_bare_list_is_told_as_everywhere(house: House, path: str) -> None:
    documents = ["nothing here", {"text": "A river and a boat"}, "the river"]
    status, told = await post(house, path, query="river boat", documents=documents, top_n=2)
    assert status == 200, told
    assert [(result["index"], result["relevance_score"]) for result in told["results"]] == [(1, 1.0), (2, 0.5)]


async def test_an_error_without_an_envelope_keeps_its_words(house: House) -> None:
    status, told = await post(house, "/v1/completions", prompt="word " * 5000)
    assert (status, told["error"]["code"]) == (400, "context_length_exceeded")
    assert "longer than the model's context length (4096 tokens)" in told["error"]["message"]
    status, told = await post(house, "/v1/completions", prompt="a", max_tokens=0)
    assert status == 400
    assert "max_tokens must be at least 1, got 0." in told["error"]["message"]


async def test_a_stop_string_that_it_calls_matched_reaches_anthropics_clients(house: House) -> None:
    body = {"max_tokens": 50, "messages": [{"role": "user", "content": "repeat: one STOP two"}]}
    status, told = await post(house, "/v1/messages", **body, stop_sequences=["STOP"])
    assert (status, told["stop_reason"], told["stop_sequence"]) == (200, "stop_sequence", "STOP")


async def test_an_error_in_a_stream_ends_it_as_an_error(house: House, engine: FakeEngine) -> None:
    engine.faults.add(Fault(FaultKind.ERROR_EVENT_AFTER, chunks=2))
    async with house.post(ask(stream=True)) as answer:
        told = events(await answer.text())
    assert "error" in told[-1]
    assert told[-1] != "[DONE]"


async def test_tokens_of_a_chat_are_counted_by_the_engine(house: House) -> None:
    status, told = await post(house, "/v1/tokenize", messages=[{"role": "user", "content": "one two three"}])
    assert (status, told["is_estimate"], told["count"]) == (200, False, 6)
