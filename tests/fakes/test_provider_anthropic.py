"""The fake of Anthropic's API with the official client, and what it refuses as the real one does."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import pytest

from tests.fakes.provider import API_KEY, Refused
from tests.fakes.provider_anthropic import FakeAnthropic
from tests.fakes.provider_anthropic_checks import SIGNATURE, check_request

TOOL: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest.fixture
async def fake() -> AsyncIterator[FakeAnthropic]:
    async with FakeAnthropic(models=("a", "b", "c")) as fake:
        yield fake


@pytest.fixture
async def client(fake: FakeAnthropic) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=fake.url, api_key=API_KEY, max_retries=0) as client:
        yield client


def asking(text: str, **more: Any) -> Any:
    return {"model": "a", "max_tokens": 2000, "messages": [{"role": "user", "content": text}], **more}


def shown(kind: str, **source: str) -> Any:
    return {"role": "user", "content": [{"type": kind, "source": source}]}


async def test_the_official_client_gets_the_same_message_whole_and_streamed(client: anthropic.AsyncAnthropic) -> None:
    for request in (
        asking("repeat: Grüße, 世界"),
        asking("Use the tool.", tools=[TOOL]),
        asking("repeat: x", thinking={"type": "enabled", "budget_tokens": 1024}),
        asking("repeat: a b c STOP d", stop_sequences=["STOP"]),
        asking("repeat: a b c d e f g", max_tokens=2),
    ):
        whole = await client.messages.create(**request)
        async with client.messages.stream(**request) as events:
            streamed = await events.get_final_message()
        assert [each.to_dict() for each in streamed.content] == [each.to_dict() for each in whole.content]
        assert (streamed.stop_reason, streamed.stop_sequence) == (whole.stop_reason, whole.stop_sequence)
        assert streamed.usage.output_tokens == whole.usage.output_tokens


async def test_what_it_answers_follows_the_wishes(client: anthropic.AsyncAnthropic) -> None:
    picture = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"x").decode()}
    seen = asking("", messages=[{"role": "user", "content": [{"type": "image", "source": picture}]}])
    assert "I see 1 image" in str((await client.messages.create(**seen)).content)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
    config: Any = {"format": {"type": "json_schema", "schema": schema}}
    told = await client.messages.create(**asking("Number?", output_config=config))
    assert '{"n": 1}' in str(told.content)
    called = await client.messages.create(**asking("Hello.", tools=[TOOL], tool_choice={"type": "any"}))
    assert (called.stop_reason, called.content[0].type) == ("tool_use", "tool_use")
    thought = await client.messages.create(**asking("repeat: x", thinking={"type": "adaptive"}))
    assert thought.content[0].type == "thinking"
    assert thought.content[0].signature == SIGNATURE


async def test_the_list_of_models_has_pages(client: anthropic.AsyncAnthropic) -> None:
    assert [model.id async for model in client.models.list()] == ["a", "b", "c"]


async def test_errors_are_the_clients_own(fake: FakeAnthropic, client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.create(**asking("x", model="nobody"))
    async with anthropic.AsyncAnthropic(base_url=fake.url, api_key="wrong", max_retries=0) as other:
        with pytest.raises(anthropic.AuthenticationError):
            await other.messages.create(**asking("x"))
    headers = {"x-api-key": API_KEY}
    async with aiohttp.ClientSession() as session, session.post(f"{fake.url}/v1/messages", headers=headers) as answer:
        assert answer.status == 400  # no version


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"n": 1}, "Extra inputs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "at least one"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "first message"),
        ({"messages": [{"role": "user", "content": "x"}] * 2}, "alternate"),
        ({"messages": [{"role": "user", "content": " "}]}, "non-whitespace"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y "}]}, "trailing"),
        ({"temperature": 1.5}, "range"),
        ({"tool_choice": {"type": "any"}}, "providing tools"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "1024"),
        ({"thinking": {"type": "adaptive"}, "temperature": 0}, "temperature"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, "explicitly false"),
        ({"context_management": {}}, "Extra inputs"),
        ({"mcp_servers": [{"type": "url", "url": "https://a", "name": "a"}]}, "Extra inputs"),
        ({"tools": [{"type": "web_search_1999", "name": "web_search"}]}, "expected tags"),
        ({"tools": [{"type": "web_search_20250305", "name": "search"}]}, "should be 'web_search'"),
        ({"tools": [{"type": "computer_20250124", "name": "computer"}]}, "expected tags"),
        ({"messages": [shown("document", type="base64", media_type="image/png", data="x")]}, "media_type"),
        ({"messages": [shown("document", type="ftp", url="x")]}, "expected tags"),
        ({"messages": [shown("image", type="url")]}, "url: Field required"),
        ({"messages": [shown("search_result")]}, "title: Field required"),
    ],
)
def test_what_the_documentation_forbids_is_refused(change: Any, why: str) -> None:
    check_request(asking("x"))
    with pytest.raises(Refused, match=why):
        check_request(asking("x") | change)


def test_calls_need_their_results_at_once_and_their_tools() -> None:
    use = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}]}
    asked = {"role": "user", "content": "x"}
    check_request(asking("", messages=[asked, use, result], tools=[TOOL]))
    with pytest.raises(Refused, match="must define tools"):
        check_request(asking("", messages=[asked, use, result]))
    with pytest.raises(Refused, match="corresponding tool_result"):
        check_request(asking("", messages=[asked, use, asked], tools=[TOOL]))
