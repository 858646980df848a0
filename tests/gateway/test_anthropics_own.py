"""Anthropic's clients in front of Anthropic, with what nobody else understands: it passes as it is, is asked of nobody else,
and is refused at once where there is no engine of Anthropic's. And the headers and pages that its clients read."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import pytest

from forebay.wire.v1 import scheduler_pb2, types_pb2
from tests.compatibility.matrix import house_before
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.fakes.provider_anthropic import FakeAnthropic
from tests.fakes.provider_gemini import FakeGemini
from tests.gateway.house import MODEL, House, open_house

QUICK = Pace(tokens_per_s=4000.0, ttft_s=0.0, answer_tokens=3)
PDF = base64.b64encode(b"%PDF-1.7\n\xff\xfe").decode()
HELLO = {"role": "user", "content": "repeat: a b c"}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
PAGE = {"type": "web_search_result", "url": "https://a.example", "title": "A", "encrypted_content": "x"}
FOUND = {
    "type": "search_result",
    "source": "https://a.example",
    "title": "A",
    "content": [{"type": "text", "text": "x"}],
}
CITED = {"type": "text", "text": "So it is.", "citations": [{"type": "web_search_result_location", "cited_text": "x"}]}


def document(**source: Any) -> dict[str, Any]:
    return {"type": "document", "title": "Log", "citations": {"enabled": True}, "source": source}


def said(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [*blocks, {"type": "text", "text": "repeat: a b c"}]}]}


SEARCHED = [
    HELLO,
    {
        "role": "assistant",
        "content": [
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [PAGE]},
            CITED,
        ],
    },
    HELLO,
]
ONLY_ANTHROPICS: dict[str, dict[str, Any]] = {
    "server tools": {"tools": [SEARCH, {"name": "x", "input_schema": {"type": "object"}}]},
    "its own client tools": {"tools": [{"type": "bash_20250124", "name": "bash"}], "tool_choice": {"type": "any"}},
    "an editor": {"tools": [{"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}]},
    "a computer": {
        "tools": [
            {"type": "computer_20250124", "name": "computer", "display_width_px": 800, "display_height_px": 600},
        ]
    },
    "other servers' tools": {"mcp_servers": [{"type": "url", "url": "https://a.example", "name": "a"}]},
    "a search's history": {"messages": SEARCHED, "tools": [SEARCH]},
    "search results": said(FOUND),
    "a file of its own": said(document(type="file", file_id="file_1")),
}
EVERYBODYS: dict[str, dict[str, Any]] = {
    "a PDF": said(document(type="base64", media_type="application/pdf", data=PDF)),
    "a PDF's address": said(document(type="url", url="https://192.0.2.1/a.pdf")),
    "a picture's address": said({"type": "image", "source": {"type": "url", "url": "https://192.0.2.1/a.png"}}),
    "a text": said(document(type="text", media_type="text/plain", data="x")),
    "pieces": said(document(type="content", content=[{"type": "text", "text": "x"}])),
}
BETAS = {"anthropic-beta": "computer-use-2025-01-24,mcp-client-2025-04-04", "anthropic-version": "2023-06-01"}


def message(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 50, "messages": [HELLO], **fields}


async def posted(house: House, body: Any, path: str = "/v1/messages") -> tuple[int, Any]:
    async with house.client.post(f"{house.url}{path}", json=body, headers={**house.headers, **BETAS}) as answer:
        return answer.status, await answer.json()


@pytest.fixture
async def claude(tmp_path: Path) -> AsyncIterator[tuple[House, FakeAnthropic]]:
    """A house before Anthropic."""
    provider = FakeAnthropic(models=(MODEL,))
    async with house_before(tmp_path, provider, types_pb2.ENGINE_KIND_ANTHROPIC) as (house, _):
        yield house, provider


@asynccontextmanager
async def with_another(house: House) -> AsyncIterator[FakeEngine]:
    """That speaks OpenAI's dialect and has the model too."""
    async with FakeEngine(slots=4, pace=QUICK) as other:
        house.scheduler.slots["b2"] = 4
        await house.put("b2", other.url)
        yield other


async def test_whatever_it_says_passes_as_it_is_streamed_and_not(claude: tuple[House, FakeAnthropic]) -> None:
    house, provider = claude
    for name, fields in {**ONLY_ANTHROPICS, **EVERYBODYS}.items():
        body = message(**fields)
        status, told = await posted(house, body)
        assert status == 200, (name, told)
        assert provider.asked[-1].body == {**body, "stream": False}, name
        async with house.client.post(
            f"{house.url}/v1/messages", json={**body, "stream": True}, headers={**house.headers, **BETAS}
        ) as answer:
            assert answer.status == 200, name
            assert "message_stop" in await answer.text(), name
        counted = {name: value for name, value in body.items() if name != "max_tokens"}
        status, told = await posted(house, counted, "/v1/messages/count_tokens")
        assert (status, provider.asked[-1].body) == (200, counted), (name, told)
        assert told["input_tokens"] > 0


