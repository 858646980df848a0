"""What engines' bytes come to, however they are cut: a connection without a socket under it."""

from __future__ import annotations

import asyncio
import zlib
from pathlib import Path

import pytest

from forebay_gateway.canonical.upload import File, Upload
from forebay_gateway.engine_answer import EngineAnswer, TroubledEngine
from forebay_gateway.http_out.connection import Connection
from forebay_gateway.http_out.failures import ClosedEarly, NotHttp
from forebay_gateway.http_out.form import Form
from forebay_gateway.http_out.request import Address, Request, Targets, header_lines, target_of
from forebay_gateway.http_out.response import Response

ADDRESS = Address("engine", 80, False)
OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
BODY = b"0123456789"


class Wire(asyncio.Transport):
    """Takes what is written, and remembers how it was asked to be."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_ended = self.is_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.is_ended

    def can_write_eof(self) -> bool:
        return False  # as over TLS

    def abort(self) -> None:
        self.is_ended = True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Kept:
    """Keeps the connections that may be used again."""

    def __init__(self) -> None:
        self.free: list[Connection] = []

    def made(self, connection: Connection) -> None:
        pass

    def freed(self, connection: Connection) -> None:
        self.free.append(connection)

    def lost(self, connection: Connection) -> None:
        pass


class Talk:
    """One request that was asked, and is about to be answered."""

    def __init__(self, method: str = "POST") -> None:
        self.wire, self.kept, self.method = Wire(), Kept(), method
        self.connection = Connection(asyncio.get_running_loop(), self.kept, ADDRESS)
        self.connection.connection_made(self.wire)
        self.response = self.ask()

    def ask(self) -> Response:
        return self.connection.ask(Request(target_of(self.method, "http://engine/x"), b"", b"{}"))

    def hear(self, *pieces: bytes) -> None:
        for piece in pieces:
            if piece and not self.wire.is_ended:
                self.connection.data_received(piece)

    def end(self, error: OSError | None = None) -> None:
        self.connection.connection_lost(error)


async def read_into(got: list[bytes], response: Response) -> None:
    while piece := await response.read():
        got.append(piece)


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n"
ANSWERS = {
    "length": (OK + b"content-length: 10\r\n\r\n" + BODY, True),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\n012\r\n7;x=y\r\n3456789\r\n0\r\n\r\n", True),
    "trailers": (OK + b"transfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\ncontent-type: no\r\n\r\n", True),
    "interim": (INTERIM + OK + b"content-length: 10\r\n\r\n" + BODY, True),
    "last": (OK + b"connection: close\r\ncontent-length: 10\r\n\r\n" + BODY, False),
    "old": (b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\n" + BODY, False),
    "until it closes": (OK + b"\r\n" + BODY, False),
    "bare line feeds": (OK.replace(b"\r", b"") + b"content-length: 10\n\n" + BODY, True),
    "gzip": (OK + b"content-encoding: gzip\r\n\r\n" + zlib.compress(BODY, wbits=31), False),
}  # fmt: skip


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_is_the_same_wherever_its_bytes_are_cut(kind: str) -> None:
    raw, is_kept = ANSWERS[kind]
    for cut in range(len(raw) + 1):
        talk = Talk()
        talk.hear(raw[:cut], raw[cut:])
        if not is_kept:
            talk.end()
        assert talk.response.status == 200
        assert talk.response.header(b"content-type") == "text/plain"
        assert await talk.response.read_all(100) == BODY, cut
        assert bool(talk.kept.free) == is_kept
        assert talk.response.is_at_end


async def test_each_byte_alone_is_enough_and_the_next_answer_on_the_connection_is_read_as_well() -> None:
    talk = Talk()
    for kind in [kind for kind, (_, is_kept) in ANSWERS.items() if is_kept]:
        talk.hear(*[bytes([byte]) for byte in ANSWERS[kind][0]])
        assert await talk.response.read_all(100) == BODY, kind
        assert talk.kept.free.pop() is talk.connection
        talk.response = talk.ask()


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_is_over_with_its_head(status: int) -> None:
    talk = Talk()
    talk.hear(b"HTTP/1.1 %d X\r\n\r\n" % status)
    assert await talk.response.read() == b""
    assert talk.kept.free


async def test_an_answer_to_head_has_no_body_whatever_it_says() -> None:
    talk = Talk("HEAD")
    talk.hear(OK + b"content-length: 4000000000\r\n\r\n")
    assert talk.response.is_at_end
    assert talk.kept.free == [talk.connection]
    talk.response = talk.ask()
    talk.hear(b"HTTP/1.1 404 No\r\ncontent-length: 3\r\n\r\n")
    assert (talk.response.status, talk.response.is_at_end) == (404, True)


GARBAGE = {
    "not http": b"SSH-2.0-OpenSSH_9\r\n",
    "no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "two lengths": OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc",
    "a length and chunks": OK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk": OK + b"transfer-encoding: chunked\r\n\r\nxyz\r\n",
    "another protocol": b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "a huge head": b"HTTP/1.1 200 OK\r\nx: " + b"y" * (70 << 10),
    "many interim answers": b"HTTP/1.1 103 Hints\r\n\r\n" * 4000,
    "an unknown encoding": OK + b"content-encoding: br\r\ncontent-length: 1\r\n\r\nx",
    "a false encoding": OK + b"content-encoding: gzip\r\ncontent-length: 9\r\n\r\nnot at all",
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_what_is_no_answer_ends_the_connection(kind: str) -> None:
    talk = Talk()
    talk.hear(*[GARBAGE[kind][at : at + 1000] for at in range(0, len(GARBAGE[kind]), 1000)])
    with pytest.raises(NotHttp):
        await talk.response.read_all(1000)
    assert talk.wire.is_ended
    assert not talk.kept.free


@pytest.mark.parametrize("kind", ["length", "chunks", "interim"])
async def test_an_answer_that_is_cut_off_is_an_error_after_what_came(kind: str) -> None:
    raw, _ = ANSWERS[kind]
    for cut in range(len(raw)):
        talk = Talk()
        talk.hear(raw[:cut])
        talk.end()
        got = list[bytes]()
        with pytest.raises(ClosedEarly):
            await read_into(got, talk.response)
        assert BODY.startswith(b"".join(got))
        assert talk.response.has_spoken == (cut > 0)


async def test_a_reset_is_an_error_also_where_the_end_of_the_connection_is_the_end_of_the_body() -> None:
    talk = Talk()
    talk.hear(OK + b"\r\n" + BODY)
    talk.end(ConnectionResetError(104, "Connection reset by peer"))
    assert await talk.response.read() == BODY
    with pytest.raises(ConnectionResetError):
        await talk.response.read()


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    raw, _ = ANSWERS["length"]
    talk = Talk()
    talk.hear(raw + raw)
    assert await talk.response.read_all(100) == BODY
    assert not talk.kept.free, "there is an answer on it to a question that somebody else would ask"
    assert talk.wire.is_ended

    talk = Talk()
    talk.hear(raw)
    assert talk.kept.free
    talk.hear(b"H")
    assert talk.wire.is_ended


async def test_pieces_are_poured_in_the_turn_in_which_they_come() -> None:
    talk, got = Talk(), list[bytes]()
    talk.hear(OK + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n")

    def take(piece: bytes) -> bool:
        got.append(piece)
        return piece == b"enough"

    pouring = asyncio.ensure_future(talk.response.pour(take))
    await asyncio.sleep(0)
    assert got == [b"a"]
    talk.hear(b"1\r\nb\r\n2\r\ncd\r\n")
    assert got == [b"a", b"bcd"], "all that one read brings is one piece"
    talk.hear(b"6\r\nenough\r\n")
    talk.hear(b"1\r\ne\r\n")
    await pouring
    assert got[2:] == [b"enough"]
    pouring = asyncio.ensure_future(talk.response.pour(take))
    await asyncio.sleep(0)
    talk.hear(b"1\r\nf\r\n0\r\n\r\n")
    assert got[3:] == [b"e", b"f", b""]
    await pouring
    assert talk.kept.free


async def test_what_stops_a_pour_comes_out_of_it_and_nothing_is_lost() -> None:
    talk = Talk()
    talk.hear(OK + b"transfer-encoding: chunked\r\n\r\n")

    def refuse(piece: bytes) -> bool:
        raise LookupError(piece)

    pouring = asyncio.ensure_future(talk.response.pour(refuse))
    await asyncio.sleep(0)
    talk.hear(b"1\r\na\r\n")
    talk.hear(b"1\r\nb\r\n")
    with pytest.raises(LookupError):
        await pouring
    pouring = asyncio.ensure_future(talk.response.pour(refuse))
    await asyncio.sleep(0)
    with pytest.raises(LookupError):
        await pouring
    pouring = asyncio.ensure_future(talk.response.pour(refuse))
    await asyncio.sleep(0)
    pouring.cancel()
    talk.hear(b"1\r\nc\r\n")
    with pytest.raises(asyncio.CancelledError):
        await pouring
    assert await talk.response.read() == b"c"
    pouring = asyncio.ensure_future(talk.response.pour(refuse))
    await asyncio.sleep(0)
    talk.end()
    with pytest.raises(ClosedEarly):
        await pouring


async def test_a_client_that_breaks_is_not_taken_for_its_engine() -> None:
    def leave(piece: bytes) -> bool:
        raise ConnectionResetError("the client")

    talk = Talk()
    answer = EngineAnswer(talk.response)
    talk.hear(OK + b"\r\n")
    pouring = asyncio.ensure_future(answer.pour(leave))
    await asyncio.sleep(0)
    talk.hear(b"x")
    with pytest.raises(ConnectionResetError, match="the client"):
        await pouring
    pouring = asyncio.ensure_future(answer.pour(leave))
    await asyncio.sleep(0)
    talk.end(ConnectionResetError(104, "Connection reset by peer"))
    with pytest.raises(TroubledEngine, match=r"Its connection broke: Connection reset by peer"):
        await pouring


async def test_the_end_of_a_stream_is_waited_for_and_not_for_long() -> None:
    talk = Talk()
    talk.hear(OK + b"transfer-encoding: chunked\r\n\r\n4\r\nlast\r\n")
    assert await EngineAnswer(talk.response).read() == b"last"
    ending = asyncio.ensure_future(EngineAnswer(talk.response).wait_end(60.0))
    await asyncio.sleep(0)
    talk.hear(b"4\r\nmore\r\n", b"0\r\n\r\n")
    await ending
    assert talk.kept.free
    talk.response = talk.ask()
    talk.hear(OK + b"transfer-encoding: chunked\r\n\r\n")
    await EngineAnswer(talk.response).wait_end(0.0)
    assert talk.wire.is_ended


async def test_an_engine_is_paused_while_much_is_unread_or_when_it_is_told_to() -> None:
    talk = Talk()
    talk.hear(OK + b"\r\n", b"x" * (64 << 10))
    assert not talk.wire.is_paused
    talk.hear(b"x")
    assert talk.wire.is_paused
    assert len(await talk.response.read()) == (64 << 10) + 1
    assert not talk.wire.is_paused
    talk.response.pause()
    talk.hear(b"y")
    assert await talk.response.read() == b"y"
    assert talk.wire.is_paused
    talk.response.resume()
    assert not talk.wire.is_paused
    reading = asyncio.ensure_future(talk.response.read_all(1 << 20))
    await asyncio.sleep(0)
    talk.hear(*[b"z" * (100 << 10)] * 3)
    assert not talk.wire.is_paused, "all of it is wanted"
    talk.end()
    assert len(await reading or b"") == 300 << 10


async def test_a_body_that_is_too_long_is_not_waited_for() -> None:
    talk = Talk()
    reading = asyncio.ensure_future(talk.response.read_all(1000))
    await asyncio.sleep(0)
    talk.hear(OK + b"\r\n", b"x" * 1001)
    assert await reading is None


async def test_no_header_can_end_a_line_and_no_path_is_sent_raw() -> None:
    for name, value in (("a", "b\r\nc: d"), ("a", "b\n"), ("a", "\0"), ("a\r", "b")):
        with pytest.raises(ValueError, match="line break"):
            header_lines({name: value})
    assert header_lines({"said": "gr\u00fcn \udcff"}) == b"said: gr\xc3\xbcn \xff\r\n"
    start = target_of("POST", "http://[::1]:8000/a b\r\nx?q=\u00e4#f").start
    assert start.startswith(b"POST /a%20b")
    assert start.count(b"\r\n") == 4
    assert b"\r\nhost: [::1]:8000\r\n" in start
    for url in ("ftp://x/", "/x", "http:///x", "http://x:99999/"):
        with pytest.raises(ValueError):  # noqa: PT011  # of its own or of the URL's parser
            target_of("POST", url)
    targets = Targets()
    assert targets.get("POST", "https://engine", "/x") is targets.get("POST", "https://engine", "/x")
    assert targets.get("POST", "https://engine", "/x").address == Address("engine", 443, True)


async def test_a_forms_names_go_on_as_they_came_and_its_length_is_known(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\0\xff" * 200_000)
    file = File("file", 'a "b"\\ \u00fc.wav', "audio/wav", tmp_path / "f")
    form = Form(Upload([("model", "m"), ("prompt", "Gr\u00fc\u00dfe")], [file]))
    body = form.body()
    sent = b"".join([piece async for piece in body.pieces()])
    assert len(sent) == body.length
    assert sent == b"".join([piece async for piece in body.pieces()]), "it may be sent again"
    mark = form.content_type.rpartition("=")[2].encode()
    assert sent.count(mark) == 4
    assert sent.endswith(b"--%s--\r\n" % mark)
    assert 'filename="a \\"b\\"\\\\ \u00fc.wav"\r\n\r\n'.encode() + b"\0\xff\0" in sent
    assert 'name="prompt"\r\n\r\nGr\u00fc\u00dfe\r\n'.encode() in sent
    with pytest.raises(ValueError, match="line break"):
        Form(Upload([], [File("a\r\nb", "x", "audio/wav", tmp_path / "f")]))


async def test_a_connection_that_was_reset_when_it_is_left_ends_at_once() -> None:
    class Reset(Wire):
        def can_write_eof(self) -> bool:
            return True

        def write_eof(self) -> None:
            raise OSError("not connected")

    talk = Talk()
    talk.connection.connection_made(wire := Reset())
    talk.response.close()
    assert wire.is_ended
    talk.end()
    assert not talk.connection.is_left
