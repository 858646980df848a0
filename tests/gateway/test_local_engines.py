"""Engines of one's own, asked in OpenAI's words: each hears what the client meant, or it is said what it cannot do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from forebay.wire.v1 import admin_pb2, types_pb2
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import House, ask, open_house

QUICK = Pace(tokens_per_s=1000, ttft_s=0.001, answer_tokens=30)
THINKER = "fake-thinker"
KINDS = {
    Flavour.OLLAMA: types_pb2.ENGINE_KIND_OLLAMA,
    Flavour.VLLM: types_pb2.ENGINE_KIND_VLLM,
    Flavour.LLAMA_CPP: types_pb2.ENGINE_KIND_LLAMACPP,
}
LOCAL = pytest.mark.parametrize("flavour", KINDS)
STREAMED = pytest.mark.parametrize("stream", [False, True])


@asynccontextmanager
async def open_local(
    directory: Path, *flavours: Flavour, model: str = "fake-model"
) -> AsyncIterator[tuple[House, list[FakeEngine]]]:
    engines = [FakeEngine(flavour=flavour, models=(model,), pace=QUICK) for flavour in flavours]
    directory.mkdir(exist_ok=True)
    async with open_house(directory, *engines) as house:
        for number, (flavour, engine) in enumerate(zip(flavours, engines, strict=True), 1):
            await house.put(f"b{number}", engine.url, kind=KINDS[flavour], models=[model, f"sign{number}"])
            await known(house, f"sign{number}")
        yield house, engines


async def known(house: House, name: str) -> None:
    while True:
        async with house.client.get(f"{house.url}/v1/models/{name}", headers=house.headers) as answer:
            if answer.status == 200:
                return


async def ruled(house: House, **rule: Any) -> None:
    """And the gateway has heard it."""
    rules = [admin_pb2.ModelRule(scope=admin_pb2.ModelRuleScope(everyone=True), **rule)]
    house.admin.rule(rules, [admin_pb2.ModelAlias(alias="sign", model="fake-model", pool="default")])
    await known(house, "sign")


def openai_client(house: House) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0)


def anthropic_client(house: House) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=house.url, api_key=str(house.key), max_retries=0)


async def post(house: House, path: str, body: Any) -> tuple[int, Any]:
    async with house.client.post(f"{house.url}{path}", json=body, headers=house.headers) as answer:
        return answer.status, await answer.json()


def thought_in(said: Any) -> tuple[str, str]:
    """Under both names."""
    extra = said.model_extra or {}
    return extra.get("reasoning_content") or "", extra.get("reasoning") or ""


@LOCAL
@STREAMED
async def test_the_newer_name_of_the_limit_is_kept_to_everywhere(
    tmp_path: Path, flavour: Flavour, stream: bool
) -> None:
    async with open_local(tmp_path, flavour) as (house, _), openai_client(house) as client:
        messages: Any = ask()["messages"]
        if stream:
            chunks = await client.chat.completions.create(
                model="fake-model", messages=messages, max_completion_tokens=3, stream=True
            )
            reasons = [choice.finish_reason async for chunk in chunks for choice in chunk.choices]
        else:
            told = await client.chat.completions.create(model="fake-model", messages=messages, max_completion_tokens=3)
            reasons = [told.choices[0].finish_reason]
        assert reasons[-1] == "length"
        (row,) = await house.rows(1)
        assert row.usage.completion_tokens == 3


async def test_an_operators_cap_holds_on_ollama_whatever_the_client_calls_its_own(tmp_path: Path) -> None:
    async with open_local(tmp_path, Flavour.OLLAMA) as (house, _):
        await ruled(house, max_output_tokens=4)
        for body in (ask(max_completion_tokens=25), ask(max_tokens=25), ask()):
            status, told = await post(house, "/v1/chat/completions", body)
            assert (status, told["usage"]["completion_tokens"]) == (200, 4)


@LOCAL
async def test_nobody_thinks_who_was_told_not_to_in_any_dialect(tmp_path: Path, flavour: Flavour) -> None:
    async with open_local(tmp_path, flavour, model=THINKER) as (house, engines):
        (engine,) = engines
        _, told = await post(house, "/v1/chat/completions", ask(model=THINKER))
        assert told["choices"][0]["message"]["reasoning"]
        off = {"chat_template_kwargs": {"enable_thinking": False}}
        for fields in (off, {"reasoning_effort": "none"}):
            _, told = await post(house, "/v1/chat/completions", ask(model=THINKER, **fields))
            assert not {"reasoning", "reasoning_content"} & set(told["choices"][0]["message"])
        async with anthropic_client(house) as anthropic:
            said = await anthropic.messages.create(
                model=THINKER,
                max_tokens=50,
                messages=[{"role": "user", "content": "Hi."}],
                thinking={"type": "disabled"},
            )
        assert [block.type for block in said.content] == ["text"]
        async with openai_client(house) as client:
            response = await client.responses.create(
                model=THINKER, input="Hi.", reasoning={"effort": "none"}, store=False
            )
        assert [item.type for item in response.output] == ["message"]
        assert len(engine.record.requests) == 5


@LOCAL
@STREAMED
async def test_thoughts_are_told_by_both_names(tmp_path: Path, flavour: Flavour, stream: bool) -> None:
    async with open_local(tmp_path, flavour, model=THINKER) as (house, _), openai_client(house) as client:
        messages: Any = [{"role": "user", "content": "repeat: yes"}]
        if stream:
            chunks = await client.chat.completions.create(model=THINKER, messages=messages, stream=True)
            told = [thought_in(choice.delta) async for chunk in chunks for choice in chunk.choices]
            one, other = ("".join(parts) for parts in zip(*told, strict=True))
        else:
            whole = await client.chat.completions.create(model=THINKER, messages=messages)
            assert whole.choices[0].message.content == "yes"
            one, other = thought_in(whole.choices[0].message)
        assert one
        assert one == other


@LOCAL
async def test_developers_are_heard_by_templates_that_know_only_the_system(tmp_path: Path, flavour: Flavour) -> None:
    async with open_local(tmp_path, flavour) as (house, engines):
        messages = [{"role": "developer", "content": "You repeat."}, {"role": "user", "content": "repeat: yes"}]
        status, told = await post(house, "/v1/chat/completions", ask(messages=messages))
        assert (status, told["choices"][0]["message"]["content"]) == (200, "yes")
        assert engines[0].record.requests[-1].body["messages"][0]["role"] == "system"


async def test_what_ollama_cannot_do_is_refused_by_name_and_another_engine_is_asked_where_there_is_one(
    tmp_path: Path,
) -> None:
    asked = {"model": "fake-model", "prompt": ["one", "two"], "max_tokens": 2}
    async with open_local(tmp_path / "alone", Flavour.OLLAMA) as (house, engines):
        status, told = await post(house, "/v1/completions", asked)
        assert (status, told["error"]["param"], told["error"]["code"]) == (400, "prompt", "unsupported_parameter")
        status, told = await post(house, "/v1/chat/completions", ask(n=2))
        assert (status, told["error"]["param"]) == (400, "n")
        assert not engines[0].record.requests
    async with open_local(tmp_path / "two", Flavour.OLLAMA, Flavour.VLLM) as (house, engines):
        for _ in range(4):
            status, told = await post(house, "/v1/completions", asked)
            assert (status, len(told["choices"])) == (200, 2)
        assert (len(engines[0].record.requests), len(engines[1].record.requests)) == (0, 4)


async def test_an_engine_without_such_an_address_makes_it_the_clients_mistake_about_the_model(tmp_path: Path) -> None:
    asked = {"model": "fake-model", "query": "q", "documents": ["a", "b"]}
    async with open_local(tmp_path / "ollama", Flavour.OLLAMA) as (house, _):
        status, told = await post(house, "/v1/rerank", asked)
        assert (status, told["error"]["param"], told["error"]["code"]) == (400, "model", "unsupported_model")
    async with open_local(tmp_path / "other", Flavour.OLLAMA) as (house, engines):
        await house.put("b1", engines[0].url, kind=types_pb2.ENGINE_KIND_VLLM, models=["fake-model", "sign"])
        await known(house, "sign")
        status, told = await post(house, "/v1/rerank", asked)
        assert (status, told["error"]["param"], told["error"]["code"]) == (400, "model", "unsupported_model")


async def test_what_anthropics_client_begins_for_the_model_is_gone_on_with(tmp_path: Path) -> None:
    async with open_local(tmp_path, Flavour.VLLM) as (house, engines), anthropic_client(house) as client:
        messages: Any = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "{"}]
        await client.messages.create(model="fake-model", max_tokens=5, messages=messages)
        body = engines[0].record.requests[-1].body
        assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
