"""The fake engine's completions and embeddings: prompts in words and tokens, echoes, log probabilities, in each flavour."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import TRAITS, Dimensions, Flavour, Prompts
from tests.fakes.engine_orders import Pace
from tests.fakes.engine_prompts import BadPrompt, Prompt, prompts_in

QUICK = Pace(tokens_per_s=1e6, ttft_s=0, answer_tokens=2)
EVERY = pytest.mark.parametrize("quick", list(Flavour), indirect=True)


@pytest.fixture
async def quick(request: pytest.FixtureRequest) -> AsyncIterator[FakeEngine]:
    async with FakeEngine(flavour=getattr(request, "param", Flavour.VLLM), pace=QUICK) as engine:
        yield engine


async def post(session: aiohttp.ClientSession, engine: FakeEngine, path: str, **body: Any) -> tuple[int, Any]:
    async with session.post(engine.url + path, json={"model": "fake-model", **body}) as response:
        return response.status, await response.json()


async def complete(session: aiohttp.ClientSession, engine: FakeEngine, prompt: Any, **fields: Any) -> tuple[int, Any]:
    return await post(session, engine, "/v1/completions", prompt=prompt, **fields)


@pytest.mark.parametrize(
    ("given", "takes", "read"),
    [
        ("a b", Prompts.ONE_TEXT, [Prompt("a b", 2)]),
        (["a b", "c"], Prompts.TEXTS, [Prompt("a b", 2), Prompt("c", 1)]),
        ([7, 8], Prompts.TOKENS, [Prompt("token7 token8", 2)]),
        ([[7], [8, 9]], Prompts.TOKENS, [Prompt("token7", 1), Prompt("token8 token9", 2)]),
        ([7, "a b"], Prompts.MIXED, [Prompt("token7 a b", 3)]),
        (["a", [7, "b"]], Prompts.MIXED, [Prompt("a", 1), Prompt("token7 b", 2)]),
        (["a"], Prompts.ONE_TEXT, None),
        ([7], Prompts.TEXTS, None),
        ([7, "a"], Prompts.TOKENS, None),
        ([[]], Prompts.TOKENS, None),
        ([], Prompts.MIXED, None),
        ([True], Prompts.MIXED, None),
        ([-1], Prompts.MIXED, None),
        (None, Prompts.MIXED, None),
    ],
)
def test_what_a_prompt_is(given: Any, takes: Prompts, read: list[Prompt] | None) -> None:
    if read is None:
        with pytest.raises(BadPrompt):
            prompts_in({"prompt": given}, "prompt", takes)
    else:
        assert prompts_in({"prompt": given}, "prompt", takes) == read


async def test_each_prompt_has_its_own_answers(quick: FakeEngine, session: aiohttp.ClientSession) -> None:
    _, told = await complete(session, quick, ["repeat: one", "two"], n=2)
    assert [choice["text"] for choice in told["choices"]] == ["one", "one", "word0 word1", "word0 word1"]
    assert told["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


@EVERY
async def test_an_echo_comes_where_the_engine_has_one_streamed_as_whole(
    quick: FakeEngine, session: aiohttp.ClientSession
) -> None:
    _, whole = await complete(session, quick, "Once", echo=True, logprobs=1)
    body = {"model": "fake-model", "prompt": "Once", "echo": True, "logprobs": 1, "stream": True}
    async with session.post(f"{quick.url}/v1/completions", json=body) as response:
        lines = [line.removeprefix("data: ") for line in (await response.text()).splitlines() if line]
    pieces = [choice for line in lines if line != "[DONE]" for choice in json.loads(line)["choices"]]
    expected = "Onceword0 word1" if quick.traits.echoes else "word0 word1"
    assert whole["choices"][0]["text"] == "".join(piece["text"] for piece in pieces) == expected


async def test_log_probabilities_of_a_prompt_come_with_its_echo_and_the_first_has_none(
    quick: FakeEngine, session: aiohttp.ClientSession
) -> None:
    _, told = await complete(session, quick, "one two", echo=True, logprobs=2)
    logprobs = told["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["one ", "two", "word0", " word1"]
    assert logprobs["text_offset"] == [0, 4, 7, 12]
    assert logprobs["token_logprobs"] == [None, -0.5, -0.5, -0.5]
    assert logprobs["top_logprobs"] == [None, *({token: -0.5, "other1": -1.5} for token in logprobs["tokens"][1:])]


async def test_what_the_real_engine_refuses_is_refused(session: aiohttp.ClientSession) -> None:
    async with FakeEngine(flavour=Flavour.VLLM, pace=QUICK) as vllm:
        assert (await complete(session, vllm, "a", logprobs=21))[0] == 400
        assert (await complete(session, vllm, "a", n=2, temperature=0))[0] == 400
        assert (await complete(session, vllm, "a", max_tokens=0))[0] == 400
        status, told = await complete(session, vllm, "a", max_tokens=0, echo=True)
        assert (status, told["choices"][0]["text"]) == (200, "a")
    async with FakeEngine(flavour=Flavour.OLLAMA, pace=QUICK) as ollama:
        for prompt in (["a"], [1, 2]):
            assert (await complete(session, ollama, prompt))[0] == 400
        assert (await complete(session, ollama, "a", n=2, logprobs=2))[1]["choices"][0]["logprobs"] is None
    async with FakeEngine(flavour=Flavour.SGLANG, pace=QUICK) as sglang:
        status, told = await complete(session, sglang, [1, "a"])
        assert (status, set(told)) == (400, {"object", "message", "type", "param", "code"})


async def test_sglang_tells_what_is_not_there_as_null(session: aiohttp.ClientSession) -> None:
    async with FakeEngine(flavour=Flavour.SGLANG, pace=QUICK) as sglang:
        messages = [{"role": "user", "content": "repeat: one STOP two"}]
        _, told = await post(session, sglang, "/v1/chat/completions", messages=messages, stop="STOP")
    (choice,) = told["choices"]
    assert choice["message"] == {"role": "assistant", "content": "one ", "reasoning_content": None, "tool_calls": None}
    assert choice["matched_stop"] == "STOP"


# Embeddings


@EVERY
async def test_tokens_are_embedded_where_the_engine_takes_them(
    quick: FakeEngine, session: aiohttp.ClientSession
) -> None:
    status, told = await post(session, quick, "/v1/embeddings", input=[[5, 6], [7]])
    if quick.traits.inputs is Prompts.TEXTS:
        assert status == 400
    else:
        assert (len(told["data"]), told["usage"]["prompt_tokens"]) == (2, 3)


@pytest.mark.parametrize(
    ("dimensions", "status", "width"),
    [(Dimensions.CUT, 200, 5), (Dimensions.LEFT_ASIDE, 200, 8), (Dimensions.REFUSED, 400, 0)],
)
async def test_dimensions_are_kept_or_refused_or_left_aside(
    session: aiohttp.ClientSession, dimensions: Dimensions, status: int, width: int
) -> None:
    async with FakeEngine(traits=replace(TRAITS[Flavour.VLLM], dimensions=dimensions)) as engine:
        got, told = await post(session, engine, "/v1/embeddings", input="a", dimensions=5)
        assert got == status
        if got == 200:
            assert len(told["data"][0]["embedding"]) == width
        if dimensions is Dimensions.CUT:
            assert (await post(session, engine, "/v1/embeddings", input="a", dimensions=9))[0] == 400


async def test_ollamas_older_address_gives_one_vector_as_the_model_made_it(session: aiohttp.ClientSession) -> None:
    async with FakeEngine(flavour=Flavour.OLLAMA) as engine:
        _, newer = await post(session, engine, "/api/embed", input="a")
        _, older = await post(session, engine, "/api/embeddings", prompt="a")
        assert set(older) == {"embedding"}
        assert older["embedding"] == pytest.approx([7 * x for x in newer["embeddings"][0]])
        assert await post(session, engine, "/api/embeddings") == (200, {"embedding": []})
        assert (await post(session, engine, "/api/embeddings", prompt=["a"]))[0] == 400
        assert (await post(session, engine, "/api/embeddings", model="nobody", prompt="a"))[0] == 404
