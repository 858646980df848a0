"""Heads that are no HTTP: what came of them is gone with their connections, and not whenever the collector looks."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path

import pytest

from tests.fakes.engine import FakeEngine
from tests.gateway.house import House, open_house

_LENGTH, _TIMES = 1 << 20, 12


async def send(house: House, head: bytes) -> bytes:
    """How its answer begins."""
    reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
    writer.write(head)
    try:
        return await asyncio.wait_for(reader.readexactly(12), 30)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "head",
    [
        b"A" * _LENGTH,
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * _LENGTH,
        b"GET /" + b"a" * _LENGTH + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=["no line", "a long header", "a long line"],
)
async def test_nothing_of_a_broken_head_stays(tmp_path: Path, head: bytes) -> None:
    async with open_house(tmp_path, FakeEngine()) as house:
        assert await send(house, head) == b"HTTP/1.0 400"
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(_TIMES):
                await send(house, head)
            await asyncio.sleep(0)  # what the last one left is cleared away in this turn
            assert tracemalloc.get_traced_memory()[0] < _LENGTH
        finally:
            tracemalloc.stop()
            gc.enable()
