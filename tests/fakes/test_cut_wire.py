"""The wire that can be cut, with an echo at its other end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.fakes.cut_wire import Cut, CutWire


@pytest.fixture
async def wire() -> AsyncIterator[CutWire]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.read(1000):
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with CutWire(server.sockets[0].getsockname()[1]) as wire:
        yield wire
    server.close()


@asynccontextmanager
async def connected(wire: CutWire) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def hears(reader: asyncio.StreamReader, wanted: bytes, within_s: float = 2.0) -> bool:
    try:
        return await asyncio.wait_for(reader.readexactly(len(wanted)), within_s) == wanted
    except TimeoutError:
        return False


async def test_a_whole_wire_carries_both_ways_and_the_end(wire: CutWire) -> None:
    async with connected(wire) as (reader, writer):
        writer.write(b"hello")
        assert await hears(reader, b"hello")
        assert wire.passed == 10
        writer.write_eof()
        assert await reader.read() == b""


async def test_a_blackhole_holds_what_is_sent_until_the_wire_is_mended(wire: CutWire) -> None:
    async with connected(wire) as (reader, writer):
        writer.write(b"1")
        assert await hears(reader, b"1")
        wire.cut()
        writer.write(b"2")
        assert not await hears(reader, b"2", 0.1)
        await wire.mend()
        assert await hears(reader, b"2")


@pytest.mark.parametrize(("cut_to_server", "arrived"), [(True, 1), (False, 2)])
async def test_a_blackhole_may_be_of_one_direction(wire: CutWire, cut_to_server: bool, arrived: int) -> None:
    async with connected(wire) as (reader, writer):
        wire.cut(to_server=cut_to_server, to_client=not cut_to_server)
        writer.write(b"x")
        assert not await hears(reader, b"x", 0.1)
        assert wire.passed == arrived - 1
        await wire.mend()
        assert await hears(reader, b"x")


async def test_a_slow_wire_delays_each_way_and_keeps_the_order(wire: CutWire) -> None:
    clock = asyncio.get_running_loop()
    async with connected(wire) as (reader, writer):
        wire.slow(0.2)
        began = clock.time()
        for number in range(5):
            writer.write(b"%d" % number)
            await asyncio.sleep(0.01)
        assert await hears(reader, b"01234")
        assert clock.time() - began >= 0.4, "there and back"
        writer.write_eof()
        assert await reader.read() == b""


async def test_on_a_slow_wire_that_a_client_has_gone_is_heard_late_however_it_went() -> None:
    came, heard = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        came.set()
        with suppress(OSError):
            while not reader.at_eof():
                writer.write(b"x")  # what meets a closed end comes back as a reset
                await writer.drain()
                await asyncio.sleep(0.01)
        heard.set()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server, CutWire(server.sockets[0].getsockname()[1]) as wire:
        _, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        writer.write(b"1")
        await asyncio.wait_for(came.wait(), 60)
        wire.slow(0.5)
        writer.transport.abort()
        began = asyncio.get_running_loop().time()
        await asyncio.wait_for(heard.wait(), 60)
        assert asyncio.get_running_loop().time() - began >= 0.45
        async with asyncio.timeout(60):
            while wire._tasks:
                await asyncio.sleep(0.01)


async def test_a_mended_wire_is_not_slow(wire: CutWire) -> None:
    async with connected(wire) as (reader, writer):
        wire.slow(30.0)
        await wire.mend()
        writer.write(b"x")
        assert await hears(reader, b"x")


async def test_who_connects_to_a_blackhole_is_served_when_it_is_mended(wire: CutWire) -> None:
    wire.cut()
    async with connected(wire) as (reader, writer):
        writer.write(b"x")
        assert not await hears(reader, b"x", 0.1)
        await wire.mend()
        assert await hears(reader, b"x")


async def test_a_reset_ends_connections_and_refuses_new_ones_until_mended(wire: CutWire) -> None:
    async with connected(wire) as (reader, writer):
        writer.write(b"x")
        assert await hears(reader, b"x")
        wire.cut(Cut.RESET)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionRefusedError):
            async with connected(wire):
                raise AssertionError("it must not connect")
    await wire.mend()
    async with connected(wire) as (reader, writer):
        writer.write(b"y")
        assert await hears(reader, b"y")


async def test_a_server_that_is_not_there_ends_the_connection(wire: CutWire) -> None:
    async with CutWire(1) as nowhere, connected(nowhere) as (reader, _):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 30)
