"""A client that goes frees its slot at once, whatever its request was doing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from forebay.wire.v1 import types_pb2
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import OUTCOME, ask, eventually, open_house
from tests.gateway.leaving import EMBEDDINGS, OTHERS, connect, go

SOON_S = 10.0
"""What is promised is 0.1 s, as `make targets-foundation` measures it; this is room for a machine that does other things,
and less than an answer lasts that nobody ends."""
LONG = {"max_tokens": 2000, "ignore_eos": True}


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("flavour", [Flavour.VLLM, Flavour.LLAMA_CPP])
async def test_a_running_request_ends_when_its_client_goes(
    tmp_path: Path, flavour: Flavour, streamed: bool, how: str
) -> None:
    engine = FakeEngine(flavour=flavour, pace=Pace(tokens_per_s=50, answer_tokens=2000))
    async with open_house(tmp_path, engine) as house:
        _, writer = await connect(house, ask(stream=streamed, **LONG))
        await eventually(lambda: engine.record.requests and engine.record.requests[0].tokens_made >= 5)
        began = time.monotonic()
        go(writer, how)
        await eventually(lambda: engine.slots.running == 0, "the engine went on")
        assert time.monotonic() - began < SOON_S
        await eventually(lambda: not house.scheduler.held, "the slot was not given back")
        assert time.monotonic() - began < SOON_S
        writer.close()
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_CANCELLED"
        if streamed or flavour is Flavour.LLAMA_CPP:
            assert row.usage.completion_tokens >= 4
            assert row.usage.source == types_pb2.USAGE_SOURCE_COUNTED
        assert row.usage.prompt_tokens > 0
        assert [OUTCOME(s.outcome) for s in house.scheduler.settles] == ["OUTCOME_CANCELLED"]


@pytest.mark.parametrize("path", OTHERS)
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("flavour", [Flavour.LLAMA_CPP, Flavour.OLLAMA])
async def test_in_every_dialect_a_running_request_ends_when_its_client_goes(
    tmp_path: Path, flavour: Flavour, streamed: bool, path: str
) -> None:
    engine = FakeEngine(flavour=flavour, pace=Pace(tokens_per_s=50.0, answer_tokens=2000))
    async with open_house(tmp_path, engine) as house:
        if flavour is Flavour.OLLAMA:
            await house.put("b1", engine.url, kind=types_pb2.ENGINE_KIND_OLLAMA)
        _, writer = await connect(house, {"model": ask()["model"], "stream": streamed, **OTHERS[path]}, path)
        await eventually(lambda: engine.record.requests and engine.record.requests[0].tokens_made >= 5)
        began = time.monotonic()
        go(writer, "close")
        await eventually(lambda: engine.slots.running == 0, "the engine went on")
        await eventually(lambda: not house.scheduler.held, "the slot was not given back")
        assert time.monotonic() - began < SOON_S
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.route) == ("OUTCOME_CANCELLED", path)


@pytest.mark.parametrize("path", EMBEDDINGS)
async def test_embeddings_too_end_when_their_client_goes(tmp_path: Path, path: str) -> None:
    engine = FakeEngine(flavour=Flavour.VLLM, pace=Pace(ttft_s=30))
    async with open_house(tmp_path, engine) as house:
        _, writer = await connect(house, {"model": ask()["model"], **EMBEDDINGS[path]}, path)
        await eventually(lambda: engine.slots.running == 1)
        began = time.monotonic()
        go(writer, "close")
        await eventually(lambda: engine.slots.running == 0, "the engine went on")
        await eventually(lambda: not house.scheduler.held, "the slot was not given back")
        assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize("path", [*OTHERS, *EMBEDDINGS])
async def test_in_every_dialect_a_queued_request_leaves_the_queue(tmp_path: Path, path: str) -> None:
    engine = FakeEngine()
    async with open_house(tmp_path, engine) as house:
        house.scheduler.slots["b1"] = 0
        body = {"model": ask()["model"], **{**OTHERS, **EMBEDDINGS}[path]}
        _, writer = await connect(house, body, path)
        await eventually(lambda: house.scheduler.queue)
        began = time.monotonic()
        go(writer, "close")
        await eventually(lambda: not house.scheduler.queue, "it is still queued")
        assert time.monotonic() - began < SOON_S
        assert not engine.record.requests


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_a_queued_request_leaves_the_queue_when_its_client_goes(tmp_path: Path, streamed: bool) -> None:
    engine = FakeEngine(slots=1)
    async with open_house(tmp_path, engine) as house:
        house.scheduler.slots["b1"] = 0
        _, writer = await connect(house, ask(stream=streamed))
        await eventually(lambda: house.scheduler.queue)
        began = time.monotonic()
        go(writer, "close")
        await eventually(lambda: not house.scheduler.queue, "it is still queued")
        assert time.monotonic() - began < SOON_S
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_CANCELLED"
        assert (row.backend_id, row.http_status, row.usage.completion_tokens) == ("", 0, 0)
        assert not engine.record.requests


async def test_a_request_that_waits_for_the_engines_first_byte_ends_too(tmp_path: Path) -> None:
    engine = FakeEngine(slots=1, pace=Pace(tokens_per_s=10, answer_tokens=500, ttft_s=30))
    async with open_house(tmp_path, engine) as house:
        house.scheduler.slots["b1"] = 2  # so that the second waits inside the engine, without even headers
        _, one = await connect(house, ask(stream=True))
        await eventually(lambda: engine.slots.running == 1)
        _, two = await connect(house, ask(stream=True))
        await eventually(lambda: engine.slots.waiting == 1)
        began = time.monotonic()
        go(two, "close")
        go(one, "close")
        await eventually(lambda: engine.slots.waiting == 0 and engine.slots.running == 0)
        assert time.monotonic() - began < SOON_S
        assert {OUTCOME(row.outcome) for row in await house.rows(2)} == {"OUTCOME_CANCELLED"}


async def test_a_client_that_goes_while_it_sends_has_one_row(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine()) as house:
        host, port = house.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.key}\r\n"
        writer.write(head.encode() + b"content-length: 1000\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.transport.abort()
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_CANCELLED"
        assert row.key_id == house.key.public_id


async def test_the_slot_of_a_cancelled_request_serves_the_next_one(tmp_path: Path) -> None:
    engine = FakeEngine(slots=1, pace=Pace(tokens_per_s=50, answer_tokens=3))
    async with open_house(tmp_path, engine) as house:
        for _ in range(3):
            _, writer = await connect(house, ask(stream=True, **LONG))
            await eventually(lambda: engine.slots.running == 1)
            go(writer, "close")
            await eventually(lambda: not house.scheduler.held)
        async with house.post(ask()) as answer:
            assert (await answer.json())["choices"][0]["message"]["content"] == "word0 word1 word2"
        assert engine.slots.peak_running == 1
