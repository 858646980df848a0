"""One engine, fake or real, as the contract tests see it: where it is, how it is known to differ, how busy it says it is."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tests.fakes.engine_flavours import Traits

STORY = [{"role": "user", "content": "Tell me a long story about a river."}]


@dataclass(frozen=True, slots=True)
class EngineUnderTest:
    """It serves `model` in two slots of `context_tokens` each."""

    url: str
    model: str
    traits: Traits
    session: aiohttp.ClientSession
    context_tokens: int = 2048
    slots: int = 2
    opened: list[OpenRequest] = field(default_factory=list)
    """Closed by the fixture if the test did not come to it."""

    def chat(self, **fields: Any) -> dict[str, Any]:
        """A chat request that runs to exactly `max_tokens` unless told otherwise, and always says the same."""
        usual = {
            "model": self.model,
            "messages": STORY,
            "max_tokens": 8,
            "ignore_eos": True,
            "temperature": 0,
            "seed": 1,
        }
        return usual | fields

    async def post(self, path: str, body: Any) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        async with self.session.post(self.url + path, data=raw, headers=headers) as response:
            return Answer(response.status, response.headers.get("content-type", ""), await response.read())

    async def get(self, path: str) -> Answer:
        async with self.session.get(self.url + path) as response:
            return Answer(response.status, response.headers.get("content-type", ""), await response.read())

    async def open(self, path: str, body: Any) -> OpenRequest:
        """Send a request and leave the answer unread, on a connection of its own."""
        address = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        raw = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(raw)}\r\n\r\n"
        )
        writer.write(head.encode() + raw)
        await writer.drain()
        request = OpenRequest(reader, writer)
        self.opened.append(request)
        return request

    async def busy(self) -> int:
        """Slots that generate now."""
        return sum(slot["is_processing"] for slot in (await self.get("/slots")).json)

    async def waiting(self) -> int:
        """Requests that wait for a slot."""
        lines = (await self.get("/metrics")).body.decode().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("llamacpp:requests_deferred ")))

    async def seconds_until_busy(self, slots: int, *, within_s: float = 30.0) -> float:
        """How long it took until so many slots were busy. TimeoutError when it never came."""
        began = time.monotonic()
        async with asyncio.timeout(within_s):
            while await self.busy() != slots:
                await asyncio.sleep(0.005)
        return time.monotonic() - began

    async def seconds_until_waiting(self, requests: int, *, within_s: float = 30.0) -> float:
        began = time.monotonic()
        async with asyncio.timeout(within_s):
            while await self.waiting() != requests:
                await asyncio.sleep(0.005)
        return time.monotonic() - began


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content_type: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def chunks(self) -> list[Any]:
        """The JSON of every SSE event; fails on any byte that is not framed as `data: …` and a blank line."""
        events = self.body.decode().split("\n\n")
        assert events.pop() == ""
        assert events.pop() == "data: [DONE]"
        assert all(event.startswith("data: ") and "\n" not in event for event in events)
        return [json.loads(event.removeprefix("data: ")) for event in events]


@dataclass(frozen=True, slots=True)
class OpenRequest:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def first_chunk(self) -> None:
        await self.reader.readuntil(b"data: ")

    async def is_silent(self, seconds: float) -> bool:
        """Whether not a single byte of an answer came in that time."""
        try:
            await asyncio.wait_for(self.reader.readexactly(1), seconds)
        except TimeoutError:
            return True
        return False

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()
