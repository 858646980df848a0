"""Engines of raw bytes on real sockets: how connections to them are made, used again, slowed and given up."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from forebay.engine_sockets import RefusedAddress
from forebay.local.certificates import open_authority, server_certificate
from forebay_gateway.broken_connection import why_broken
from forebay_gateway.http_out.connection import Connection
from forebay_gateway.http_out.failures import ClosedEarly, NotHttp, Unresolved
from forebay_gateway.http_out.pool import Pool, open_pool
from forebay_gateway.http_out.request import BodyPieces, Request, header_lines, target_of
from forebay_gateway.http_out.response import Response
from tests.gateway.house import eventually

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\n\r\n"
IDLE_S = 3600.0


@dataclass
class Engine:
    """What it says to each request, in turn; the last of them again and again."""

    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    port: int = 0
    made: int = 0
    """Connections."""
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    ended: list[BaseException | None] = field(default_factory=list)
    """How those ended that are over."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        self.writers.append(writer)
        error: BaseException | None = None
        try:
            await self.talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError) as broken:
            error = broken
        finally:
            self.ended.append(error)
            writer.transport.abort()


@asynccontextmanager
async def engine_that(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Engine]:
    engine = Engine(talk)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, ssl=tls)
    engine.port = server.sockets[0].getsockname()[1]
    async with server:
        yield engine
        for writer in engine.writers:
            writer.transport.abort()
        await eventually(lambda: len(engine.ended) == engine.made)


def to(engine: Engine, body: bytes | BodyPieces = b"{}", host: str = "127.0.0.1", scheme: str = "http") -> Request:
    target = target_of("POST", f"{scheme}://{host}:{engine.port}/v1/x")
    return Request(target, header_lines({"x-request-id": "r"}), body)


async def ask(pool: Pool, request: Request) -> Response:
    return await pool.ask(request, lambda connection: None)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As often as it is asked."""
    while True:
        await reader.readuntil(b"{}")
        writer.write(HEAD + b"ok")


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def stream_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Without an end."""
    await reader.readuntil(b"{}")
    writer.write(STREAM + b"x")
    await reader.read()


async def test_a_connection_is_used_again_with_no_delay_and_the_youngest_first() -> None:
    async with engine_that(answer) as engine, open_pool(30.0, idle_s=IDLE_S) as pool:
        responses = [await ask(pool, to(engine)) for _ in range(3)]
        assert [await response.read_all(10) for response in responses] == [b"ok"] * 3
        made = engine.made
        for _ in range(5):
            assert await (await ask(pool, to(engine))).read_all(10) == b"ok"
        assert engine.made == made
        (idle,) = pool._idle.values()
        transport = idle[-1]._transport
        assert transport is not None
        assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        idle[0].idle_since -= IDLE_S
        oldest = idle[0]
        pool._sweep()
        await eventually(lambda: not oldest.is_open)
        for connection in idle:
            connection.idle_since -= IDLE_S
        assert await (await ask(pool, to(engine))).read_all(10) == b"ok"
        assert engine.made == made + 1, "what is idle for too long is not taken, swept or not"
    assert not pool._all


async def test_a_connection_that_was_closed_while_idle_costs_nobody_anything() -> None:
    asked = 0

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"{}")
        asked += 1
        writer.write(HEAD + b"ok")
        await reader.readuntil(b"{}")  # and is gone, without a word

    async with engine_that(answer_once) as engine, open_pool(30.0, idle_s=IDLE_S) as pool:
        written = 0

        def count(connection: Connection) -> None:
            nonlocal written
            written += 1

        for turn in range(1, 4):
            response = await pool.ask(to(engine), count)
            assert await response.read_all(10) == b"ok"
            assert (engine.made, asked) == (turn, turn)
            assert written == 2 * turn - 1


async def test_a_connection_that_breaks_in_an_answer_is_not_asked_again() -> None:
    async def break_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(HEAD + b"ok")
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 2")
        await writer.drain()

    async with engine_that(break_second) as engine, open_pool(30.0, idle_s=IDLE_S) as pool:
        assert await (await ask(pool, to(engine))).read_all(10) == b"ok"
        with pytest.raises(OSError):  # noqa: PT011  # its end or its reset, whichever comes first
            await ask(pool, to(engine))
        assert engine.made == 1


async def test_a_new_connection_that_closes_is_the_engines_fault() -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")

    async with engine_that(leave) as engine, open_pool(30.0, idle_s=IDLE_S) as pool:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await ask(pool, to(engine))
        assert why_broken(caught.value) in ("it closed the connection", "Connection reset by peer")
        assert engine.made == 1


async def test_bytes_on_an_idle_connection_drop_it() -> None:
    async def say_too_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(HEAD + b"ok")
        await may_speak.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfalse")
        await reader.read()

    may_speak = asyncio.Event()
    async with engine_that(say_too_much) as engine, open_pool(30.0, idle_s=IDLE_S) as pool:
        assert await (await ask(pool, to(engine))).read_all(10) == b"ok"
        may_speak.set()
        await eventually(lambda: not pool._all)
        assert await (await ask(pool, to(engine))).read_all(10) == b"ok"


