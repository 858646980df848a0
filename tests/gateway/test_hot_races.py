"""What happens in the same turn, or in an odd order, on the way from a client's connection to its engine's and back."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import weakref
from pathlib import Path

import pytest

from forebay_gateway.http_in import framer
from forebay_gateway.http_in.connection import HotConnection
from forebay_gateway.http_in.framer import NotHot, read_head
from forebay_gateway.http_out.failures import ClosedEarly
from forebay_gateway.relay import Exchange
from tests.fakes.engine import FakeEngine
from tests.gateway.house import MODEL, eventually, open_house
from tests.gateway.test_hot_connection import QUICK, Desk, Wire, chat, raw, read_answer, request
from tests.gateway.test_http_out_bytes import OK, Talk

# --- an engine's answer ---------------------------------------------------------------------------------------------


async def test_a_whole_body_comes_although_much_of_it_came_with_its_head() -> None:
    talk = Talk()
    talk.hear(OK + b"content-length: 307200\r\n\r\n" + b"z" * (100 << 10))
    assert talk.wire.is_paused
    reading = asyncio.ensure_future(talk.response.read_all(1 << 20))
    await asyncio.sleep(0)
    assert not talk.wire.is_paused, "nobody else would let the engine go on"
    talk.hear(b"z" * (200 << 10))
    assert len(await reading or b"") == 307200


async def test_a_connection_that_is_lost_before_it_is_asked_is_the_engines_fault() -> None:
    talk = Talk()
    talk.hear(OK + b"content-length: 0\r\n\r\n")
    talk.end()
    with pytest.raises(ClosedEarly):
        await talk.ask().wait_head()


async def test_how_one_answer_ended_says_nothing_of_the_next() -> None:
    talk = Talk()
    talk.hear(OK + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
    assert talk.kept.free
    response = talk.ask()
    talk.hear(OK + b"content-length: 10\r\n\r\n012")
    talk.end()
    with pytest.raises(ClosedEarly):
        await response.read_all(100)


# --- a client's head ------------------------------------------------------------------------------------------------

HEADS = (
    request(more="x-a: b\r\n"),
    b"POST /plain HTTP/1.1\r\nhost: x\n\r\n",
    b"POST /plain HTTP/1.1\r\nhost: x\rx\r\n\r\n",
    b"POST /plain HTTP/1.1\r\nhost: \0\r\n\r\n",
    b"POST /plain\nhost: x\r\n\r\n",
    b"POST /plain HTTP/2.0\r\nhost: x\r\n\r\n",
    b"get / HTTP/1.1\r\n\r\n",
)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_says_the_same_whether_its_beginning_was_looked_at_before_or_not(head: bytes) -> None:
    for end in range(1, len(head) + 1):
        at_once = read_head(head[:end])
        for seen in range(end):
            if read_head(head[:seen]) is NotHot.MORE:
                assert read_head(head[:end], seen) == at_once
        if at_once is not NotHot.MORE:
            return
    raise AssertionError("none of these waits for ever")


async def test_a_head_that_drips_in_is_not_looked_through_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []

    class Counting:
        def search(self, came: bytes, begin: int = 0) -> None:
            looked_at.append(len(came) - begin)

    monkeypatch.setattr(framer, "_BROKEN", Counting())
    desk = Desk()
    connection, _ = desk.connect()
    came = request(more="x-a: b\r\n" * 200)
    for at in range(500):
        connection.data_received(came[at : at + 1])
    assert len(looked_at) == 500
    assert sum(looked_at) <= 3 * 500


async def test_a_client_that_resets_the_connection_while_it_is_told_that_nothing_follows_is_let_go() -> None:
    desk = Desk()
    connection, wire = desk.connect()

    def write_eof() -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    wire.write_eof = write_eof  # type: ignore[method-assign]
    connection.data_received(request(more="connection: close\r\n") + request())
    task = connection.task
    assert task is not None
    await task
    assert wire.end == "aborted"


@pytest.mark.interpreted
async def test_a_client_that_goes_in_the_turn_in_which_it_came_leaves_nothing() -> None:
    class Watched(HotConnection):
        """Without slots, so that it can be referred to weakly."""

    desk, wire = Desk(), Wire()
    connection = Watched(desk.connections)
    connection.connection_made(wire)
    connection.data_received(request())
    connection.connection_lost(None)
    left = weakref.ref(connection)
    gc.disable()
    try:
        del connection
        await eventually(lambda: left() is None, "a circle is left to the collector")
    finally:
        gc.enable()
    assert (desk.echo.bodies, wire.said) == ([], b"")


# --- what is left of a request --------------------------------------------------------------------------------------


@pytest.mark.interpreted
async def test_no_request_waits_for_the_collector_of_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which comes rarely: until then its body, and what was made of it, would stay in memory."""
    served: list[weakref.ref[Exchange]] = []
    make = Exchange.__init__

    def note(self: Exchange, *args: object) -> None:
        make(self, *args)  # type: ignore[arg-type]
        served.append(weakref.ref(self))

    monkeypatch.setattr(Exchange, "__init__", note)
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        reader, writer = await raw(house)
        gc.disable()
        try:
            for fields, status in (
                ({}, 200),
                ({"stream": True}, 200),
                ({"model": "none"}, 404),
                ({"model": MODEL}, 200),
            ):
                writer.write(chat(house, **fields))
                assert (await read_answer(reader))[0] == status
            writer.write(chat(house, stream=True, max_tokens=100000))
            await reader.readuntil(b"data:")
            writer.transport.abort()
            await eventually(lambda: len(served) == 5 and not any(one() for one in served), "requests are left")
        finally:
            gc.enable()
