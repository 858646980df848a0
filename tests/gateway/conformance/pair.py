"""Two gateways that must not be told apart: one answers hot requests on its own protocol, the other leaves all of HTTP to
aiohttp. The same is said to both, and what both answer is compared."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from forebay.subjects import USAGE_STREAM
from forebay.wire.v1 import types_pb2, usage_pb2
from forebay.wire.v1.fleet_pb2 import PoolSpec
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.conformance.odd_engine import OddEngine
from tests.gateway.conformance.wire import Answer, Wire, dial, request
from tests.gateway.house import MODEL, House, ask, eventually, open_house

T = TypeVar("T")

OLLAMA, ODD, NOWHERE = "on-ollama", "odd-model", "on-nothing"
"""Models: one on Ollama, one on an engine of raw bytes, one whose engine does not listen."""
PREFIX, HOST = "/coding", "coding.example.org"
"""Where the pool `default` is reached too."""
QUICK = Pace(tokens_per_s=2000, ttft_s=0.0, answer_tokens=4)

_IDS = ("x-request-id", "request-id")
_TIMES = ("date", "x-forebay-queue-ms", "content-length")
"""The length is that of the body, which was looked at when it was read."""
_SEPARATE = (
    (re.compile(rb"req-[0-9a-f]{24}"), b"req-#"),
    (re.compile(rb'"(id|system_fingerprint)": ?"(chatcmpl|cmpl|msg|resp|fp|embd)[-_][^"]*"'), rb'"\1":"\2-#"'),
    (re.compile(rb'"(created|created_at)": ?("[^"]*"|[0-9]+)'), rb'"\1":#'),
    (re.compile(rb'"([a-z_]*duration)": ?[0-9]+'), rb'"\1":#'),
)


@dataclass(repr=False)
class Side:
    """One gateway with everything around it."""

    house: House
    engine: FakeEngine
    ollama: FakeEngine
    odd: OddEngine
    is_hot: bool
    tls: ssl.SSLContext | None = None
    """How it is dialled."""

    @property
    def key(self) -> str:
        return str(self.house.key)

    @asynccontextmanager
    async def dial(self, *, takes_bytes: int | None = None) -> AsyncIterator[Wire]:
        async with dial(self.house.url, takes_bytes=takes_bytes, tls=self.tls) as wire:
            yield wire

    async def ask(self, path: str, body: Any, **headers: str) -> Answer:
        """On a connection of its own, which must be as open afterwards as the answer says."""
        async with self.dial() as wire:
            await wire.send(request(path, body, key=self.key, **headers))
            answer = await wire.answer()
            assert await wire.is_open() is not answer.closes
            return answer

    async def served(self, *pieces: bytes, method: str = "POST") -> tuple[Answer, bool]:
        """What is said on a connection of its own, the answer to it, and whether the connection stayed open."""
        async with self.dial() as wire:
            await wire.send(*pieces)
            answer = await wire.answer(method)
            is_open = await wire.is_open()
            assert is_open is not answer.closes
            return answer, is_open

    def bodies(self) -> list[Any]:
        """Of all that its engine was asked for."""
        return [seen.body for seen in self.engine.record.requests]

    async def row(self, request_id: str) -> usage_pb2.UsageRecord:
        """The one record of the request that was called so."""
        consumer = await self.house.bus.consumer(USAGE_STREAM, "ledger")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = [row for row in self.house.rows_read if row.request_id == request_id]
            if found:
                (row,) = found
                return row
            for delivery in await consumer.fetch(100, 0.1):
                self.house.rows_read.extend(usage_pb2.UsageBatch.FromString(delivery.payload).records)
                await delivery.ack()
        raise AssertionError(f"{request_id} has no record")

    def forget(self) -> None:
        for engine in (self.engine, self.ollama):
            engine.reset()
            engine.pace = QUICK
        self.odd.forget()
        self.house.scheduler.reject_with = None
        self.house.scheduler.slots["b1"] = self.engine.slots.total


@dataclass(repr=False)
class Pair:
    sides: tuple[Side, ...]

    async def same(self, talk: Callable[[Side], Awaitable[T]]) -> T:
        """Has the talk with both, and gives what came of it with the hot one."""
        told = [await talk(side) for side in self.sides]
        seen = [comparable(one) for one in told]
        for side, one in zip(self.sides[1:], seen[1:], strict=True):
            assert one == seen[0], f"hot={side.is_hot} does otherwise than hot={self.sides[0].is_hot}"
        return told[-1]

    def forget(self) -> None:
        for side in self.sides:
            side.forget()


def comparable(told: Any) -> Any:
    """Without what differs between any two requests. What every answer must have is looked at on the way."""
    if isinstance(told, Answer):
        assert told["server"] == "forebay"
        assert told["x-request-id"]
        headers = sorted(
            (name, "#" if name in _TIMES or (name in _IDS and value.startswith("req-")) else value)
            for name, value in told.headers
        )
        return (told.version, told.status, told.reason, told.framing, told.interim, headers, _normal(told.body))
    if isinstance(told, bytes):
        return _normal(told)
    if isinstance(told, list | tuple):
        return [comparable(one) for one in told]
    return told


def _normal(body: bytes) -> bytes:
    for pattern, instead in _SEPARATE:
        body = pattern.sub(instead, body)
    return body


@asynccontextmanager
async def open_pair(directory: Path, **changes: Any) -> AsyncIterator[Pair]:
    """`changes`: of both gateways' settings."""
    async with (
        _open_side(directory / "aiohttp", False, changes) as cold,
        _open_side(directory / "hot", True, changes) as hot,
    ):
        yield Pair((cold, hot))


@asynccontextmanager
async def _open_side(directory: Path, is_hot: bool, changes: dict[str, Any]) -> AsyncIterator[Side]:
    directory.mkdir()
    engine, ollama = FakeEngine(pace=QUICK), FakeEngine(flavour=Flavour.OLLAMA, pace=QUICK, models=[OLLAMA])
    async with OddEngine() as odd, open_house(directory, engine, ollama, hot_path=is_hot, **changes) as house:
        house.scheduler.serves = {"b1": {MODEL}, "b2": {OLLAMA}, "b3": {ODD}, "b4": {NOWHERE}}
        house.scheduler.slots |= {"b3": 4, "b4": 4}
        house.registry.put("b2", ollama.url, kind=types_pb2.ENGINE_KIND_OLLAMA, models=[OLLAMA])
        house.registry.put("b3", odd.url, models=[ODD])
        house.registry.put("b4", "http://127.0.0.1:9", models=[NOWHERE])
        house.registry.describe(PoolSpec(name="default", hosts=[HOST], path_prefix=PREFIX))
        wanted = house.registry.version
        await eventually(lambda: house.metric("forebay_gateway_fleet_version") >= wanted)
        yield Side(house, engine, ollama, odd, is_hot)


def said(**fields: Any) -> dict[str, Any]:
    """A chat that is answered with four words."""
    return ask(**fields)


HOT: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": said(),
    "/v1/completions": {"model": MODEL, "prompt": "Say some words, please."},
    "/v1/embeddings": {"model": MODEL, "input": ["some words"]},
    "/v1/messages": {**said(), "max_tokens": 20},
    "/api/chat": said(stream=False),
    "/api/generate": {"model": MODEL, "prompt": "Say some words, please.", "stream": False},
}
"""Each hot route, and what it can be asked."""
STREAMED = {path: {**body, "stream": True} for path, body in HOT.items() if path != "/v1/embeddings"}
