"""A connection of our own: one request after the other, in whatever pieces they come, until something else is asked for."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from forebay_gateway.cors import Origins
from forebay_gateway.held_body import BodyBudget
from forebay_gateway.http_in.connection import HotConnection
from forebay_gateway.http_in.connections import Answer, Connections
from forebay_gateway.http_in.framer import Head
from forebay_gateway.http_in.incoming import Incoming
from forebay_gateway.http_in.outgoing import Outgoing
from forebay_gateway.refused import BodyStalled, BodyTooLarge
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.house import House, ask, eventually, open_house

QUICK = Pace(tokens_per_s=1000, answer_tokens=4)
TYPE = {"content-type": "text/plain"}


class Wire(asyncio.Transport):
    """A transport without a socket: what was written and done stays."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.reads_on = True
        self.end = ""
        self.protocol: Any = None

    @property
    def said(self) -> bytes:
        return b"".join(self.writes)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def pause_reading(self) -> None:
        self.reads_on = False

    def resume_reading(self) -> None:
        self.reads_on = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.end = "half-closed"

    def close(self) -> None:
        self.end = self.end or "closed"

    def abort(self) -> None:
        self.end = "aborted"


class Other(asyncio.Protocol):
    def __init__(self) -> None:
        self.came = b""
        self.is_full = False

    def data_received(self, data: bytes) -> None:
        self.came += data

    def pause_writing(self) -> None:
        self.is_full = True


class Echo:
    """Says what came; waits with it for as long as it is held, and streams it if its path says so."""

    def __init__(self) -> None:
        self.origins = Origins(["*"])
        self.bodies: list[bytes] = []
        self.errors: list[BaseException] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.most_bytes = 1 << 20
        self.idle_s = 60.0
        self.reads = True

    def find(self, head: Head, peer: str, before: Answer | None) -> Answer | None:
        if head.path == "/cold":
            return None

        async def answer(request: Incoming, client: Outgoing) -> None:
            try:
                body = b"unread"
                if self.reads:
                    held = BodyBudget(1 << 24).hold()
                    body = await request.read(held, most_bytes=self.most_bytes, idle_s=self.idle_s)
                self.bodies.append(body)
                await self.may_answer.wait()
                if head.path == "/stream":
                    await client.begin(200, TYPE)
                    for at in range(0, len(body), 4):
                        client.write_now(body[at : at + 4])
                    await client.end()
                else:
                    await client.send(200, TYPE, body)
            except BaseException as error:
                self.errors.append(error)
                raise

        return answer


