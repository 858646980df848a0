"""Heads of hot requests: what is taken, what is left to aiohttp, and that both read the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_gateway.http_in.framer import LONGEST_HEAD, LONGEST_LINE, Head, NotHot, read_head

LINES = [b"Host: 127.0.0.1:8090", b"Authorization: Bearer fb-1-x", b"content-length: 12"]
PATH = b"/v1/chat/completions"


def head(*more: bytes, lines: list[bytes] = LINES, path: bytes = PATH) -> bytes:
    return b"\r\n".join([b"POST %b HTTP/1.1" % path, *lines, *more, b"", b""])


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def as_aiohttp_reads(loop: asyncio.AbstractEventLoop, came: bytes) -> list[RawRequestMessage] | None:
    """None: it refuses."""
    protocol = BaseProtocol(loop)
    parser = protocol._parser = HttpRequestParser(
        protocol, loop, 1 << 16, max_line_size=LONGEST_LINE, max_field_size=LONGEST_LINE
    )
    try:
        messages, _, _ = parser.feed_data(came)
    except HttpProcessingError:
        return None
    return [message for message, _ in messages]


def test_a_plain_head_is_read_with_its_names_in_lower_case_and_its_values_bare() -> None:
    came = head(b"X-Request-Id:  \tmy-id\t ", b"x-empty:", b"x-utf8: \xc3\xa9 \xff")
    read = read_head(came + b"{" * 12 + b"POST /next")
    assert isinstance(read, Head)
    assert (read.size, read.path, read.content_length, read.keeps_alive) == (len(came), PATH.decode(), 12, True)
    assert dict(read.headers) == {
        "host": "127.0.0.1:8090",
        "authorization": "Bearer fb-1-x",
        "content-length": "12",
        "x-request-id": "my-id",
        "x-empty": "",
        "x-utf8": "é \udcff",
    }


@pytest.mark.parametrize(
    ("line", "keeps"),
    [(b"connection: keep-alive", True), (b"Connection: Keep-Alive", True), (b"connection: Close", False)],
)
def test_a_client_says_whether_its_connection_goes_on(line: bytes, keeps: bool) -> None:
    read = read_head(head(line))
    assert isinstance(read, Head)
    assert read.keeps_alive is keeps


REFUSED = {
    "two lengths": head(b"content-length: 12"),
    "two other lengths": head(b"Content-Length: 13"),
    "length and encoding": head(b"transfer-encoding: chunked"),
    "encoding and length": head(lines=[b"transfer-encoding: chunked", *LINES]),
    "an encoding nobody knows": head(b"transfer-encoding: xchunked"),
    "a tab in an encoding": head(b"transfer-encoding:\x0bchunked"),
    "a sign": head(lines=[LINES[0], b"content-length: +12"]),
    "a comma": head(lines=[LINES[0], b"content-length: 12,12"]),
    "a space within": head(lines=[LINES[0], b"content-length: 1 2"]),
    "hexadecimal": head(lines=[LINES[0], b"content-length: 0xc"]),
    "no digits": head(lines=[LINES[0], b"content-length:"]),
    "too many digits": head(lines=[LINES[0], b"content-length: 99999999999999999999999"]),
    "bare line feeds": head().replace(b"\r\n", b"\n"),
    "one bare line feed": head(b"a: b\nc: d"),
    "one bare return": head(b"a: b\rc: d"),
    "a folded line": head(b"a: b", b" c"),
    "a line folded with a tab": head(b"a: b", b"\tc"),
    "a zero byte": head(b"a: b\0c"),
    "a control character": head(b"a: b\x01c"),
    "a space before the colon": head(b"a : b"),
    "a name with a bracket": head(b"a(b: c"),
    "no colon": head(b"abc"),
    "no name": head(b": b"),
    "two hosts": head(b"host: other"),
    "no host": head(lines=LINES[1:]),
    "another version": head().replace(b"HTTP/1.1", b"HTTP/1.2"),
    "a space after the version": head().replace(b"HTTP/1.1", b"HTTP/1.1 "),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a long line": head(b"a: " + b"b" * (LONGEST_LINE + 1)),
}
LEFT = {
    "another method": head().replace(b"POST", b"GET"),
    "an old client": head().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "chunks": head(b"transfer-encoding: chunked", lines=LINES[:1]),
    "no length": head(lines=LINES[:2]),
    "an encoded body": head(b"content-encoding: gzip"),
    "a question first": head(b"expect: 100-continue"),
    "an upgrade": head(b"connection: upgrade", b"upgrade: websocket"),
    "several options": head(b"connection: x, close"),
    "a header twice": head(b"x-forwarded-for: 1.2.3.4", b"x-forwarded-for: 1.2.3.4"),
    "a query": head(path=b"/v1/messages?beta=true"),
    "an escape": head(path=b"/v1/chat%2fcompletions"),
    "two slashes": head(path=b"//v1/chat/completions"),
    "a way up": head(path=b"/x/../v1/chat/completions"),
    "a whole address": head(path=b"http://x/v1/chat/completions"),
    "lines before it": b"\r\n\r\n" + head(),
    "two spaces": head().replace(b"POST ", b"POST  "),
    "a zero in front": head(lines=[LINES[0], b"content-length: 012"]),
}


@pytest.mark.parametrize("came", REFUSED.values(), ids=REFUSED)
def test_what_is_malformed_or_ambiguous_is_taken_by_nobody(loop: asyncio.AbstractEventLoop, came: bytes) -> None:
    assert read_head(came) is NotHot.OTHER
    assert as_aiohttp_reads(loop, came) is None


@pytest.mark.parametrize("came", LEFT.values(), ids=LEFT)
def test_what_is_not_hot_is_left_to_aiohttp(loop: asyncio.AbstractEventLoop, came: bytes) -> None:
    assert read_head(came) is NotHot.OTHER
    assert as_aiohttp_reads(loop, came) is not None


@pytest.mark.parametrize(
    "came",
    [
        *(b"\x16\x03\x01\x02\x00\x01", b"\r\n", b"post /", b"\0", b"GET /\r\n", b"POST / HTTP/1.1\n", b"P\rO"),
        *(b"POST /v1 HTTP/1.1\r\na: b\nc", b"POST " + b"/" * LONGEST_LINE),
        b"POST /v1 HTTP/1.1\r\n" + b"a: b\r\n" * (LONGEST_HEAD // 6),
        b"POST /v1 HTTP/1.1\r\na: " + b"b" * LONGEST_LINE,
    ],
)
def test_what_can_become_no_head_is_not_waited_for(came: bytes) -> None:
    assert read_head(came) is NotHot.OTHER


SOME_LINES = st.one_of(
    st.builds(
        lambda name, value: name + b":" + value,
        st.sampled_from([b"x-a", b"X_b", b"accept", b"Connection", b"content-length", b"te", b"a!", b"a b", b""]),
        st.one_of(
            st.sampled_from([b" close", b"keep-alive", b" 5", b"5, 5", b" gzip", b"\tx ", b"\xff\xfe", b" a\tb"]),
            st.binary(max_size=6),
        ),
    ),
    st.binary(max_size=8),
)


@settings(max_examples=30, deadline=None)
@given(more=st.lists(SOME_LINES, max_size=4), body=st.binary(max_size=16))
def test_what_is_taken_is_what_aiohttp_would_take_in_whatever_pieces_it_comes(more: list[bytes], body: bytes) -> None:
    loop = asyncio.new_event_loop()
    try:
        came = head(*more) + body
        read = read_head(came)
        assert read is not NotHot.MORE
        if not isinstance(read, Head):
            return
        assert all(read_head(came[:cut]) is NotHot.MORE for cut in range(1, read.size))
        assert all(read_head(came[:cut]) == read for cut in range(read.size, len(came)))
        messages = as_aiohttp_reads(loop, came[: read.size])
        assert messages is not None
        (message,) = messages
        assert (message.method, message.path, message.should_close) == ("POST", read.path, not read.keeps_alive)
        assert (message.chunked, message.upgrade, message.compression) == (False, False, None)
        assert {name.lower(): value for name, value in message.headers.items()} == dict(read.headers)
    finally:
        loop.close()
