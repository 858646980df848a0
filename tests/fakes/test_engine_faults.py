"""Faults of the fake engine, each ordered through its control URL and seen from the client's side."""

from __future__ import annotations

import json
import time
from typing import Any

import aiohttp
import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import word
from tests.fakes.engine_process import EngineControl

TEN_WORDS = "".join(word(i) for i in range(10))


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "fake-model", "messages": [{"role": "user", "content": "one two three"}], **fields}


async def ask(session: aiohttp.ClientSession, engine: FakeEngine, **fields: Any) -> tuple[int, bytes]:
    async with session.post(f"{engine.url}/v1/chat/completions", json=chat(**fields)) as response:
        return response.status, await response.read()


async def read_until_broken(session: aiohttp.ClientSession, engine: FakeEngine, **fields: Any) -> bytes:
    """What came before the connection broke; fails if it did not."""
    raw = b""
    try:
        async with session.post(f"{engine.url}/v1/chat/completions", json=chat(**fields)) as response:
            async for piece in response.content.iter_any():
                raw += piece
    except aiohttp.ClientError:
        return raw
    raise AssertionError(f"the answer came to a proper end: {raw!r}")


def words_in(raw: bytes) -> int:
    return raw.count(b'"content":"word') + raw.count(b'"content":" word')


async def test_a_status_is_answered_as_many_times_as_ordered(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    await control.inject("status", status=429, message="too much", retry_after_s=1.5, times=2)
    async with session.post(f"{engine.url}/v1/chat/completions", json=chat()) as response:
        assert response.status == 429
        assert response.headers["retry-after"] == "1.5"
        assert (await response.json())["error"]["message"] == "too much"
    assert [(await ask(session, engine))[0] for _ in range(2)] == [429, 200]


async def test_a_status_on_ollamas_routes_is_told_in_ollamas_shape(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    await control.inject("status", status=500, message="out of memory")
    async with session.post(f"{engine.url}/api/chat", json=chat()) as response:
        assert (response.status, await response.json()) == (500, {"error": "out of memory"})


async def test_a_fault_on_a_path_leaves_other_paths_alone(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    await control.inject("status", status=500, on="/v1/models")
    assert (await ask(session, engine))[0] == 200
    async with session.get(f"{engine.url}/v1/models") as response:
        assert response.status == 500


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_the_connection_closes_before_the_headers(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl, reset: bool
) -> None:
    await control.inject("close_before_headers", reset=reset)
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask(session, engine)
    assert (await ask(session, engine))[0] == 200
    assert [seen.ending for seen in engine.record.requests] == ["broken", "finished"]


async def test_connections_are_refused_for_a_while(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    await control.inject("refuse_connection", seconds=0.3)
    async with aiohttp.ClientSession() as newcomer:
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask(newcomer, engine)
        began = time.monotonic()
        while True:
            try:
                status, _ = await ask(newcomer, engine)
            except aiohttp.ClientConnectorError:
                assert time.monotonic() - began < 10
                continue
            break
    assert status == 200


async def test_headers_come_late(engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl) -> None:
    await control.inject("slow_headers", seconds=0.2)
    began = time.monotonic()
    async with session.post(f"{engine.url}/v1/chat/completions", json=chat(stream=True)) as response:
        assert time.monotonic() - began >= 0.2
        assert words_in(await response.read()) == 10


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_a_stream_is_cut_after_so_many_chunks_and_its_slot_is_free(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl, reset: bool
) -> None:
    await control.inject("cut_after", chunks=3, reset=reset)
    raw = await read_until_broken(session, engine, stream=True)
    assert words_in(raw) <= 3 if reset else words_in(raw) == 3
    assert b"[DONE]" not in raw
    assert engine.slots.running == 0
    assert [seen.ending for seen in engine.record.requests] == ["broken"]


async def test_a_plain_answer_is_cut_in_the_middle_of_its_body(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    await control.inject("cut_after")
    raw = await read_until_broken(session, engine)
    with pytest.raises(ValueError, match=r"\w"):
        json.loads(raw)


async def test_a_stream_stalls_after_so_many_chunks_and_goes_on(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    await control.inject("stall_after", chunks=4, seconds=0.3)
    arrivals: list[float] = []
    async with session.post(f"{engine.url}/v1/chat/completions", json=chat(stream=True)) as response:
        async for line in response.content:
            if words_in(line):
                arrivals.append(time.monotonic())
    assert len(arrivals) == 10
    assert arrivals[4] - arrivals[3] >= 0.25
    assert arrivals[3] - arrivals[0] < 0.25


async def test_an_error_event_ends_a_stream_after_so_many_chunks(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    await control.inject("error_event_after", chunks=2, message="the GPU fell off")
    status, raw = await ask(session, engine, stream=True)
    *_, last = raw.removesuffix(b"\n\n").split(b"\n\n")
    assert status == 200
    assert words_in(raw) == 2
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"] == "the GPU fell off"


async def test_an_event_that_is_not_json_comes_in_between(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    await control.inject("malformed_sse", chunks=1)
    _, raw = await ask(session, engine, stream=True)
    events = [event.removeprefix(b"data: ") for event in raw.removesuffix(b"\n\n").split(b"\n\n")]
    broken = [event for event in events if event != b"[DONE]" and not _is_json(event)]
    assert len(broken) == 1
    assert words_in(raw) == 10


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_is_left_out_although_asked_for(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl, stream: bool
) -> None:
    await control.inject("no_usage")
    _, raw = await ask(session, engine, stream=stream, stream_options={"include_usage": True})
    assert b"usage" not in raw
    _, raw = await ask(session, engine, stream=stream, stream_options={"include_usage": True})
    assert b'"completion_tokens": 10' in raw or b'"completion_tokens":10' in raw


async def test_a_stream_ends_without_done(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    await control.inject("no_done")
    _, raw = await ask(session, engine, stream=True)
    assert b"[DONE]" not in raw
    assert b'"finish_reason":"stop"' in raw


async def test_comment_lines_come_between_the_chunks(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    await control.inject("comments")
    _, raw = await ask(session, engine, stream=True)
    assert raw.startswith(b": ")
    assert words_in(raw) == 10


async def test_an_unhealthy_engine_says_so_to_every_probe_and_generates_all_the_same(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    await control.inject("unhealthy")
    for path in ("/health", "/v1/models", "/api/tags", "/health"):
        async with session.get(engine.url + path) as response:
            assert response.status == 503
    assert (await ask(session, engine))[0] == 200
    await control.reset()
    async with session.get(f"{engine.url}/health") as response:
        assert response.status == 200


async def test_faults_of_different_kinds_hit_the_same_request_and_of_one_kind_one_after_the_other(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    await control.inject("slow_headers", seconds=0.1)
    await control.inject("status", status=500)
    await control.inject("status", status=502)
    assert [(await ask(session, engine))[0] for _ in range(3)] == [500, 502, 200]
    assert [seen.faults for seen in engine.record.requests] == [["slow_headers", "status"], ["status"], []]


@pytest.mark.parametrize("fields", [{"kind": "earthquake"}, {"kind": "status", "code": 1}])
async def test_an_unknown_fault_is_refused(control: EngineControl, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"kind is one of|unknown fields"):
        await control.inject(**fields)


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except ValueError:
        return False
    return True
