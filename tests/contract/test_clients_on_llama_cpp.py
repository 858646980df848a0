"""The official client libraries through a gateway in front of the real llama.cpp: what a small model can show."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from anthropic import AsyncAnthropic

from forebay.wire.v1 import types_pb2
from tests.compatibility.matrix import CLIENTS, client_of
from tests.compatibility.ollama_clients import OllamaChat
from tests.compatibility.openai_clients import OpenAIChat, OpenAICompletions
from tests.compatibility.wants import Client, NotInDialect, Refused, Said, Want
from tests.contract.conftest import REAL_MODEL
from tests.gateway.house import MODEL, House, open_house

pytestmark = [pytest.mark.engine, pytest.mark.clients]

QUESTION = "What is the capital of France?"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


@pytest.fixture
async def house(llama_cpp: str, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as house:
        house.registry.put("b1", llama_cpp, kind=types_pb2.ENGINE_KIND_LLAMACPP, models=(REAL_MODEL, MODEL), slots=2)
        house.scheduler.slots["b1"] = 2
        yield house


async def asked(house: House, made: type[Client], want: Want, *, stream: bool) -> Said:
    async with client_of(made, house.url, str(house.key)) as client:
        return await client.ask(want, stream=stream)


@pytest.mark.parametrize("made", CLIENTS, ids=lambda made: made.name)
async def test_a_stream_says_what_a_whole_answer_says_and_usage_is_the_engines(
    house: House, made: type[Client]
) -> None:
    want = Want(QUESTION, max_tokens=12)
    whole, streamed = [await asked(house, made, want, stream=stream) for stream in (False, True)]
    assert whole.text == streamed.text != ""
    assert whole.prompt_tokens == streamed.prompt_tokens > 0
    assert whole.completion_tokens == streamed.completion_tokens > 0
    assert whole.finish == streamed.finish
    assert all(row.usage.source == types_pb2.USAGE_SOURCE_ENGINE for row in await house.rows(2))


async def test_all_libraries_are_told_the_same(house: House) -> None:
    want = Want(QUESTION, max_tokens=12)
    chats = [made for made in CLIENTS if made is not OpenAICompletions]
    said = {made.name: (await asked(house, made, want, stream=False)).text for made in chats}
    assert len(set(said.values())) == 1, said
    assert "Paris" in next(iter(said.values()))


@pytest.mark.parametrize("made", CLIENTS, ids=lambda made: made.name)
async def test_a_limit_ends_it_with_length_and_a_stop_string_before_it(house: House, made: type[Client]) -> None:
    cut = await asked(house, made, Want(QUESTION, max_tokens=3), stream=True)
    assert (cut.finish, cut.completion_tokens) == ("length", 3)
    try:
        stopped = await asked(house, made, Want(QUESTION, max_tokens=40, stop="a"), stream=True)
    except NotInDialect:
        return
    assert stopped.finish == "stop"
    assert "a" not in stopped.text


@pytest.mark.parametrize("made", CLIENTS, ids=lambda made: made.name)
async def test_an_answer_keeps_to_a_schema(house: House, made: type[Client]) -> None:
    try:
        said = await asked(house, made, Want("Describe Paris as JSON.", schema=SCHEMA, max_tokens=80), stream=False)
    except NotInDialect:
        return
    told = json.loads(said.text)
    assert set(told) == {"city", "people"}
    assert isinstance(told["people"], int)


async def test_log_probabilities_are_told_of_every_token(house: House) -> None:
    for made in (OpenAIChat, OllamaChat):
        said = await asked(house, made, Want(QUESTION, max_tokens=6, logprobs=2), stream=True)
        assert said.logprobs == said.completion_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_several_prompts_in_words_or_tokens_are_gone_on_with_each_for_itself(house: House, stream: bool) -> None:
    prompts = ("One, two, three, four, five, six,", "Monday, Tuesday, Wednesday,")
    alone = [await asked(house, OpenAICompletions, Want(text, max_tokens=4), stream=stream) for text in prompts]
    said = await asked(house, OpenAICompletions, Want("", prompts=prompts, max_tokens=4), stream=stream)
    assert said.texts == [each.text for each in alone]
    assert said.texts[0] != said.texts[1]
    assert said.prompt_tokens == sum(each.prompt_tokens for each in alone)
    assert said.completion_tokens == 8
    in_tokens = await asked(house, OpenAICompletions, Want("", tokens=(2, 3925, 1902), max_tokens=4), stream=stream)
    assert in_tokens.text
    assert in_tokens.prompt_tokens == 3
    assert [row.usage.completion_tokens for row in await house.rows(4)] == [4, 4, 8, 4]


@pytest.mark.parametrize("stream", [False, True])
async def test_several_answers_and_log_probabilities_of_completions_have_openais_form(
    house: House, stream: bool
) -> None:
    said = await asked(house, OpenAICompletions, Want("One, two,", n=2, logprobs=2, max_tokens=4), stream=stream)
    assert len(said.texts) == 2
    assert all(said.texts)
    assert said.logprobs == said.completion_tokens == 8


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_server_would_leave_aside_is_refused(house: House, stream: bool) -> None:
    with pytest.raises(Refused) as refused:
        await asked(house, OpenAICompletions, Want("One, two,", echo=True), stream=stream)
    assert refused.value.status == 400
    assert "`echo`" in refused.value.message


async def test_counted_tokens_are_those_that_are_charged(house: House) -> None:
    system, question = "Be brief.", "What is 1 + 1? <b>&amp;</b>"
    async with AsyncAnthropic(base_url=house.url, api_key=str(house.key), max_retries=0) as client:
        counted = await client.messages.count_tokens(
            model=MODEL, system=system, messages=[{"role": "user", "content": question}]
        )
        said = await client.messages.create(
            model=MODEL, system=system, messages=[{"role": "user", "content": question}], max_tokens=2
        )
    usage = said.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
