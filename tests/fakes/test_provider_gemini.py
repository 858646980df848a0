"""The fake of Gemini's API against its published shapes, and what it refuses as the real one does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.fakes.provider import API_KEY, Refused
from tests.fakes.provider_gemini import FakeGemini, check_request

HEADERS = {"x-goog-api-key": API_KEY}
DECLARED = {"functionDeclarations": [{"name": "weather", "parametersJsonSchema": {"type": "object"}}]}


@pytest.fixture
async def fake() -> AsyncIterator[FakeGemini]:
    async with FakeGemini(models=("gemini-2.5-flash",)) as fake:
        yield fake


def asking(text: str, **more: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}


async def post(fake: FakeGemini, method: str, body: Any, **headers: str) -> tuple[int, str]:
    url = f"{fake.url}/v1beta/models/gemini-2.5-flash:{method}"
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers or HEADERS) as answer:
        return answer.status, await answer.text()


async def test_an_answer_has_candidates_with_parts_and_what_was_used(fake: FakeGemini) -> None:
    config = {"maxOutputTokens": 40, "candidateCount": 2, "thinkingConfig": {"includeThoughts": True}}
    status, text = await post(fake, "generateContent", asking("repeat: Grüße", generationConfig=config))
    assert status == 200
    told = json.loads(text)
    first, second = told["candidates"]
    assert first == {
        "content": {"role": "model", "parts": [{"text": "Let me think.", "thought": True}, {"text": "Grüße"}]},
        "finishReason": "STOP",
    }
    assert second["index"] == 1
    used = told["usageMetadata"]
    assert used["thoughtsTokenCount"] == 8
    assert used["totalTokenCount"] == sum(used[n] for n in used if n != "totalTokenCount")


async def test_a_stream_is_events_of_which_the_last_says_why_it_ended(fake: FakeGemini) -> None:
    status, text = await post(fake, "streamGenerateContent?alt=sse", asking("repeat: a b c d e f"))
    assert status == 200
    told = [json.loads(event.removeprefix("data: ")) for event in text.split("\r\n\r\n") if event]
    parts = [each["candidates"][0]["content"]["parts"][0] for each in told]
    assert "".join(part["text"] for part in parts) == "a b c d e f"
    assert ["finishReason" in each["candidates"][0] for each in told] == [False] * (len(told) - 1) + [True]
    assert (await post(fake, "streamGenerateContent", asking("x")))[0] == 404


async def test_calls_come_whole_and_signed(fake: FakeGemini) -> None:
    calling = {"functionCallingConfig": {"mode": "ANY"}}
    body = asking("Hello.", tools=[DECLARED], toolConfig=calling)
    _, text = await post(fake, "streamGenerateContent?alt=sse", body)
    assert '"functionCall": {"name": "weather", "args": {}}, "thoughtSignature"' in text


async def test_keys_are_taken_in_their_header_alone(fake: FakeGemini) -> None:
    status, text = await post(fake, "generateContent", asking("x"), **{"x-goog-api-key": "wrong"})
    assert (status, json.loads(text)["error"]["status"]) == (400, "INVALID_ARGUMENT")
    status, _ = await post(fake, f"generateContent?key={API_KEY}", asking("x"))
    assert status == 400
    status, _ = await post(fake, "generateContent", asking("x"), **HEADERS, authorization="Bearer x")
    assert status == 401


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"messages": []}, 'Unknown name "messages"'),
        ({"contents": []}, "not specified"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "valid role"),
        ({"contents": [{"role": "model", "parts": [{"text": "x"}]}]}, "begin with a user turn"),
        ({"contents": [{"role": "user", "parts": [{"text": ""}]}]}, "text parameter"),
        ({"generationConfig": {"max_tokens": 5}}, "Unknown name"),
        ({"generationConfig": {"responseJsonSchema": {}}}, "responseMimeType"),
        ({"generationConfig": {"thinkingConfig": {"thinkingBudget": 1, "thinkingLevel": "low"}}}, "only one"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, "without function_declarations"),
    ],
)
def test_what_the_documentation_forbids_is_refused(change: Any, why: str) -> None:
    check_request(asking("x"), "gemini-3")
    with pytest.raises(Refused, match=why):
        check_request(asking("x") | change, "gemini-3")


def test_calls_need_their_results_at_once_and_newer_models_a_signature() -> None:
    call: Any = {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {}}}]}
    result = {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"output": "sunny"}}}]}
    body = asking("x", tools=[DECLARED])
    asked = body["contents"]
    check_request({**body, "contents": [*asked, call, result]}, "gemini-2.5-flash")
    with pytest.raises(Refused, match="number of function response parts"):
        check_request({**body, "contents": [*asked, call, *asked]}, "gemini-2.5-flash")
    with pytest.raises(Refused, match="missing a thought_signature"):
        check_request({**body, "contents": [*asked, call, result]}, "gemini-3")
