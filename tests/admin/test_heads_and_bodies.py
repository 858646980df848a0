"""Admin's HTTP port and clients that mean ill with it: heads that take their time, and bodies that unpack to very much."""

from __future__ import annotations

import asyncio
import gzip
import time

import pytest

from forebay.timely_heads import TimelyConnection
from tests.admin.replica import Running, Start

_WITHIN_S = 0.5
PAGE = b"GET / HTTP/1.1\r\nhost: x\r\naccept: application/json\r\n\r\n"


async def connect(admin: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """On which a page was answered."""
    reader, writer = await asyncio.open_connection(*admin.http_address.rsplit(":", 1))
    writer.write(PAGE)
    await read_page(reader)
    return reader, writer


async def read_page(reader: asyncio.StreamReader) -> None:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    assert head.startswith(b"HTTP/1.1 200")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))


async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """What comes while a head is sent that does not end."""
    writer.write(PAGE[:-2])
    for _ in range(2):
        await asyncio.sleep(_WITHIN_S / 8)
        writer.write(b"x-a: b\r\n")
    return await asyncio.wait_for(reader.read(), 30)


async def test_a_head_that_does_not_end_ends_its_connection(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimelyConnection, "head_s", _WITHIN_S)
    async with start() as admin:
        reader, writer = await asyncio.open_connection(*admin.http_address.rsplit(":", 1))
        assert await dribble(reader, writer) == b""
        writer.close()
        reader, writer = await connect(admin)
        assert await dribble(reader, writer) == b""
        writer.close()


async def test_a_head_in_pieces_is_answered_and_an_idle_connection_stays(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimelyConnection, "head_s", _WITHIN_S)
    async with start() as admin:
        reader, writer = await connect(admin)
        writer.write(PAGE[:20])
        await asyncio.sleep(0.01)
        writer.write(PAGE[20:])
        await read_page(reader)
        await asyncio.sleep(2 * _WITHIN_S)
        writer.write(PAGE)
        await read_page(reader)
        writer.close()


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """192 MiB."""
    return gzip.compress(bytes(192 << 20), 1)


@pytest.mark.parametrize("path", ["/api/v1/users", "/sign-in", "/join/x", "/nowhere"])
async def test_a_packed_body_is_unpacked_by_nobody(start: Start, bomb: bytes, path: str) -> None:
    async with start() as admin:
        reader, writer = await connect(admin)
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\ncontent-type: application/json\r\n"
        before = time.process_time()
        writer.write(f"{head}content-length: {len(bomb)}\r\n\r\n".encode() + bomb)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        writer.write(PAGE)  # answered when all of the body was looked at, unless the connection ends before
        while (line := await asyncio.wait_for(reader.readline(), 60)) and not line.endswith(b"HTTP/1.1 200 OK\r\n"):
            pass
        used_s = time.process_time() - before
        writer.close()
        assert answer.startswith(b"HTTP/1.1 4")
        before = time.process_time()
        gzip.decompress(bomb)
        assert used_s < (time.process_time() - before) / 4, "it was unpacked"
