"""Cloud providers behind the gateway, over real HTTP: whose key they see, who takes over when they are overloaded, and what
a limited key's answer from them looks like."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from forebay.wire.v1 import scheduler_pb2, types_pb2
from tests.compatibility.matrix import house_before
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_orders import Pace
from tests.fakes.provider import API_KEY, FakeProvider
from tests.fakes.provider_anthropic import FakeAnthropic
from tests.fakes.provider_anthropic_checks import SIGNATURE
from tests.fakes.provider_cohere import FakeCohere
from tests.fakes.provider_gemini import FakeGemini
from tests.gateway.house import MODEL, OUTCOME, House, ask, eventually

PROVIDERS = [
    (FakeAnthropic, types_pb2.ENGINE_KIND_ANTHROPIC),
    (FakeGemini, types_pb2.ENGINE_KIND_GEMINI),
    (FakeCohere, types_pb2.ENGINE_KIND_COHERE),
]
HEADERS = {FakeAnthropic: "x-api-key", FakeGemini: "x-goog-api-key", FakeCohere: "authorization"}
each_provider = pytest.mark.parametrize(("made", "kind"), PROVIDERS)


def message(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "repeat: a b c"}], **fields}


async def posted(house: House, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    async with house.client.post(f"{house.url}{path}", json=body, headers={**house.headers, **headers}) as answer:
        return answer.status, await answer.json()


@each_provider
async def test_a_provider_sees_forebays_key_in_its_own_header_and_nothing_of_the_clients(
    tmp_path: Path, made: type[FakeProvider], kind: types_pb2.EngineKind.ValueType
) -> None:
    async with house_before(tmp_path, made(models=(MODEL,)), kind) as (house, provider):
        async with house.post(ask()) as answer:
            told = await answer.json()
        assert answer.status == 200
        (asked,) = provider.asked
        assert asked.headers[HEADERS[made]].removeprefix("Bearer ") == API_KEY
        assert made is FakeCohere or "authorization" not in asked.headers
        assert API_KEY not in asked.path
        assert str(house.key) not in str(asked.headers)
        assert told["created"] > 1_600_000_000
        (row,) = await house.rows(1)
        assert (row.usage.source, row.usage.completion_tokens) == (types_pb2.USAGE_SOURCE_ENGINE, 8)


@each_provider
async def test_when_it_is_overloaded_before_its_first_word_another_backend_answers(
    tmp_path: Path, made: type[FakeProvider], kind: types_pb2.EngineKind.ValueType
) -> None:
    overloaded, busy = Fault(FaultKind.STATUS, status=529), Fault(FaultKind.STATUS, status=429)
    faults = [Fault(FaultKind.ERROR_EVENT_AFTER, chunks=0), overloaded, busy]
    async with (
        FakeEngine(slots=4, pace=Pace(tokens_per_s=4000.0, ttft_s=0.0, answer_tokens=3)) as other,
        house_before(tmp_path, made(models=(MODEL,)), kind) as (house, provider),
    ):
        house.scheduler.slots["b2"] = 4
        await house.put("b2", other.url)
        for number, fault in enumerate(faults, 1):
            provider.faults.add(fault)
            async with house.post(ask(stream=fault.kind is FaultKind.ERROR_EVENT_AFTER)) as answer:
                text = await answer.text()
            assert answer.status == 200, text
            assert " word2" in text
            assert " word3" not in text
            assert answer.headers["x-forebay-attempts"] == "2"
            assert len(await house.rows(number)) == number


@each_provider
async def test_an_error_after_the_first_word_is_an_error_in_the_stream(
    tmp_path: Path, made: type[FakeProvider], kind: types_pb2.EngineKind.ValueType
) -> None:
    async with house_before(tmp_path, made(models=(MODEL,)), kind) as (house, provider):
        for fault in (Fault(FaultKind.ERROR_EVENT_AFTER, chunks=3), Fault(FaultKind.NO_DONE)):
            provider.faults.add(fault)
            async with house.post(ask(stream=True)) as answer:
                text = await answer.text()
            assert '"error"' in text
            assert "[DONE]" not in text
        rows = await house.rows(2)
        assert [OUTCOME(row.outcome) for row in rows] == ["OUTCOME_FAILED"] * 2


@each_provider
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_limited_keys_plain_answer_is_streamed_and_folded_and_ends_where_its_budget_does(
    tmp_path: Path, made: type[FakeProvider], kind: types_pb2.EngineKind.ValueType, path: str
) -> None:
    pace = Pace(tokens_per_s=40, ttft_s=0.0, answer_tokens=400)
    async with house_before(tmp_path, made(models=(MODEL,)), kind) as (house, provider):
        long = message(max_tokens=200)  # a short one is not worth counting
        unlimited = await posted(house, path, long)
        house.scheduler.rate = scheduler_pb2.RateStanding(limit_tokens=1000, remaining_tokens=10)
        status, limited = await posted(house, path, long)
        assert status == 200
        changing = ("id", "created")
        assert {k: limited[k] for k in limited if k not in changing} | {"choices": None} == {
            k: unlimited[1][k] for k in unlimited[1] if k not in changing
        } | {"choices": None}
        last = provider.asked[-1]
        assert last.path.endswith("?alt=sse") if made is FakeGemini else last.body["stream"]
        provider.pace = pace
        running = asyncio.create_task(
            posted(house, path, message(messages=[{"role": "user", "content": "x"}], max_tokens=300))
        )
        await eventually(lambda: house.scheduler.progress)
        (ledger_id,) = house.scheduler.held
        house.scheduler.say(cutoffs=[scheduler_pb2.Cutoff(ledger_id=ledger_id, reason="quota_spent")])
        status, cut = await asyncio.wait_for(running, 30)
        assert status == 200
        assert "max_tokens" in str(cut) if path == "/v1/messages" else cut["choices"][0]["finish_reason"] == "length"
        row = (await house.rows(3))[-1]
        assert (OUTCOME(row.outcome), row.reason) == ("OUTCOME_FINISHED", "quota_spent")
        assert row.usage.completion_tokens > 0


async def test_an_anthropic_clients_own_words_reach_anthropic_signatures_and_betas_included(tmp_path: Path) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": SIGNATURE}
    history = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "Yes?"}]},
        {"role": "user", "content": [{"type": "text", "text": "repeat: x y", "cache_control": {"type": "ephemeral"}}]},
    ]
    body = message(messages=history, context_management={"edits": []})
    provider = FakeAnthropic(models=(MODEL,))
    async with house_before(tmp_path, provider, types_pb2.ENGINE_KIND_ANTHROPIC) as (house, _):
        status, told = await posted(house, "/v1/messages", body, **{"anthropic-beta": "context-management-2025-06-27"})
        assert (status, told["content"]) == (200, [{"type": "text", "text": "x y"}])
        (asked,) = provider.asked
        assert asked.body == {**body, "stream": False}
        assert asked.headers["anthropic-beta"] == "context-management-2025-06-27"
        forged = [{**thought, "signature": "mine"}]
        status, told = await posted(
            house, "/v1/messages", message(messages=[history[0], {"role": "assistant", "content": forged}, history[2]])
        )
        assert (status, told["type"]) == (400, "error")
        assert "Invalid `signature`" in told["error"]["message"]


@each_provider
async def test_its_models_are_embedded_completed_and_chatted_with_as_far_as_it_can(
    tmp_path: Path, made: type[FakeProvider], kind: types_pb2.EngineKind.ValueType
) -> None:
    async with house_before(tmp_path, made(models=(MODEL,)), kind) as (house, provider):
        status, told = await posted(house, "/v1/completions", {"model": MODEL, "prompt": "x"})
        assert (status, told["error"]["code"]) == (400, "unsupported_model")
        status, told = await posted(house, "/v1/embeddings", {"model": MODEL, "input": ["a", "b"], "dimensions": 3})
        embeds = made is not FakeAnthropic
        assert status == (200 if embeds else 400)
        if embeds:
            assert [len(each["embedding"]) for each in told["data"]] == [3, 3]
        assert len(provider.asked) == embeds


async def test_documents_are_ranked_by_cohere_itself(tmp_path: Path) -> None:
    documents = ["nothing of it", "the cat sat", "a cat"]
    asked = {"model": MODEL, "query": "the cat", "documents": documents, "top_n": 2}
    provider = FakeCohere(models=(MODEL,))
    async with house_before(tmp_path, provider, types_pb2.ENGINE_KIND_COHERE) as (house, _):
        for path in ("/v2/rerank", "/v1/rerank"):
            status, told = await posted(house, path, asked)
            assert status == 200, told
            assert [result["index"] for result in told["results"]] == [1, 2]
            assert provider.asked[-1].body == asked
        assert told["results"][0]["document"] == {"text": "the cat sat"}
        (row, _) = await house.rows(2)
        assert row.usage.source == types_pb2.USAGE_SOURCE_ESTIMATED


@pytest.mark.parametrize(("made", "kind"), PROVIDERS[:2])
async def test_tokens_are_counted_by_the_provider_itself(
    tmp_path: Path, made: type[FakeProvider], kind: types_pb2.EngineKind.ValueType
) -> None:
    async with house_before(tmp_path, made(models=(MODEL,)), kind) as (house, provider):
        body = {"model": MODEL, "system": "Be brief.", "messages": [{"role": "user", "content": "one two three"}]}
        status, told = await posted(house, "/v1/messages/count_tokens", body)
        assert (status, told["input_tokens"]) == (200, 11)
        status, told = await posted(house, "/v1/tokenize", {"model": MODEL, "prompt": "one two"})
        assert (status, told["count"]) == (200, 5)
        assert len(provider.asked) == 2
