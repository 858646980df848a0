"""Streamed chat completions through a gateway, over real HTTP, from a fake engine."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from aiohttp import web

from forebay.wire.v1 import types_pb2
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, OUTCOME, ask, eventually, open_house
from tests.gateway.sse_text import events, stream, text_of


async def test_a_stream_arrives_chunk_by_chunk(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=50, answer_tokens=10))
    async with open_house(tmp_path, engine) as house, house.post(ask(stream=True)) as answer:
        began, arrivals, text = time.monotonic(), [], b""
        async for chunk in answer.content.iter_any():
            arrivals.append(time.monotonic() - began)
            text += chunk
        assert answer.status == 200, text
        told = events(text.decode())
        assert told[-1] == "[DONE]"
        assert text_of(told).split() == [f"word{i}" for i in range(10)]
        assert len(arrivals) >= 8
        assert arrivals[-1] - arrivals[0] > 0.1
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-forebay-model"] == "fake-model"
        assert answer.headers["x-forebay-attempts"] == "1"
        assert "x-forebay-queue-ms" in answer.headers
        assert "x-forebay-backend" not in answer.headers
        assert answer.headers["x-request-id"].startswith("req-")
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_FINISHED"
        assert row.usage.completion_tokens == 10
        assert row.usage.source == types_pb2.USAGE_SOURCE_ENGINE
        assert row.http_status == 200
        assert row.attempts == 1
        assert row.HasField("ttft_ms")
        assert (row.user_id, row.key_id, row.model, row.backend_id) == ("u-1", house.key.public_id, "fake-model", "b1")


async def test_usage_is_told_only_to_those_who_ask(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=Pace(tokens_per_s=1000, answer_tokens=16))) as house:
        silent = await stream(house)
        assert all(event == "[DONE]" or event["choices"] for event in silent)
        told = await stream(house, stream_options={"include_usage": True})
        assert told[-2]["choices"] == []
        assert told[-2]["usage"]["completion_tokens"] == 16


async def test_llama_cpps_usage_of_each_choice_is_added_up(tmp_path: Path) -> None:
    engine = FakeEngine(flavour=Flavour.LLAMA_CPP, pace=Pace(tokens_per_s=1000, answer_tokens=5))
    async with open_house(tmp_path, engine) as house:
        told = await stream(house, n=3, stream_options={"include_usage": True})
        usages = [event["usage"] for event in told if event != "[DONE]" and event.get("usage")]
        assert len(usages) == 1
        assert usages[0]["completion_tokens"] == 15
        assert usages[0]["total_tokens"] == usages[0]["prompt_tokens"] + 15
        (row,) = await house.rows(1)
        assert row.usage.completion_tokens == 15
        assert row.width == 3


async def test_an_engine_that_reports_no_usage_is_counted(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=1000, answer_tokens=7))
    engine.faults.add(Fault(FaultKind.NO_USAGE))
    async with open_house(tmp_path, engine) as house:
        await stream(house)
        (row,) = await house.rows(1)
        assert row.usage.completion_tokens == 7
        assert row.usage.source == types_pb2.USAGE_SOURCE_COUNTED
        assert row.usage.prompt_tokens > 0


async def test_a_stream_without_an_end_mark_still_gets_one_when_its_choices_are_finished(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=1000, answer_tokens=3))
    engine.faults.add(Fault(FaultKind.NO_DONE))
    async with open_house(tmp_path, engine) as house:
        told = await stream(house)
        assert told[-1] == "[DONE]"
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_FINISHED"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(FaultKind.CUT_AFTER, chunks=3),
        Fault(FaultKind.CUT_AFTER, chunks=3, reset=True),
        Fault(FaultKind.ERROR_EVENT_AFTER, chunks=3, message="out of memory"),
        Fault(FaultKind.MALFORMED_SSE, chunks=3),
    ],
    ids=["closed", "reset", "error-event", "garbage"],
)
async def test_an_engine_that_breaks_in_the_middle_ends_the_stream_with_an_error_event(
    tmp_path: Path, fault: Fault
) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=100, answer_tokens=8))
    engine.faults.add(fault)
    async with open_house(tmp_path, engine, FakeEngine()) as house:
        told = await stream(house)
        assert told[-1]["error"]["code"] == "engine_failed"
        assert "word0" in text_of(told)
        assert house.scheduler.nacks == [], "half an answer must not be followed by another one"
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.reason, row.http_status) == ("OUTCOME_FAILED", "engine_failed", 200)
        assert row.usage.completion_tokens >= 2
        assert [s.outcome for s in house.scheduler.settles] == [types_pb2.OUTCOME_FAILED]


async def test_a_slow_client_slows_the_engine(tmp_path: Path) -> None:
    """The engine may run ahead by what buffers on the way hold, and not by the whole answer."""
    filler = "x" * 65536
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        chunk = {"model": MODEL, "choices": [{"index": 0, "delta": {"content": filler}, "finish_reason": None}]}
        event = b"data: " + json.dumps(chunk).encode() + b"\n\n"
        for _ in range(2000):
            await response.write(event)
            sent += len(event)
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", flood)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with open_house(tmp_path) as house:
            house.scheduler.slots["b1"] = 4
            await house.put("b1", f"http://127.0.0.1:{site.port}")
            await asyncio.sleep(0.1)
            host, port = house.url.removeprefix("http://").split(":")
            _reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
            body = json.dumps(ask(stream=True)).encode()
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.key}\r\n"
                f"content-length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await eventually(lambda: sent > 0)
            await asyncio.sleep(1.0)
            level = sent
            await asyncio.sleep(0.5)
            assert sent == level, "the engine goes on although nobody reads"
            assert sent < 32 << 20
            writer.transport.abort()
            (row,) = await house.rows(1)
            assert OUTCOME(row.outcome) == "OUTCOME_CANCELLED"
    finally:
        await runner.cleanup()


async def test_a_waiting_stream_gets_comment_lines_and_then_its_answer(tmp_path: Path) -> None:
    engine = FakeEngine(slots=1, pace=Pace(tokens_per_s=20, answer_tokens=10))
    async with open_house(tmp_path, engine, waiting_s=0.1) as house:
        first = asyncio.create_task(stream(house))
        await eventually(lambda: engine.slots.running == 1)
        async with house.post(ask(stream=True)) as answer:
            begun = await answer.content.readuntil(b"\n\n")
            assert begun == b": waiting\n\n"
            assert not first.done()
            rest = (await answer.read()).decode()
        assert ": waiting" in rest
        assert events(rest)[-1] == "[DONE]"
        assert text_of(events(rest)).split()[-1] == "word9"
        assert text_of(await first).split()[-1] == "word9"


async def test_a_refusal_after_a_comment_line_is_an_event_in_the_stream(tmp_path: Path) -> None:
    engine = FakeEngine(slots=1)
    async with open_house(tmp_path, engine, waiting_s=0.05) as house:
        house.scheduler.slots["b1"] = 0
        async with house.post(ask(stream=True), headers={**house.headers, "x-forebay-deadline-ms": "200"}) as answer:
            assert answer.status == 200
            text = await answer.text()
        assert text.startswith(": waiting")
        (error,) = events(text)
        assert error["error"]["code"] == "queue_timeout"
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.reason) == ("OUTCOME_REFUSED", "queue_timeout")


async def test_failover_still_works_after_a_comment_line(tmp_path: Path) -> None:
    slow = FakeEngine(pace=Pace(ttft_s=0))
    slow.faults.add(Fault(FaultKind.SLOW_HEADERS, seconds=0.2))
    slow.faults.add(Fault(FaultKind.CLOSE_BEFORE_HEADERS))
    async with open_house(tmp_path, slow, FakeEngine(), waiting_s=0.05) as house:
        async with house.post(ask(stream=True)) as answer:
            text = await answer.text()
        assert text.startswith(": waiting")
        assert events(text)[-1] == "[DONE]"
        assert len(house.scheduler.nacks) == 1
