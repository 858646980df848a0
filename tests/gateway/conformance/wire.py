"""A client of raw bytes that believes nothing: it sends exactly what it is given, and reads exactly one HTTP/1.1 answer at a
time. An answer that is framed in two ways or in none, or has a byte too many, is an AssertionError."""

from __future__ import annotations

import asyncio
import fcntl
import json
import re
import socket
import ssl
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

_STATUS = re.compile(r"(HTTP/1\.[01]) ([1-5][0-9]{2}) ((?:[A-Za-z][ -~]*)?)")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}\r\n")
_LONGEST_S = 60.0
"""For any one answer, on a machine that does other things."""

Framing = Literal["length", "chunked", "close", "none"]


@dataclass(frozen=True, slots=True)
class Answer:
    version: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, as they came."""
    body: bytes
    framing: Framing
    interim: tuple[int, ...] = ()
    """Statuses such as 100 that came before it."""

    def __getitem__(self, name: str) -> str:
        """Of a header that came once."""
        (value,) = [value for told, value in self.headers if told == name]
        return value

    def get(self, name: str) -> str | None:
        return self[name] if any(told == name for told, _ in self.headers) else None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def closes(self) -> bool:
        """Whether it is the last on its connection."""
        said = self.get("connection")
        return self.framing == "close" or said == "close" or (self.version == "HTTP/1.0" and said != "keep-alive")


class Wire:
    """Use `dial`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @property
    def port(self) -> int:
        """Its own."""
        port: int = self._writer.get_extra_info("sockname")[1]
        return port

    async def send(self, *pieces: bytes) -> None:
        """Each in a write of its own, and the other side gets to read in between."""
        for number, piece in enumerate(pieces):
            if number:
                for _ in range(3):
                    await asyncio.sleep(0)
            self._writer.write(piece)
            await self._writer.drain()

    async def has_arrived(self) -> None:
        """Returns when all that was sent lies with the other side, and it had its turns to read that."""
        async with asyncio.timeout(_LONGEST_S):
            while self._writer.transport.get_write_buffer_size() or self._unacknowledged():
                await asyncio.sleep(0.002)
        for _ in range(20):
            await asyncio.sleep(0)

    def _unacknowledged(self) -> int:
        connection: socket.socket = self._writer.get_extra_info("socket")
        told = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return int.from_bytes(told, sys.byteorder)

    async def answer(self, method: str = "POST") -> Answer:
        """`method`: of its request. Raises EOFError."""
        answer = await self.answer_or_end(method)
        if answer is None:
            raise EOFError("the connection was closed instead")
        return answer

    async def answer_or_end(self, method: str = "POST") -> Answer | None:
        """None: the connection was closed, and not in the middle of anything."""
        async with asyncio.timeout(_LONGEST_S):
            try:
                line = await self._line()
            except ConnectionError:
                return None
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise AssertionError(f"half an answer: {error.partial!r}") from error
                return None
            try:
                return await self._answer(line, method)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                raise AssertionError(f"half an answer: {line}") from error

    async def rest(self) -> bytes:
        """All that comes until the other side closes. A reset is an end too."""
        async with asyncio.timeout(_LONGEST_S):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    async def first(self, size: int) -> bytes:
        """So many bytes of what comes."""
        async with asyncio.timeout(_LONGEST_S):
            return await self._reader.readexactly(size)

    async def until(self, mark: bytes) -> bytes:
        """What comes up to these bytes, and they."""
        async with asyncio.timeout(_LONGEST_S):
            return await self._reader.readuntil(mark)

    async def is_open(self) -> bool:
        """Whether another request is answered on this connection, which it is not any more afterwards. Nothing else may
        come before its answer, nor after it."""
        try:
            await self.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        except ConnectionError:
            return False
        answer = await self.answer_or_end("GET")
        if answer is None:
            return False
        assert (answer.status, answer.body) == (200, b"Ollama is running")
        assert await self.rest() == b""
        return True

    def half_close(self) -> None:
        self._writer.write_eof()

    def reset(self) -> None:
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.transport.abort()

    async def _line(self) -> str:
        line = await self._reader.readuntil(b"\n")
        assert line.endswith(b"\r\n"), line
        return line[:-2].decode("ascii")

    async def _answer(self, line: str, method: str) -> Answer:
        interim: list[int] = []
        while True:
            told = _STATUS.fullmatch(line)
            assert told is not None, line
            version, status, reason = told[1], int(told[2]), told[3]
            headers = await self._headers()
            if status >= 200:
                break
            assert not headers, "an interim answer with headers"
            interim.append(status)
            line = await self._line()
        body, framing = await self._body(method, version, status, headers)
        return Answer(version, status, reason, headers, body, framing, tuple(interim))

    async def _headers(self) -> tuple[tuple[str, str], ...]:
        headers: list[tuple[str, str]] = []
        while line := await self._line():
            name, colon, value = line.partition(":")
            assert colon, line
            assert _NAME.fullmatch(name), line
            assert _VALUE.fullmatch(value.strip(" ")), line
            headers.append((name.lower(), value.strip(" ")))
        names = [name for name, _ in headers]
        assert len(names) == len(set(names)), f"a header twice: {sorted(names)}"
        return tuple(headers)

    async def _body(
        self, method: str, version: str, status: int, headers: tuple[tuple[str, str], ...]
    ) -> tuple[bytes, Framing]:
        told = dict(headers)
        length, coding = told.get("content-length"), told.get("transfer-encoding")
        assert length is None or coding is None, "framed twice"
        if method == "HEAD" or status in (204, 304):
            return b"", "none"
        if coding is not None:
            assert (version, coding) == ("HTTP/1.1", "chunked")
            return await self._chunks(), "chunked"
        if length is not None:
            assert re.fullmatch("[0-9]+", length), length
            return await self._reader.readexactly(int(length)), "length"
        assert told.get("connection") == "close" or version == "HTTP/1.0", "it has no end"
        return await self._reader.read(), "close"

    async def _chunks(self) -> bytes:
        pieces: list[bytes] = []
        while True:
            line = await self._reader.readuntil(b"\n")
            assert _CHUNK_SIZE.fullmatch(line), line
            size = int(line, 16)
            if size:
                pieces.append(await self._reader.readexactly(size))
            assert await self._reader.readexactly(2) == b"\r\n"
            if not size:
                return b"".join(pieces)


