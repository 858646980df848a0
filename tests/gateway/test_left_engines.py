"""An engine hears later than its gateway that a client has gone: until it has heard, the slot is nobody else's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from forebay_gateway.http_out import connection as http_out
from forebay_gateway.http_out.connection import Connection
from forebay_gateway.http_out.pool import Pool, open_pool
from forebay_gateway.http_out.request import Request, target_of
from tests.fakes.cut_wire import CutWire
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import House, ask, eventually, open_house
from tests.gateway.leaving import connect, go

LATE_S = 0.3
LONG = {"max_tokens": 2000, "ignore_eos": True}
SLOW = Pace(tokens_per_s=0.5, answer_tokens=1)
"""Nothing comes from the engine while its client goes, on which the gateway's side could tell it anything."""


@pytest.fixture(autouse=True)
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_out, "_LEAVE_S", 30.0)


@asynccontextmanager
async def one_that_runs(
    directory: Path, engine: FakeEngine, *, streamed: bool
) -> AsyncIterator[tuple[House, CutWire, asyncio.StreamWriter]]:
    """On the only slot of an engine behind a wire, to which another connection is free."""
    async with open_house(directory, engine) as house, CutWire(engine.port) as wire:
        await house.put("b1", f"http://127.0.0.1:{wire.port}", slots=1)
        house.scheduler.slots["b1"] = 2
        await asyncio.gather(*(done(house) for _ in range(2)))
        house.scheduler.slots["b1"] = 1
        engine.reset()
        _, writer = await connect(house, ask(stream=streamed, **LONG))
        await eventually(lambda: engine.record.requests and engine.record.requests[0].tokens_made)
        yield house, wire, writer
        writer.close()


async def done(house: House) -> None:
    async with house.post(ask()) as answer:
        assert answer.status == 200, await answer.text()


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_the_next_request_does_not_come_to_the_engine_before_the_end_of_the_last_one(
    tmp_path: Path, streamed: bool
) -> None:
    engine = FakeEngine(slots=1, flavour=Flavour.VLLM, pace=SLOW)
    async with one_that_runs(tmp_path, engine, streamed=streamed) as (house, wire, writer):
        wire.slow(LATE_S)
        go(writer, "close")
        await eventually(lambda: house.metric("forebay_gateway_running") == 0)
        wire.slow(0.0)  # what is sent from here on, over the other connection, overtakes that end
        next_one = asyncio.create_task(done(house))
        await eventually(lambda: not house.scheduler.queue and len(engine.record.requests) == 2)
        await next_one
        first, second = engine.record.requests
        assert first.disconnected_at is not None
        assert first.disconnected_at < second.arrived_at
        assert engine.slots.peak_width == 1
        assert len(await house.rows(4)) == 4


async def test_the_slot_of_an_engine_that_does_not_close_is_given_back_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_out, "_LEAVE_S", 0.3)
    engine = FakeEngine(slots=1, flavour=Flavour.VLLM, pace=SLOW)
    async with one_that_runs(tmp_path, engine, streamed=True) as (house, wire, writer):
        wire.cut()
        began = time.monotonic()
        go(writer, "close")
        await eventually(lambda: not house.scheduler.held)
        assert time.monotonic() - began >= 0.3
        assert engine.slots.running == 1
        await wire.mend()
        await eventually(lambda: not engine.slots.running, "it was not told")


# A connection by itself


@asynccontextmanager
async def asked(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], body: bytes = b"{}"
) -> AsyncIterator[tuple[Pool, asyncio.Task[None], list[Connection]]]:
    """A request, until it is given up."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await talk(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    target = target_of("POST", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x")
    used: list[Connection] = []

    async def be_asked(pool: Pool) -> None:
        response = await pool.ask(Request(target, b"", body), used.append)
        try:
            await response.read()
            await response.read()
        finally:
            response.close()

    async with server, open_pool(30.0) as pool:
        asking = asyncio.create_task(be_asked(pool))
        await eventually(lambda: writers)
        yield pool, asking, used
        for writer in writers:
            writer.transport.abort()


async def given_up(asking: asyncio.Task[None]) -> None:
    asking.cancel()
    await asyncio.wait([asking])


async def test_what_an_engine_says_after_its_answer_was_given_up_is_nobodys_and_its_end_is_heard() -> None:
    may_end, heard = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nx")
        assert await reader.read() == b""
        heard.set()
        writer.write(b"y" * (1 << 20))
        await writer.drain()
        await may_end.wait()
        writer.close()

    async with asked(talk) as (pool, asking, used):
        await eventually(lambda: used and used[0]._response is not None and used[0]._response.status)
        await given_up(asking)
        (connection,) = used
        assert connection.is_left
        told: list[str] = []
        connection.when_over(lambda: told.append("one"))
        connection.when_over(lambda: told.append("other"))
        await asyncio.wait_for(heard.wait(), 60)
        assert not told
        may_end.set()
        await eventually(lambda: told == ["one", "other"])
        assert not connection.is_left
        assert not pool._all


async def test_an_engine_that_has_not_got_the_whole_request_is_not_waited_for() -> None:
    is_over = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await is_over.wait()

    async with asked(talk, b"x" * (32 << 20)) as (pool, asking, used):
        await eventually(lambda: used)
        await given_up(asking)
        assert not used[0].is_left
        await eventually(lambda: not pool._all)
        is_over.set()