def request(path: str = "/plain", body: bytes = b"a body", more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


class Desk:
    def __init__(self) -> None:
        self.echo, self.others = Echo(), list[Other]()
        self.connections = Connections(self.echo, self._other)

    def connect(self) -> tuple[HotConnection, Wire]:
        connection, wire = HotConnection(self.connections), Wire()
        connection.connection_made(wire)
        return connection, wire

    def _other(self) -> Other:
        self.others.append(Other())
        return self.others[-1]


def bodies(said: bytes) -> list[bytes]:
    """Of whole answers, one after the other, each framed as its head says."""
    found = []
    while said:
        head, _, rest = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        if length is not None:
            size = int(length[1])
            found.append(rest[:size])
            said = rest[size:]
            continue
        assert b"\r\ntransfer-encoding: chunked" in head
        body = b""
        while (chunk := re.match(rb"([0-9a-f]+)\r\n", rest)) is not None:
            size = int(chunk[1], 16)
            body += rest[chunk.end() : chunk.end() + size]
            assert rest[chunk.end() + size :][:2] == b"\r\n"
            rest = rest[chunk.end() + size + 2 :]
            if not size:
                break
        found.append(body)
        said = rest
    return found


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
async def test_pipelined_requests_are_answered_in_their_order_in_whatever_pieces_they_come(size: int) -> None:
    desk = Desk()
    connection, wire = desk.connect()
    came = request(body=b"one") + request("/stream", b"two, in pieces") + request(body=b"") + request(body=b"four")
    for at in range(0, len(came), size):
        connection.data_received(came[at : at + size])
        if size == 7:
            await asyncio.sleep(0)
    await eventually(lambda: len(bodies(wire.said)) == 4)
    assert bodies(wire.said) == [b"one", b"two, in pieces", b"", b"four"]
    assert wire.end == ""


async def test_a_streams_head_goes_out_with_its_first_piece_and_each_piece_in_one_write() -> None:
    desk = Desk()
    connection, wire = desk.connect()
    connection.data_received(request("/stream", b"12345678"))
    await eventually(lambda: wire.said.endswith(b"0\r\n\r\n"))
    first, second, end = wire.writes
    assert first.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n")
    assert first.endswith(b"\r\n\r\n4\r\n1234\r\n")
    assert (second, end) == (b"4\r\n5678\r\n", b"0\r\n\r\n")


async def test_a_large_body_is_read_piece_by_piece_and_holds_its_client_back_while_it_is_put_away() -> None:
    desk = Desk()
    connection, wire = desk.connect()
    desk.echo.most_bytes = 4 << 20
    body = bytes(range(256)) * (4 << 10)
    came = request(body=body)
    connection.data_received(came[:100])
    connection.data_received(came[100 : 300 << 10])
    assert not wire.reads_on
    await eventually(lambda: wire.reads_on)
    for at in range(300 << 10, len(came), 64 << 10):
        connection.data_received(came[at : at + (64 << 10)])
        await asyncio.sleep(0)
    await eventually(lambda: wire.said)
    assert desk.echo.bodies == [body]
    assert bodies(wire.said) == [body]


@pytest.mark.parametrize("how", ["lost", "half-close"])
@pytest.mark.parametrize("when", ["reading", "answering"])
async def test_a_client_that_goes_cancels_what_is_done_for_it(how: str, when: str) -> None:
    desk = Desk()
    connection, wire = desk.connect()
    desk.echo.may_answer.clear()
    came = request()
    connection.data_received(came if when == "answering" else came[:-1])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task = connection.task
    assert task is not None
    if how == "lost":
        connection.connection_lost(ConnectionResetError())
    else:
        assert not connection.eof_received()
    await asyncio.wait([task])
    assert [type(error) for error in desk.echo.errors] == [asyncio.CancelledError]
    assert wire.said == b""
    assert connection.task is None


@pytest.mark.parametrize(
    "came",
    [
        *(request("/cold"), b"GET /plain HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01", b"POST / HTTP/1.1\n"),
        request(more="content-length: 6\r\n"),
    ],
)
async def test_whatever_else_is_asked_for_is_aiohttps_with_the_whole_connection(came: bytes) -> None:
    desk = Desk()
    connection, wire = desk.connect()
    connection.data_received(request(body=b"first") + came + request(body=b"after"))
    await eventually(lambda: desk.others)
    (other,) = desk.others
    assert wire.protocol is other
    assert other.came == came + request(body=b"after")
    assert bodies(wire.said) == [b"first"]
    assert not desk.connections.open


async def test_who_takes_over_a_connection_knows_that_its_client_is_slow() -> None:
    desk = Desk()
    connection, _ = desk.connect()
    connection.pause_writing()
    connection.data_received(request("/cold"))
    assert [other.is_full for other in desk.others] == [True]


async def test_a_slow_client_is_waited_for_and_one_that_goes_meanwhile_is_not() -> None:
    desk = Desk()
    connection, wire = desk.connect()
    connection.pause_writing()
    assert connection.is_full
    connection.data_received(request() + request(body=b"next"))
    await eventually(lambda: wire.said)
    assert (len(desk.echo.bodies), connection.task is not None) == (1, True)
    connection.resume_writing()
    await eventually(lambda: len(desk.echo.bodies) == 2)
    assert connection.drained() is None
    connection.pause_writing()
    drained = connection.drained()
    assert drained is not None
    connection.connection_lost(None)
    await drained
    with pytest.raises(ConnectionError):
        connection.write(b"more")


async def test_a_body_that_is_too_large_is_refused_at_once_and_then_read_away() -> None:
    desk = Desk()
    connection, wire = desk.connect()
    desk.echo.most_bytes = 3
    body = b"0123456789"
    connection.data_received(request(body=body)[:-4])
    await eventually(lambda: desk.echo.errors)
    assert isinstance(desk.echo.errors[0], BodyTooLarge)
    assert wire.end == "aborted"  # nobody has answered here; the gateway's own answer is below
    desk.echo.reads = False
    connection, wire = desk.connect()
    connection.data_received(request(body=body)[:-4])
    await eventually(lambda: wire.said)
    connection.data_received(body[-4:] + request(body=b""))
    await eventually(lambda: len(bodies(wire.said)) == 2)
    assert wire.end == ""


async def test_a_body_that_stops_coming_is_given_up() -> None:
    desk = Desk()
    desk.echo.idle_s = 0.01
    connection, _ = desk.connect()
    connection.data_received(request()[:-1])
    await eventually(lambda: desk.echo.errors)
    assert isinstance(desk.echo.errors[0], BodyStalled)


async def test_heads_that_never_end_bodies_that_nobody_wants_and_idle_connections_are_ended_in_time() -> None:
    desk = Desk()
    now = asyncio.get_running_loop().time()
    waiting, idle, unwanted, busy = (desk.connect() for _ in range(4))
    waiting[0].data_received(request()[:20])
    desk.echo.reads = False
    unwanted[0].data_received(request()[:-1])
    await eventually(lambda: unwanted[1].said and unwanted[0].task is None)
    desk.echo.reads = True
    desk.echo.may_answer.clear()
    busy[0].data_received(request())
    ends = {}
    for after_s in (5, 15, 35, 4000):
        for connection, _ in (waiting, idle, unwanted, busy):
            connection.look(now + after_s)
        ends[after_s] = [wire.end != "" for _, wire in (waiting, idle, unwanted, busy)]
    assert ends == {
        5: [False, False, False, False],
        15: [False, False, True, False],
        35: [True, False, True, False],
        4000: [True, True, True, False],
    }
    busy[0].connection_lost(None)


async def test_a_connection_that_does_not_take_its_end_is_aborted() -> None:
    desk = Desk()
    connection, wire = desk.connect()
    connection.close()
    connection.look(asyncio.get_running_loop().time() + 60)
    assert wire.end == "aborted"


async def test_who_sends_too_many_requests_ahead_gets_one_answer_and_the_end() -> None:
    desk = Desk()
    desk.echo.may_answer.clear()
    connection, wire = desk.connect()
    connection.data_received(request(body=b"one"))
    for _ in range(5):
        connection.data_received(request(body=b"x" * (64 << 10)))
    desk.echo.may_answer.set()
    await eventually(lambda: wire.end)
    assert bodies(wire.said) == [b"one"]
    assert b"\r\nconnection: close\r\n" in wire.said
    assert wire.end == "half-closed"  # to be closed at once would reset it, and the client might lose its answer
    connection.data_received(request(body=b"still more"))
    connection.look(asyncio.get_running_loop().time() + 60)
    assert (wire.end, bodies(wire.said)) == ("aborted", [b"one"])


async def test_a_client_that_wants_the_connection_to_end_has_it_so() -> None:
    desk = Desk()
    connection, wire = desk.connect()
    connection.data_received(request(more="connection: close\r\n"))
    await eventually(lambda: wire.end)
    assert (wire.end, bodies(wire.said)) == ("closed", [b"a body"])
    assert b"\r\nconnection: close\r\n" in wire.said
    connection, wire = desk.connect()
    connection.data_received(request(more="connection: close\r\n") + request())
    await eventually(lambda: wire.end)
    assert (wire.end, bodies(wire.said)) == ("half-closed", [b"a body"])


async def test_draining_ends_what_is_idle_at_once_and_the_rest_after_its_answer() -> None:
    desk = Desk()
    desk.echo.may_answer.clear()
    (_, idle), (connection, busy) = desk.connect(), desk.connect()
    connection.data_received(request())
    await eventually(lambda: desk.echo.bodies)
    desk.connections.drain()
    assert (idle.end, busy.end) == ("closed", "")
    late, late_wire = desk.connect()
    late.data_received(request())
    assert late_wire.end == "half-closed"
    desk.echo.may_answer.set()
    await eventually(lambda: busy.end)
    assert bodies(busy.said) == [b"a body"]
    assert b"\r\nconnection: close\r\n" in busy.said


async def test_what_has_not_ended_when_draining_does_is_cut() -> None:
    desk = Desk()
    desk.echo.may_answer.clear()
    connection, wire = desk.connect()
    connection.data_received(request())
    await eventually(lambda: desk.echo.bodies)
    await desk.connections.cut(0.01)
    assert wire.end == "aborted"
    assert [type(error) for error in desk.echo.errors] == [asyncio.CancelledError]


async def test_no_header_of_an_answer_can_be_more_than_one() -> None:
    desk = Desk()
    connection, wire = desk.connect()

    def find(head: Head, peer: str, before: Answer | None) -> Answer:
        async def answer(request: Incoming, client: Outgoing) -> None:
            told: Mapping[str, str] = {**TYPE, "x-a": "b\r\nx-c: d"}
            with pytest.raises(ValueError, match="control character"):
                await client.send(200, told, b"")
            with pytest.raises(RuntimeError):
                client.write_now(b"without a head")

        return answer

    desk.echo.find = find  # type: ignore[method-assign]
    connection.data_received(request())
    await eventually(lambda: wire.end)
    assert (wire.end, wire.said) == ("aborted", b"")


# --- in a gateway ---------------------------------------------------------------------------------------------------


async def raw(house: House) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = house.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


def chat(house: House, **fields: Any) -> bytes:
    body = json.dumps(ask(**fields)).encode()
    more = f"authorization: Bearer {house.key}\r\norigin: http://localhost:3000\r\n"
    return request("/v1/chat/completions", body, more)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:-2])
    if "content-length" in headers:
        return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))
    body = b""
    while (size := int((await reader.readline()).strip(), 16)) >= 0:
        piece = await reader.readexactly(size + 2)
        if not size:
            return int(head[0].split()[1]), headers, body
        body += piece[:-2]
    raise AssertionError