async def test_nobody_else_is_asked_what_only_anthropic_understands(claude: tuple[House, FakeAnthropic]) -> None:
    house, provider = claude
    async with with_another(house):
        for number, (name, fields) in enumerate(ONLY_ANTHROPICS.items(), 1):
            status, told = await posted(house, message(**fields))
            assert status == 200, (name, told)
            assert list(house.scheduler.submits[-1].excluded_backends) == ["b2"], name
            counted = {name: value for name, value in message(**fields).items() if name != "max_tokens"}
            status, _ = await posted(house, counted, "/v1/messages/count_tokens")
            assert (status, len(provider.asked)) == (200, 2 * number), name
        status, _ = await posted(house, message())
        assert (status, list(house.scheduler.submits[-1].excluded_backends)) == (200, [])


async def test_where_no_engine_is_anthropics_it_is_refused_before_it_waits(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        for name, fields in ONLY_ANTHROPICS.items():
            for path in ("/v1/messages", "/v1/messages/count_tokens"):
                status, told = await posted(house, message(**fields), path)
                assert (status, told["error"]["type"]) == (400, "invalid_request_error"), name
                assert any(word in told["error"]["message"] for word in ("server tools", "here it can be")), told
        assert not house.scheduler.submits


async def test_a_pdf_reaches_other_engines_that_read_those(tmp_path: Path) -> None:
    body = message(**EVERYBODYS["a PDF"])
    async with house_before(tmp_path, FakeGemini(models=(MODEL,)), types_pb2.ENGINE_KIND_GEMINI) as (house, provider):
        status, told = await posted(house, body)
        assert status == 200, told
        parts = provider.asked[-1].body["contents"][0]["parts"]
        assert {"inlineData": {"mimeType": "application/pdf", "data": PDF}} in parts


async def test_a_pdf_is_refused_by_its_own_name_where_nobody_reads_it(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        status, told = await posted(house, message(**EVERYBODYS["a PDF"]))
        assert (status, "`messages[0].content[0].source.data` is a PDF" in told["error"]["message"]) == (400, True)


async def test_the_official_client_finds_the_id_and_what_is_left_of_its_limits(
    claude: tuple[House, FakeAnthropic],
) -> None:
    house, _ = claude
    house.scheduler.rate = scheduler_pb2.RateStanding(
        limit_requests=60, remaining_requests=59, reset_requests_ms=1000, limit_tokens=10_000, remaining_tokens=900
    )
    async with anthropic.AsyncAnthropic(base_url=house.url, api_key=str(house.key), max_retries=0) as client:
        told = await client.messages.with_raw_response.create(**message())
        assert told.request_id == told.headers["x-request-id"]
        limits = {name: value for name, value in told.headers.items() if "ratelimit" in name}
        moment = datetime.fromisoformat(limits.pop("anthropic-ratelimit-requests-reset"))
        assert -5 < (moment - datetime.now(UTC)).total_seconds() < 5
        datetime.fromisoformat(limits.pop("anthropic-ratelimit-tokens-reset"))
        assert limits == {
            "anthropic-ratelimit-requests-limit": "60",
            "anthropic-ratelimit-requests-remaining": "59",
            "anthropic-ratelimit-tokens-limit": "10000",
            "anthropic-ratelimit-tokens-remaining": "900",
        }
        house.scheduler.reject_with = scheduler_pb2.Reject(reason="rate_limited", standing=house.scheduler.rate)
        for refused in (
            client.messages.create(**message()),
            client.messages.create(**message(stop_sequences="x")),
            client.models.list(limit=0),
        ):
            with pytest.raises(anthropic.APIStatusError) as caught:
                await refused
            assert caught.value.request_id == caught.value.response.headers["x-request-id"]
        counted = await client.messages.with_raw_response.count_tokens(model=MODEL, messages=[HELLO])  # type: ignore[list-item]
        assert counted.request_id


async def test_what_a_stream_says_last_of_its_tokens_is_true_of_the_prompt_too(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        client = anthropic.AsyncAnthropic(base_url=house.url, api_key=str(house.key), max_retries=0)
        async with client, client.messages.stream(**message(messages=[{**HELLO, "content": "x " * 400}])) as events:
            (last,) = [event async for event in events if event.type == "message_delta"]
        (row,) = await house.rows(1)
        assert row.usage.source == types_pb2.USAGE_SOURCE_ENGINE
        assert (last.usage.input_tokens, last.usage.output_tokens) == (
            row.usage.prompt_tokens,
            row.usage.completion_tokens,
        )
