"""Engines that no fake would think of: they do not read, refuse inside a stream, or dislike what one client sent."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from forebay.clock import SystemClock
from forebay_gateway.fleet import Backend
from forebay_gateway.keyring import Keyring
from forebay_gateway.upstream import open_upstream
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, OUTCOME, House, ask, eventually, open_house
from tests.gateway.sse_text import stream

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def house_with(tmp_path: Path, talk: Talk, **changes: object) -> AsyncIterator[House]:
    """A house whose only backend is a server of raw bytes."""
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server, open_house(tmp_path, **changes) as house:
        house.scheduler.slots["b1"] = 4
        await house.put("b1", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with asyncio.timeout(30):
            while True:
                async with house.client.get(f"{house.url}/v1/models", headers=house.headers) as answer:
                    if MODEL in await answer.text():
                        break
        yield house


async def test_a_request_that_its_engine_does_not_read_is_cut_when_its_client_goes(tmp_path: Path) -> None:
    may_read, is_over, got = asyncio.Event(), asyncio.Event(), 0
    began = asyncio.Event()
    body = io.BytesIO(json.dumps(ask(user="x" * (24 << 20))).encode())

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        began.set()
        await may_read.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        try:
            while piece := await reader.read(1 << 20):
                got += len(piece)
        except ConnectionError:
            pass
        finally:
            is_over.set()
            writer.close()

    async with house_with(tmp_path, talk) as house:
        asking = asyncio.create_task(house.post(data=body).__aenter__())
        await asyncio.wait_for(began.wait(), 30)
        await asyncio.sleep(0.2)
        asking.cancel()
        await asyncio.wait([asking])
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_CANCELLED"
        may_read.set()
        await asyncio.wait_for(is_over.wait(), 30)
        assert got < 24 << 20, "all of it was sent, although nobody wanted an answer any more"


async def test_bytes_that_an_engine_does_not_take_do_not_keep_its_connection(tmp_path: Path) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        began.set()
        await may_end.wait()
        writer.transport.abort()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    backend = Backend("b1", "b1", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server, open_upstream(Keyring(lambda _: (), SystemClock()), 5.0) as upstream:
        open_before = len(os.listdir("/dev/fd"))
        sent = upstream.send(
            backend,
            "/",
            lambda *, ask_usage: b"x" * (24 << 20),
            request_id="r",
            traceparent=None,
            before_write=lambda connection: None,
        )
        sending = asyncio.ensure_future(sent)
        await asyncio.wait_for(began.wait(), 30)
        await asyncio.sleep(0.2)
        sending.cancel()
        await asyncio.wait([sending])
        await eventually(lambda: len(os.listdir("/dev/fd")) == open_before + 1, "only the engine's own end may stay")
        may_end.set()


async def test_a_request_takes_no_memory_once_its_answer_has_begun(tmp_path: Path) -> None:
    size, may_end = 8 << 20, asyncio.Event()
    chunk = json.dumps({"model": MODEL, "choices": [{"index": 0, "delta": {"content": "word"}}]})

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        left = int(length[1]) if length else 0
        while left:
            left -= len(await reader.read(left))
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {chunk}\n\n".encode())
        await may_end.wait()
        writer.close()

    async with house_with(tmp_path, talk) as house:
        body = json.dumps(ask(stream=True, user="x" * size)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {house.key}\r\n"
        reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
        tracemalloc.start()
        try:
            writer.write(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode())
            writer.write(body)
            await reader.readuntil(b"data: ")
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        may_end.set()
        writer.close()
        assert held < size / 2


async def test_no_connection_is_made_past_the_fence_only_to_be_left_open(tmp_path: Path) -> None:
    made = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        await reader.read()
        writer.close()

    async with house_with(tmp_path, talk, isolation="refuse", fence_s=0.2) as house:
        house.scheduler.renewed_ago_ms = 10_000
        await asyncio.sleep(0.4)
        for _ in range(3):
            async with house.post(ask()) as answer:
                assert (answer.status, answer.headers["x-forebay-reason"]) == (503, "no_scheduler")
        assert made == 0


async def test_a_refusal_that_comes_as_a_streams_first_event_costs_nothing(tmp_path: Path) -> None:
    refusal = b'data: {"error": {"message": "no such template", "code": 400}}\n\n'

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + refusal)
        await writer.drain()
        writer.close()

    async with house_with(tmp_path, talk) as house:
        async with house.post(ask(stream=True)) as answer:
            assert answer.status == 400
            assert "no such template" in (await answer.json())["error"]["message"]
        (row,) = await house.rows(1)
        assert (row.reason, row.usage.prompt_tokens) == ("engine_refused", 0)


async def test_what_an_engine_dislikes_in_one_clients_stream_options_is_not_held_against_it(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=1000, answer_tokens=4))
    message = "stream_options is only allowed when stream is set"
    engine.faults.add(Fault(FaultKind.STATUS, status=400, message=message, times=2))
    async with open_house(tmp_path, engine) as house:
        async with house.post(ask(stream_options={"include_usage": True})) as answer:
            assert answer.status == 400
            assert message in (await answer.json())["error"]["message"]
        assert (await stream(house))[-1] == "[DONE]"
        assert engine.record.requests[-1].body["stream_options"] == {"include_usage": True}


async def test_where_an_engine_is_that_cannot_be_reached_is_not_told_to_clients(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        house.scheduler.slots["b1"] = 1
        for url in ("http://127.0.0.1:9", "http://nowhere.invalid:8000"):
            await house.put("b1", url)
            await asyncio.sleep(0.1)
            async with house.post(ask()) as answer:
                told = await answer.text()
                assert answer.status == 502, told
                assert "No answer came" in told
                assert not re.search(r"127|:9|nowhere|8000|Error", told), told
