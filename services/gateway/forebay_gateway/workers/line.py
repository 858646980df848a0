"""The private line between a parent and one of its workers: a socket pair that nobody else can reach. Frames go both ways:
a length, a number and a body. An answer has its question's number, and what is told unasked has number 0."""

from __future__ import annotations

import asyncio
import socket
import struct

_HEAD = struct.Struct("!IQ")
UNASKED = 0


class Line:
    """Use `open_line`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, number: int, body: bytes) -> None:
        """Nobody waits: either side reads all the time. Into a line whose other end has gone, nothing is sent."""
        self._writer.write(_HEAD.pack(len(body), number) + body)

    async def receive(self) -> tuple[int, bytes] | None:
        """Number and body. None: the other side has ended."""
        try:
            length, number = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
            return number, await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def hang_up(self) -> None:
        """What was sent arrives first."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return


async def open_line(end: socket.socket) -> Line:
    reader, writer = await asyncio.open_unix_connection(sock=end)
    return Line(reader, writer)
