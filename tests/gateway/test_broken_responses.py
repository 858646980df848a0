"""A response whose stream breaks ends with `response.failed`, under the number that comes next, whatever it broke of."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, House, eventually, open_house

EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


async def events(house: House, **headers: str) -> list[dict[str, Any]]:
    body = {"model": MODEL, "input": "Hi", "stream": True}
    asked = house.client.post(f"{house.url}/v1/responses", json=body, headers={**house.headers, **headers})
    async with asked as answer:
        assert answer.status == 200, await answer.text()
        blocks = (await answer.text()).strip().split("\n\n")
    told = [json.loads(block.partition("data: ")[2]) for block in blocks if not block.startswith(":")]
    for event in told:
        EVENTS.validate_python(event)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    return told


async def test_an_engine_that_breaks_in_the_middle_leaves_a_failed_response(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=200, answer_tokens=8))
    engine.faults.add(Fault(FaultKind.CUT_AFTER, chunks=3))
    async with open_house(tmp_path, engine) as house:
        told = await events(house)
        error, last = told[-2:]
        assert (error["type"], error["code"], last["type"]) == ("error", "engine_failed", "response.failed")
        response = last["response"]
        assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
        assert response["error"]["message"] == error["message"]
        assert response["output"][0]["content"][0]["text"].startswith("word0")
        assert response["id"] == told[0]["response"]["id"]
        (kept,) = [json.loads(thing.body)["response"] for thing in house.admin.contents.kept("response")]
        assert kept == response


async def test_a_refusal_after_comments_is_a_failed_response_too(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=20, answer_tokens=100), slots=1)
    async with open_house(tmp_path, engine, waiting_s=0.05) as house:
        first = asyncio.create_task(events(house))
        await eventually(lambda: house.scheduler.held)
        told = await events(house, **{"x-forebay-deadline-ms": "300"})
        assert [event["type"] for event in told] == [
            "response.created",
            "response.in_progress",
            "error",
            "response.failed",
        ]
        assert told[-1]["response"]["error"]["code"] == "server_error"
        assert told[0]["response"]["store"] is told[-1]["response"]["store"] is False
        first.cancel()


async def test_openais_sdk_raises_what_broke(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=200, answer_tokens=8))
    engine.faults.add(Fault(FaultKind.CUT_AFTER, chunks=3))
    async with (
        open_house(tmp_path, engine) as house,
        openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0) as sdk,
    ):
        with pytest.raises(openai.APIError, match="failed in the middle"):
            async with sdk.responses.stream(model=MODEL, input="Hi") as stream:
                await stream.until_done()
