"""One model under one name over engines that call it differently, and the most that a prompt may hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ollama
import pytest

from forebay.wire.v1 import admin_pb2, types_pb2
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import House, ask, open_house
from tests.gateway.sse_text import stream, text_of
from tests.gateway.test_fallbacks import fallback, heard, open_pair

QUICK = Pace(tokens_per_s=2000, answer_tokens=4)
AT_VLLM, AT_OLLAMA = "meta-llama/Llama-3.1-8B-Instruct", "llama3.1:8b"
CHAT = "/v1/chat/completions"
VLLM, OLLAMA = types_pb2.ENGINE_KIND_VLLM, types_pb2.ENGINE_KIND_OLLAMA


@asynccontextmanager
async def open_llamas(directory: Path) -> AsyncIterator[tuple[House, FakeEngine, FakeEngine]]:
    """The model `llama` on `b1`, which is vLLM, and on `b2`, which is Ollama."""
    vllm = FakeEngine(models=(AT_VLLM,), flavour=Flavour.VLLM, pace=QUICK)
    other = FakeEngine(models=(AT_OLLAMA,), flavour=Flavour.OLLAMA, pace=QUICK)
    async with open_house(directory, vllm, other) as house:
        await house.put("b1", vllm.url, models=["llama"], kind=VLLM, engine_names={"llama": AT_VLLM})
        await house.put("b2", other.url, models=["llama"], kind=OLLAMA, engine_names={"llama": AT_OLLAMA})
        async with asyncio.timeout(30):
            while True:
                async with house.client.get(f"{house.url}/v1/models", headers=house.headers) as answer:
                    if [model["id"] for model in (await answer.json())["data"]] == ["llama"]:
                        break
        yield house, vllm, other


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_each_engine_is_asked_in_its_own_words_and_the_client_hears_its_own(
    tmp_path: Path, streamed: bool
) -> None:
    async with open_llamas(tmp_path) as (house, vllm, other):
        vllm.faults.add(Fault(FaultKind.STATUS, status=500))
        for engine, model in ((other, AT_OLLAMA), (vllm, AT_VLLM)):  # the first attempt fails, and the other takes over
            if streamed:
                told = await stream(house, model="llama")
                assert {event["model"] for event in told if event != "[DONE]"} == {"llama"}
                assert "word3" in text_of(told)
            else:
                async with house.post(ask(model="llama")) as answer:
                    assert answer.status == 200
                    assert answer.headers["x-forebay-model"] == "llama"
                    assert (await answer.json())["model"] == "llama"
            assert engine.record.requests[-1].body["model"] == model
        assert {submit.model for submit in house.scheduler.submits} == {"llama"}
        assert {row.model for row in await house.rows(2)} == {"llama"}


async def test_ollamas_client_finds_the_model_under_its_name_in_the_fleet(tmp_path: Path) -> None:
    async with open_llamas(tmp_path) as (house, vllm, other):
        house.scheduler.serves = {"b1": set(), "b2": {"llama"}}
        client = ollama.AsyncClient(host=f"{house.url}/k/{house.key}")
        told = await client.chat("llama", ask()["messages"])
        assert (told.model, other.record.requests[-1].body["model"]) == ("llama", AT_OLLAMA)
        assert [model.model for model in (await client.list()).models] == ["llama"]
        assert (await client.list()).models[0].size, "as Ollama tells it, under the name that the fleet has for it"
        assert [model.model for model in (await client.ps()).models] == ["llama"]
        assert (await client.show("llama")).details is not None
        assert not vllm.record.requests
        await client._client.aclose()


async def test_tokens_are_counted_under_the_engines_name(tmp_path: Path) -> None:
    async with open_llamas(tmp_path) as (house, *_):
        body = {"model": "llama", "prompt": "One two three"}
        async with house.client.post(f"{house.url}/v1/tokenize", json=body, headers=house.headers) as answer:
            assert (await answer.json())["is_estimate"] is False


# --- the most that a prompt may hold ----------------------------------------------------------------------------------


def capped(tokens: int, **scope: Any) -> admin_pb2.ModelRule:
    return admin_pb2.ModelRule(
        scope=admin_pb2.ModelRuleScope(**(scope or {"everyone": True})), max_context_tokens=tokens
    )


def paths(engine: FakeEngine) -> list[str]:
    return [seen.path for seen in engine.record.requests]


def words(count: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": "word " * count}]


async def test_a_prompt_above_the_cap_is_refused_as_the_engine_counts_it(tmp_path: Path) -> None:
    big = FakeEngine(models=("big",), flavour=Flavour.VLLM, pace=QUICK)
    async with open_pair(tmp_path, big=big) as (house, *_):
        await heard(house, rules=[capped(100)])
        for count, status in ((20, 200), (90, 200), (101, 400), (1000, 400)):
            async with house.post(ask(model="big", messages=words(count))) as answer:
                assert answer.status == status, (count, await answer.text())
        async with house.post(ask(model="big", messages=words(1000))) as answer:
            error = (await answer.json())["error"]
        assert error["code"] == "context_length_exceeded"
        assert "an operator's rule or the API key allows 100 here" in error["message"]
        assert (paths(big).count(CHAT), paths(big).count("/tokenize")) == (2, 4), "a short one is not even counted"


async def test_an_estimate_refuses_nothing(tmp_path: Path) -> None:
    big = FakeEngine(models=("big",), pace=QUICK)
    async with open_pair(tmp_path, big=big) as (house, *_):
        await house.put("b1", big.url, models=["big"], kind=types_pb2.ENGINE_KIND_OPENAI)
        await heard(house, rules=[capped(100)])
        async with house.post(ask(model="big", messages=words(1000))) as answer:
            assert answer.status == 200


async def test_the_cap_is_shown_to_the_keys_that_are_under_it(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (house, *_):
        free = house.admin.add_key()
        await heard(house, rules=[capped(100, model="big"), capped(5000, key_id=house.key.public_id)])

        async def lengths(key: Any) -> dict[str, int]:
            headers = {"authorization": f"Bearer {key}"}
            async with house.client.get(f"{house.url}/v1/models", headers=headers) as answer:
                models = (await answer.json())["data"]
                return {model["id"]: model["context_length"] for model in models if "alias_of" not in model}

        assert await lengths(house.key) == {"big": 4096, "small": 4096}, "a key's own goes over a model's"
        assert await lengths(free) == {"big": 100, "small": 4096}


async def test_a_prompt_above_one_models_cap_goes_to_one_that_takes_it(tmp_path: Path) -> None:
    big = FakeEngine(models=("big",), flavour=Flavour.VLLM, pace=QUICK)
    async with open_pair(tmp_path, big=big) as (house, _, small):
        await heard(house, fallback(), rules=[capped(100, model="big")])
        async with house.post(ask(model="big", messages=words(1000))) as answer:
            assert (answer.status, answer.headers["x-forebay-model"]) == (200, "small")
        assert CHAT not in paths(big)
        assert paths(small) == [CHAT]
        assert [submit.model for submit in house.scheduler.submits] == ["small"]
        (row,) = await house.rows(1)
        assert (row.model_requested, row.model) == ("big", "small")


async def test_ollamas_clients_get_no_more_context_than_the_cap(tmp_path: Path) -> None:
    async with open_llamas(tmp_path) as (house, _, other):
        house.scheduler.serves = {"b1": set(), "b2": {"llama"}}
        house.admin.rule([capped(64)])
        await asyncio.sleep(0.2)
        client = ollama.AsyncClient(host=f"{house.url}/k/{house.key}")
        await client.chat("llama", ask()["messages"], options={"num_ctx": 9000})
        assert other.record.requests[-1].body["options"]["num_ctx"] == 64
        await client._client.aclose()