@asynccontextmanager
async def dial(url: str, *, takes_bytes: int | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """`takes_bytes`: what the kernel and this client hold of what is not read."""
    host, _, port = url.removeprefix("http://").partition(":")
    # Of TCP by name: asyncio switches Nagle's algorithm off for such sockets only.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as connection:
        connection.setblocking(False)
        if takes_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes_bytes)
        await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
        # Twice the limit is where a reader stops reading.
        reader, writer = await asyncio.open_connection(
            sock=connection, limit=takes_bytes or 1 << 16, ssl=tls, server_hostname="localhost" if tls else None
        )
        try:
            yield Wire(reader, writer)
        finally:
            writer.transport.abort()


def request(path: str, body: Any = None, *, key: object = None, method: str = "POST", **headers: str) -> bytes:
    """One well-formed request. `body`: JSON, unless it is bytes; None: there is none. `headers`: with _ for -."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = {"host": "x"}
    if key is not None:
        lines["authorization"] = f"Bearer {key}"
    if body is not None:
        lines |= {"content-type": "application/json", "content-length": str(len(content))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    return head(f"{method} {path} HTTP/1.1", lines) + content


def head(line: str, headers: Mapping[str, str]) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunked(body: bytes, size: int = 1 << 16, *, extension: str = "", trailers: str = "") -> bytes:
    """`extension`: behind every size, such as `;a=b`. `trailers`: whole lines."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    parts = [f"{len(piece):x}{extension}\r\n".encode() + piece + b"\r\n" for piece in pieces]
    return b"".join(parts) + f"0\r\n{trailers}\r\n".encode()
