"""Workers take connections from one queue: by turns, without waiting for one that is slow, and whatever ails a client."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from forebay.tls import serving_tls
from forebay_gateway.http_in.accepting import accepting
from forebay_gateway.workers.crowd import Crowd, has_turn
from tests.forebay.test_tls import write_pair
from tests.gateway.house import eventually

LONG_S = 600.0
"""Nobody takes out of turn."""


@pytest.mark.parametrize(
    ("mine", "others", "is_so"),
    [(0, [0, 0], True), (1, [1, 0], False), (2, [2, 3], True), (9, [9, 8], True), (10, [10, 8], False), (5, [5], True)],
)
def test_the_next_one_is_for_those_who_have_fewest_and_among_many_for_those_near_them(
    mine: int, others: list[int], is_so: bool
) -> None:
    assert has_turn(mine, others) is is_so


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        taken = transport.get_extra_info("socket")
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@contextmanager
def crowd_of(workers: int) -> Iterator[Crowd]:
    with tempfile.TemporaryFile() as file:
        os.truncate(file.fileno(), Crowd.size(workers))
        yield Crowd(file.fileno(), workers)


@asynccontextmanager
async def doors(workers: int) -> AsyncIterator[tuple[Any, Crowd, list[AsyncExitStack]]]:
    """So many in this process, on one socket: its address, the counts, and what closes each of them."""
    with crowd_of(workers) as crowd, socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        async with AsyncExitStack() as all_of_them:
            opened = []
            for number in range(1, workers + 1):
                one = await all_of_them.enter_async_context(AsyncExitStack())
                own = socket.socket(fileno=os.dup(listener.fileno()))
                await one.enter_async_context(accepting(own, Echo, None, crowd.seat(number), patience_s=LONG_S))
                opened.append(one)
            yield listener.getsockname(), crowd, opened


@asynccontextmanager
async def clients(address: Any, number: int) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """Each has been answered."""
    pairs = await asyncio.gather(*(asyncio.open_connection(*address) for _ in range(number)))
    for reader, writer in pairs:
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
    try:
        yield [writer for _, writer in pairs]
    finally:
        for _, writer in pairs:
            writer.close()


@pytest.mark.parametrize(("workers", "number"), [(2, 8), (4, 16)])
async def test_a_few_connections_are_shared_evenly_and_are_counted_until_they_end(workers: int, number: int) -> None:
    async with doors(workers) as (address, crowd, opened):
        async with clients(address, number):
            assert list(crowd.counts().values()) == [number // workers] * workers
            await opened[0].aclose()
            assert 1 not in crowd.counts()
            async with clients(address, workers - 1):
                assert list(crowd.counts().values()) == [number // workers + 1] * (workers - 1)
        await eventually(lambda: set(crowd.counts().values()) == {0})


async def test_one_that_does_not_come_is_not_waited_for() -> None:
    with crowd_of(2) as crowd, socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        address = listener.getsockname()
        async with accepting(listener, Echo, None, crowd.seat(1), patience_s=0.001), clients(address, 12):
            assert crowd.counts() == {1: 12, 2: 0}


class Exhausted(socket.socket):
    """Has no descriptors left, a few times, and then meets clients that have gone."""

    def __init__(self) -> None:
        super().__init__()
        self.faults = [errno.EMFILE, errno.ECONNABORTED, errno.ENFILE, errno.EPROTO]

    def accept(self) -> Any:
        if self.faults:
            fault = self.faults.pop()
            raise OSError(fault, os.strerror(fault))
        return super().accept()


async def test_a_fault_of_taking_is_told_and_the_connection_is_taken_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = Exhausted()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    address = listener.getsockname()
    with crowd_of(1) as crowd:
        async with accepting(listener, Echo, None, crowd.seat(1)), clients(address, 1):
            assert crowd.counts() == {1: 1}
            assert not listener.faults
    assert [record.message for record in caplog.records] == ["no more connections can be taken"] * 2


async def test_a_handshake_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_pair(cert, key, "localhost")
    trusting = ssl.create_default_context(cafile=cert)
    with crowd_of(1) as crowd, socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        async with serving_tls(cert, key) as tls, accepting(listener, Echo, tls, crowd.seat(1)):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await reader.read()
            writer.close()
            await eventually(lambda: crowd.counts() == {1: 0})
            reader, writer = await asyncio.open_connection(*address, ssl=trusting, server_hostname="localhost")
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            assert crowd.counts() == {1: 1}
            writer.close()
            await eventually(lambda: crowd.counts() == {1: 0})
