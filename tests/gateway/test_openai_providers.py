"""Azure and OpenRouter behind the gateway: what only they say passes to OpenAI's clients and does not disturb the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.wire.v1 import types_pb2
from tests.compatibility.anthropic_client import AnthropicMessages
from tests.compatibility.matrix import client_of, house_before
from tests.compatibility.ollama_clients import OllamaChat
from tests.compatibility.openai_clients import OpenAIChat, OpenAIResponses
from tests.compatibility.wants import Client, Tool, Want
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_orders import Pace
from tests.fakes.provider import API_KEY, Refused
from tests.fakes.provider_openai import FakeAzure, FakeOpenAIWire, FakeOpenRouter
from tests.gateway.house import MODEL, OUTCOME, ask
from tests.gateway.sse_text import events, stream

KINDS = {
    FakeAzure: types_pb2.ENGINE_KIND_AZURE,
    FakeOpenRouter: types_pb2.ENGINE_KIND_OPENROUTER,
}
each_provider = pytest.mark.parametrize("made", list(KINDS))
CLIENTS: list[type[Client]] = [OpenAIChat, OpenAIResponses, AnthropicMessages, OllamaChat]
CLOCK = Tool("clock", {"type": "object", "properties": {"zone": {"type": "string", "enum": ["UTC", "CET"]}}})


@each_provider
async def test_every_dialects_client_gets_its_answer_and_its_calls_whole_and_streamed(
    tmp_path: Path, made: type[FakeOpenAIWire]
) -> None:
    provider = made(models=(MODEL,))
    async with house_before(tmp_path, provider, KINDS[made]) as (house, _):
        for dialect in CLIENTS:
            provider.filters_late = dialect is not OpenAIChat
            async with client_of(dialect, house.url, str(house.key)) as client:
                for streamed in (True, False):
                    said = await client.ask(Want("repeat: a b c"), stream=streamed)
                    assert (said.text, said.finish) == ("a b c", "stop"), (dialect, streamed)
                    assert said.prompt_tokens > 0
                    called = await client.ask(Want("Use the tool.", tools=(CLOCK,)), stream=streamed)
                    assert [call.name for call in called.calls] == ["clock"]
        header = "api-key" if made is FakeAzure else "authorization"
        assert {asked.headers[header].removeprefix("Bearer ") for asked in provider.asked} == {API_KEY}


async def test_what_azures_filters_found_passes_as_it_is(tmp_path: Path) -> None:
    async with house_before(tmp_path, FakeAzure(models=(MODEL,)), KINDS[FakeAzure]) as (house, _):
        told = await stream(house)
        assert "prompt_filter_results" in told[0]
        assert told[0]["choices"] == []
        found = [event for event in told[:-1] for choice in event["choices"] if "content_filter_results" in choice]
        assert len(found) > 3
        assert "word3" in "".join(
            choice["delta"]["content"] for event in told[1:-1] for choice in event["choices"] if choice.get("delta")
        )
        async with house.post(ask()) as answer:
            whole = await answer.json()
        assert "prompt_filter_results" in whole
        assert "content_filter_results" in whole["choices"][0]


@each_provider
async def test_an_error_before_the_answer_sends_the_request_elsewhere_and_after_it_is_an_error_in_the_stream(
    tmp_path: Path, made: type[FakeOpenAIWire]
) -> None:
    async with (
        FakeEngine(slots=4, pace=Pace(tokens_per_s=4000.0, ttft_s=0.0, answer_tokens=3)) as other,
        house_before(tmp_path, made(models=(MODEL,)), KINDS[made]) as (house, provider),
    ):
        house.scheduler.slots["b2"] = 4
        await house.put("b2", other.url)
        provider.faults.add(Fault(FaultKind.ERROR_EVENT_AFTER, chunks=0))
        async with house.post(ask(stream=True)) as answer:
            text = await answer.text()
        assert answer.headers["x-forebay-attempts"] == "2"
        assert " word2" in text
        assert "prompt_filter_results" not in text
        provider.faults.add(Fault(FaultKind.ERROR_EVENT_AFTER, chunks=3))
        async with house.post(ask(stream=True)) as answer:
            told = events(await answer.text())
        assert "error" in told[-1]
        assert '"finish_reason": "stop"' not in str(told)
        rows = await house.rows(2)
        assert [OUTCOME(row.outcome) for row in rows] == ["OUTCOME_FINISHED", "OUTCOME_FAILED"]


async def test_what_openrouter_alone_is_told_reaches_it_and_what_it_cost_comes_back(tmp_path: Path) -> None:
    async with house_before(tmp_path, FakeOpenRouter(models=(MODEL,)), KINDS[FakeOpenRouter]) as (house, provider):
        named = {"http-referer": "https://app.example.com", "x-title": "An app"}
        body = ask(stream=True, usage={"include": True}, provider={"sort": "price"})
        async with house.post(body, headers={**house.headers, **named}) as answer:
            told = events(await answer.text())
        assert told[-2]["usage"]["cost"] == 0.0042
        (asked,) = provider.asked
        assert {name: asked.headers[name] for name in named} == named
        assert (asked.body["usage"], asked.body["provider"]) == ({"include": True}, {"sort": "price"})
        async with house.post(ask(usage={"include": True})) as answer:
            assert (await answer.json())["usage"]["cost"] == 0.0042
        told = await stream(house)
        assert not any(event != "[DONE]" and event.get("usage") for event in told), "it was not asked for"


async def test_words_that_openrouters_moderation_holds_back_are_no_fault_of_the_key(tmp_path: Path) -> None:
    async with house_before(tmp_path, FakeOpenRouter(models=(MODEL,)), KINDS[FakeOpenRouter]) as (house, provider):
        provider.refusals[API_KEY] = Refused(403, "flagged", "Your input was flagged")
        async with house.post(ask()) as answer:
            told = (await answer.json())["error"]
        assert (answer.status, told["code"]) == (400, "content_filter")
        assert house.scheduler.nacks == []
        assert "credentials_quarantined{" not in house.ops.metrics.exposition().decode()