@pytest.mark.interpreted
async def test_hot_and_other_requests_share_a_connection_and_look_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []
    handed: list[HotConnection] = []
    make, hand_over = HotConnection.connection_made, HotConnection._hand_over

    def connection_made(self: HotConnection, transport: asyncio.BaseTransport) -> None:
        make(self, transport)
        made.append(transport.get_extra_info("socket"))

    def handing_over(self: HotConnection, came: bytes) -> None:
        handed.append(self)
        hand_over(self, came)

    monkeypatch.setattr(HotConnection, "connection_made", connection_made)
    monkeypatch.setattr(HotConnection, "_hand_over", handing_over)
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        reader, writer = await raw(house)
        writer.write(chat(house) + chat(house, stream=True))
        hot = [await read_answer(reader), await read_answer(reader)]
        assert made[-1].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        assert not handed
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: %b\r\n\r\n" % str(house.key).encode())
        status, _, body = await read_answer(reader)
        assert (status, json.loads(body)["object"], len(handed)) == (200, "list", 1)
        writer.write(chat(house) + chat(house, stream=True))
        cold = [await read_answer(reader), await read_answer(reader)]
        assert [(status, set(headers)) for status, headers, _ in hot] == [
            (status, set(headers)) for status, headers, _ in cold
        ]
        same = ("server", "vary", "content-type", "access-control-allow-origin", "access-control-expose-headers")
        for (_, ours, _), (_, aiohttps, _) in zip(hot, cold, strict=True):
            assert [ours.get(name) for name in same] == [aiohttps.get(name) for name in same]
        assert [body.count(b"word") for _, _, body in hot] == [body.count(b"word") for _, _, body in cold] == [4, 4]
        writer.close()


async def test_a_gateway_that_stops_says_so_on_its_last_answers(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(slots=1)) as house:
        house.scheduler.slots["b1"] = 0
        (idle, idle_writer), (reader, writer) = await raw(house), await raw(house)
        writer.write(chat(house, max_tokens=2))
        await eventually(lambda: house.scheduler.queue)
        stopping = asyncio.create_task(house.stop_gateway())
        assert await idle.read() == b""
        idle_writer.close()
        house.scheduler.slots["b1"] = 1
        status, headers, _ = await read_answer(reader)
        assert (status, headers["connection"], await reader.read()) == (200, "close", b"")
        await stopping
        writer.close()


async def test_without_the_hot_path_aiohttp_reads_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HotConnection, "connection_made", None)  # nobody gets as far as this
    async with open_house(tmp_path, FakeEngine(pace=QUICK), hot_path=False) as house, house.post(ask()) as answer:
        assert answer.status == 200
