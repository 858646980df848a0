"""Clients that take their time with a head, on connections that aiohttp has: of a later request as of the first."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from forebay_gateway import front
from tests.fakes.engine import FakeEngine
from tests.gateway.house import House, open_house

_WITHIN_S = 0.5


async def connect(house: House) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """On which a page was answered; and what asks for it."""
    page = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.key}\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
    writer.write(page)
    await read_page(reader)
    return reader, writer, page


async def read_page(reader: asyncio.StreamReader) -> None:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    assert head.startswith(b"HTTP/1.1 200")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))


async def test_a_head_that_does_not_end_ends_its_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front._Connection, "head_s", _WITHIN_S)
    async with open_house(tmp_path, FakeEngine()) as house:
        reader, writer, page = await connect(house)
        writer.write(page[:-2])
        for _ in range(2):
            await asyncio.sleep(_WITHIN_S / 8)
            writer.write(b"x-a: b\r\n")
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()


async def test_one_that_ends_in_time_is_answered_and_an_idle_connection_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front._Connection, "head_s", _WITHIN_S)
    async with open_house(tmp_path, FakeEngine()) as house:
        reader, writer, page = await connect(house)
        writer.write(page[:20])
        await asyncio.sleep(0.01)
        writer.write(page[20:])
        await read_page(reader)
        await asyncio.sleep(2 * _WITHIN_S)
        writer.write(page)
        await read_page(reader)
        writer.close()
