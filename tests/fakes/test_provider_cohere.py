"""The fake of Cohere's API: the same answer whole and streamed, and what it refuses as the real one does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.fakes.provider import API_KEY, Refused
from tests.fakes.provider_cohere import PLAN, FakeCohere, check_chat

TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture
async def fake() -> AsyncIterator[FakeCohere]:
    async with FakeCohere(models=("a", "b", "c")) as fake:
        yield fake


def asking(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "a", "messages": [{"role": "user", "content": text}], **more}


async def post(fake: FakeCohere, body: Any, key: str = API_KEY) -> tuple[int, str]:
    headers = {"authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{fake.url}/v2/chat", json=body, headers=headers) as answer,
    ):
        return answer.status, await answer.text()


def gathered(text: str) -> tuple[dict[str, str], Any]:
    """The texts by their kind, and the last event."""
    blocks = [block for block in text.split("\n\n") if block]
    assert blocks.pop() == "data: [DONE]"
    events = [json.loads(block.partition("data: ")[2]) for block in blocks]
    texts: dict[str, str] = {}
    for event in events:
        message = event.get("delta", {}).get("message", {})
        if event["type"] == "content-delta":
            for kind, piece in message["content"].items():
                texts[kind] = texts.get(kind, "") + piece
        elif event["type"] == "tool-plan-delta":
            texts["plan"] = texts.get("plan", "") + message["tool_plan"]
        elif event["type"] == "tool-call-delta":
            texts["arguments"] = texts.get("arguments", "") + message["tool_calls"]["function"]["arguments"]
    return texts, events[-1]


async def test_an_answer_is_the_same_whole_and_streamed(fake: FakeCohere) -> None:
    for body in (
        asking("repeat: Grüße, 世界"),
        asking("repeat: x", thinking={"type": "enabled", "token_budget": 100}),
        asking("repeat: a b c STOP d", stop_sequences=["STOP"]),
        asking("Use the tool.", tools=[TOOL]),
        asking("repeat: a b c d e", max_tokens=2),
    ):
        status, raw = await post(fake, body)
        assert status == 200, raw
        whole = json.loads(raw)
        texts, end = gathered((await post(fake, {**body, "stream": True}))[1])
        content = {block["type"]: block[block["type"]] for block in whole["message"].get("content", [])}
        assert {kind: texts[kind] for kind in texts if kind in ("text", "thinking")} == content
        assert texts.get("plan") == whole["message"].get("tool_plan")
        assert (end["delta"]["finish_reason"], end["delta"]["usage"]) == (whole["finish_reason"], whole["usage"])
        if "tools" in body:
            assert texts["plan"] == PLAN
            assert texts["arguments"] == whole["message"]["tool_calls"][0]["function"]["arguments"]


async def test_errors_are_messages(fake: FakeCohere) -> None:
    assert await post(fake, asking("x"), "wrong") == (401, '{"id": "fake", "message": "invalid api token"}')
    status, told = await post(fake, {**asking("x"), "model": "nobody"})
    assert (status, "not found" in told) == (404, True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"n": 1}, "Extra inputs"),
        ({"messages": []}, "must not be empty"),
        ({"messages": [{"role": "user", "content": ""}]}, "must have content"),
        ({"messages": [{"role": "developer", "content": "x"}]}, "invalid role"),
        ({"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]}, "not found in previous"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "invalid content type"),
        ({"p": 1.0}, "p must be"),
        ({"frequency_penalty": -1}, "frequency_penalty"),
        ({"stop_sequences": list("abcdef")}, "5 elements"),
        ({"tool_choice": "REQUIRED"}, "needs tools"),
        ({"tools": [TOOL], "response_format": {"type": "json_object"}}, "not supported with tools"),
        ({"response_format": {"type": "json_schema"}}, "response_format.type"),
        ({"thinking": {"type": "adaptive"}}, "thinking.type"),
    ],
)
def test_what_the_documentation_forbids_is_refused(change: Any, why: str) -> None:
    check_chat(asking("x"))
    with pytest.raises(Refused, match=why):
        check_chat(asking("x") | change)