async def test_what_forbids_writing_leaves_the_connection_for_others() -> None:
    def forbid(connection: Connection) -> None:
        raise LookupError

    async with engine_that(answer) as engine, open_pool(30.0, idle_s=IDLE_S) as pool:
        with pytest.raises(LookupError):
            await pool.ask(to(engine), forbid)
        assert await (await ask(pool, to(engine))).read_all(10) == b"ok"
        assert engine.made == 1


@pytest.mark.parametrize(
    ("stage", "tls"),
    [
        *((stage, False) for stage in ("head", "body", "pour", "sending", "pieces", "closed")),
        *((stage, True) for stage in ("head", "pour", "sending")),
    ],
)
async def test_whoever_gives_up_ends_the_connection_in_that_moment(
    stage: str, tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_reading = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            is_over.set()

    async def do_not_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        is_reading.set()
        while await reader.read(1000):
            await asyncio.sleep(0)

    is_over = asyncio.Event()
    talk = {"head": say_nothing, "sending": do_not_read, "pieces": do_not_read}.get(stage, stream_on)
    body: bytes | BodyPieces = b"{}"
    if stage == "sending":
        body = b"x" * (32 << 20)
    elif stage == "pieces":
        body = BodyPieces(endless, None, can_repeat=False)
    async with (
        engine_that(talk, made_tls(tmp_path, monkeypatch) if tls else None) as engine,
        open_pool(30.0, idle_s=IDLE_S) as pool,
    ):
        request = to(engine, body, scheme="https" if tls else "http")

        async def be_asked() -> None:
            response = await ask(pool, request)
            is_reading.set()
            try:
                if stage != "closed":
                    assert await response.read() == b"x"
                    await (response.pour(lambda _: False) if stage == "pour" else response.read())
            finally:
                response.close()

        asking = asyncio.ensure_future(be_asked())
        if stage == "head":
            await eventually(lambda: engine.made == 1)
        else:
            await asyncio.wait_for(is_reading.wait(), 60)
        if stage != "closed":
            asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await eventually(lambda: not pool._all)
        assert not pool._idle
        await eventually(lambda: len(engine.ended) == engine.made)
        assert is_over.is_set() == (stage == "pieces"), "nobody is asked for pieces any more"


async def test_giving_up_while_connecting_leaves_nothing() -> None:
    async with open_pool(30.0, idle_s=IDLE_S) as pool:
        silent = socket.create_server(("127.0.0.1", 0))  # takes connections and says nothing, so TLS is waited for
        with silent:
            engine = Engine(say_nothing, silent.getsockname()[1])
            asking = asyncio.ensure_future(ask(pool, to(engine, scheme="https")))
            taken, _ = await asyncio.get_running_loop().run_in_executor(None, silent.accept)
            with taken:
                asking.cancel()
                await asyncio.wait((asking,))
                assert asking.cancelled()
                await asyncio.get_running_loop().run_in_executor(None, read_to_end, taken)
        assert not pool._all


def read_to_end(taken: socket.socket) -> None:
    with suppress(ConnectionError):
        while taken.recv(1000):
            pass


async def test_a_connection_that_takes_too_long_is_given_up() -> None:
    async with open_pool(0.05) as pool:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            engine = Engine(say_nothing, silent.getsockname()[1])
            with pytest.raises(TimeoutError):
                await ask(pool, to(engine, scheme="https"))


@pytest.mark.parametrize("kind", ["sending", "pieces", "form"])
async def test_an_early_answer_stops_the_body_and_the_connection_is_not_used_again(kind: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too large\r\ncontent-length: 2\r\n\r\nno")
        await is_known.wait()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            is_over.set()

    is_over, is_known = asyncio.Event(), asyncio.Event()
    body: bytes | BodyPieces = b"x" * (32 << 20)
    if kind != "sending":
        body = BodyPieces(endless, None if kind == "pieces" else 1 << 40, can_repeat=False)
    async with engine_that(refuse) as engine, open_pool(30.0, idle_s=IDLE_S) as pool:
        response = await ask(pool, to(engine, body))
        assert response.status == 413
        assert await response.read_all(10) == b"no"
        assert is_over.is_set() == (kind != "sending")
        await eventually(lambda: not pool._all)
        is_known.set()


@pytest.mark.parametrize("length", [None, 300_003])
async def test_a_body_in_pieces_arrives_whole(length: int | None) -> None:
    sent = [b"a" * 100_000, b"", b"b" * 200_000, b"end"]

    async def pieces() -> AsyncIterator[bytes]:
        for piece in sent:
            yield piece

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if length is not None:
                assert b"content-length: 300003\r\n" in head
                got.append(await reader.readexactly(length))
            else:
                assert b"transfer-encoding: chunked\r\n" in head
                whole = b""
                while size := int(await reader.readline(), 16):
                    whole += (await reader.readexactly(size + 2))[:-2]
                await reader.readline()
                got.append(whole)
            writer.write(HEAD + b"ok")

    got = list[bytes]()
    async with engine_that(read) as engine, open_pool(30.0, idle_s=IDLE_S) as pool:
        for _ in range(2):
            response = await ask(pool, to(engine, BodyPieces(pieces, length, can_repeat=True)))
            assert await response.read_all(10) == b"ok"
        assert got == [b"".join(sent)] * 2


async def test_a_large_body_in_memory_arrives_whole_and_is_sent_again_over_a_new_connection() -> None:
    body = bytes(range(256)) * (12 << 10)

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(body)) == body
        writer.write(HEAD + b"ok")
        await reader.read(1)

    async with engine_that(read) as engine, open_pool(30.0, idle_s=IDLE_S) as pool:
        for _ in range(2):
            assert await (await ask(pool, to(engine, body))).read_all(10) == b"ok"
        assert engine.made == 2


async def test_a_body_that_breaks_ends_the_connection_without_its_end() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        raise LookupError

    async with engine_that(say_nothing) as engine, open_pool(30.0, idle_s=IDLE_S) as pool:
        with pytest.raises(ClosedEarly):
            await ask(pool, to(engine, BodyPieces(pieces, None, can_repeat=False)))
        await eventually(lambda: not pool._all)


async def test_a_slow_reader_stops_its_engine_and_all_comes_when_it_goes_on() -> None:
    size = 64 << 20

    async def pour_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(STREAM)
        for _ in range(size >> 20):
            writer.write(b"x" * (1 << 20))
            await writer.drain()

    async with engine_that(pour_out) as engine, open_pool(30.0, idle_s=IDLE_S) as pool:
        response = await ask(pool, to(engine))
        (connection,) = pool._all
        await eventually(lambda: connection._is_paused)
        assert response._size < 1 << 20
        got = 0
        while piece := await response.read():
            got += len(piece)
            assert len(piece) < 1 << 20
        assert got == size


def made_tls(directory: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """For an engine; its authority is trusted from now on."""
    now = datetime.now(UTC)
    authority = open_authority(directory, now)
    made = server_certificate(authority, directory, "engine", ["127.0.0.1"], now)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate_file, made.key_file)
    return context


async def test_tls_is_spoken_with_those_whose_certificate_is_good_and_for_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_that(answer, made_tls(tmp_path, monkeypatch)) as engine:
        async with open_pool(30.0, idle_s=IDLE_S) as pool:
            for _ in range(2):
                assert await (await ask(pool, to(engine, scheme="https"))).read_all(10) == b"ok"
            assert engine.made == 1
            with pytest.raises(ssl.SSLCertVerificationError) as caught:
                await ask(pool, to(engine, host="localhost", scheme="https"))
            assert why_broken(caught.value) == "its certificate is not valid"
        monkeypatch.delenv("SSL_CERT_FILE")
        async with open_pool(30.0, idle_s=IDLE_S) as pool:
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(pool, to(engine, scheme="https"))

    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 This is no port for TLS\r\n\r\n")
        await reader.read()

    async with engine_that(speak_plainly) as engine, open_pool(30.0, idle_s=IDLE_S) as pool:
        with pytest.raises(ssl.SSLError) as caught_plain:
            await ask(pool, to(engine, scheme="https"))
        assert why_broken(caught_plain.value) == "it does not speak TLS as this gateway does"


async def test_all_addresses_of_a_name_are_tried_and_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def resolve(host: str, port: int, *_: Any, **__: Any) -> Any:
        asked.append(host)
        if host == "nowhere":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        ports = {"many": (dead, engine.port), "dead": (dead,)}[host]
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port)) for port in ports]

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        dead = bound.getsockname()[1]  # nobody listens there, and nobody else can
        async with engine_that(answer) as engine, open_pool(30.0, idle_s=IDLE_S) as pool:
            monkeypatch.setattr(socket, "getaddrinfo", resolve)
            responses = await asyncio.gather(*[ask(pool, to(engine, host="many")) for _ in range(3)])
            assert [await response.read_all(10) for response in responses] == [b"ok"] * 3
            assert asked == ["many"], "they wait for one answer"
            for _ in range(2):
                with pytest.raises(ConnectionRefusedError):
                    await ask(pool, to(engine, host="dead"))
            assert asked == ["many", "dead", "dead"], "it may have moved"
            with pytest.raises(Unresolved):
                await ask(pool, to(engine, host="nowhere"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unresolved("x"), "its name cannot be looked up"),
        (RefusedAddress("x"), "its name leads to an address that no engine has"),
        (ssl.SSLError(1, "x"), "it does not speak TLS as this gateway does"),
        (TimeoutError(110, "x"), "it took too long"),
        (ClosedEarly(), "it closed the connection"),
        (NotHttp("x"), "what it answered cannot be read"),
        (OSError(111, "x"), "Connection refused"),
        (OSError("several, at 10.0.0.1"), "the connection failed"),
    ],
)
def test_what_clients_are_told_names_no_address(error: OSError, said: str) -> None:
    assert why_broken(error) == said
