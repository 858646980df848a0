"""How many calls of functions a usual request costs, and a usual piece of a stream: on this path all cost about the same, so
their number is the cost, and unlike time it can be counted on any machine.

A bound that is passed is no bug. Look at what was added (the failure lists it) and ask whether each request needs it; if so,
raise the bound and say in the same change what it buys."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, cast

import pytest

from forebay.launch import loop_factory
from forebay.wire.v1 import types_pb2
from tests.gateway.house import MODEL, House, ask, eventually, open_house

pytestmark = pytest.mark.interpreted  # what is compiled makes no calls that could be counted

REQUEST_IN_PYTHON, REQUEST_IN_C = 184, 147
CHUNK_IN_ALL = 18
"""Calls, a little above what they were when they were counted last."""

_ROOTS = ("HotConnection.", "Connection.", "Visit.")
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Some words."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}


def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    told = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices}
    return b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"


@dataclass
class Calls:
    """Made by what begins in one of the gateway's own connections, and not by whatever else runs in this process."""

    python: int = 0
    c: int = 0
    lines: list[str] = field(default_factory=list)
    _root: FrameType | None = None
    _depth: int = 0

    def note(self, frame: FrameType, event: str, what: Any) -> None:
        if self._root is None:
            if event != "call" or not _is_ours(frame.f_code):
                return
            self._root, self._depth = frame, 0
        if event == "call":
            self.python += 1
            where = "/".join(frame.f_code.co_filename.split("/")[-2:])
            self.lines.append(f"{'  ' * self._depth}{frame.f_code.co_qualname}   {where}")
            self._depth += 1
        elif event == "return":
            self._depth -= 1
            if frame is self._root:
                self._root = None
        elif event == "c_call":
            self.c += 1
            self.lines.append(f"{'  ' * self._depth}. {getattr(what, '__qualname__', what)}")

    @property
    def listed(self) -> str:
        return "\n".join(self.lines)


def _is_ours(code: CodeType) -> bool:
    return code.co_qualname.startswith(_ROOTS) and "/forebay_gateway/http_" in code.co_filename


@contextmanager
def counted() -> Iterator[Calls]:
    calls = Calls()
    sys.setprofile(calls.note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


class Engine(asyncio.Protocol):
    """Answers each request with the same bytes, the head and the body of a whole answer in one piece; of a stream it sends a
    piece when it is told to."""

    def __init__(self) -> None:
        self.wires: list[asyncio.Transport] = []
        self._came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, _, body = self._came.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        if len(body) < length:
            return
        self._came = b""
        if json.loads(body).get("stream"):
            self.wires.append(self._wire)
            self._wire.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                + framed(chunk({"role": "assistant", "content": ""}))
            )
            return
        told = json.dumps(ANSWER).encode()
        self._wire.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(told), told)
        )


def framed(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


@asynccontextmanager
async def usual_house(directory: Path) -> AsyncIterator[tuple[House, Engine]]:
    """One engine of OpenAI's kind, and a credit for its slots."""
    engine = Engine()
    server = await asyncio.get_running_loop().create_server(lambda: engine, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, open_house(directory) as house:
        await house.put("b1", f"http://127.0.0.1:{port}", kind=types_pb2.ENGINE_KIND_OPENAI, slots=8)
        house.scheduler.slots["b1"] = 8
        house.scheduler.lend(1, "b1", 8, leases=10_000, valid_ms=600_000)
        await house.stop_server(house.scheduler)
        await house.start_server(house.scheduler)
        await eventually(lambda: house.metric("forebay_gateway_credit_slots") == 8, "no credit came")
        yield house, engine


async def say(house: House, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, **fields: Any) -> bytes:
    """A usual client's request, and what comes first of the answer."""
    body = json.dumps(ask(**fields)).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {house.url.removeprefix('http://')}\r\n"
        f"authorization: Bearer {house.key}\r\ncontent-type: application/json\r\naccept: */*\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    return await reader.readuntil(b"\r\n\r\n")


@asynccontextmanager
async def dialled(house: House) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = house.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


def run(story: Coroutine[Any, Any, None]) -> None:
    """On the loop that gateways run on."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(asyncio.wait_for(story, 60))


def test_a_usual_request_makes_no_more_calls_than_it_did(tmp_path: Path) -> None:
    run(_count_request(tmp_path))


async def _count_request(directory: Path) -> None:
    async with usual_house(directory) as (house, _), dialled(house) as wire:
        reader, _ = wire

        async def served() -> None:
            head = await say(house, *wire)
            assert b" 200 OK\r\n" in head, head
            length = int(head.partition(b"content-length: ")[2].split()[0])
            assert json.loads(await reader.readexactly(length)) == ANSWER

        for _ in range(3):  # what is remembered from one request to the next
            await served()
        with counted() as calls:
            await served()
            await asyncio.sleep(0)
        assert house.metric('forebay_gateway_starts_unasked_total{by="credit"}') >= 3
        assert calls.python <= REQUEST_IN_PYTHON, f"{calls.python} calls in Python:\n{calls.listed}"
        assert calls.c <= REQUEST_IN_C, f"{calls.c} calls in C:\n{calls.listed}"


def test_a_usual_piece_of_a_stream_makes_no_more_calls_than_it_did(tmp_path: Path) -> None:
    run(_count_chunk(tmp_path))


async def _count_chunk(directory: Path) -> None:
    async with usual_house(directory) as (house, engine), dialled(house) as wire:
        reader, _ = wire
        await say(house, *wire, stream=True)
        (line,) = engine.wires

        async def passed(word: str) -> None:
            line.write(framed(chunk({"content": word})))
            await reader.readuntil(b'"content":"%b"' % word.encode())

        await reader.readuntil(b'"content":""')
        for word in ("a", "few", "words"):
            await passed(word)
        with counted() as calls:
            await passed("more")
        count = calls.python + calls.c
        line.write(framed(chunk({}, "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await reader.readuntil(b"[DONE]")
        assert count <= CHUNK_IN_ALL, f"{count} calls:\n{calls.listed}"
