"""Bodies that do not go out in one piece: as fast as the engine takes them, and no longer than until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from forebay_gateway.http_out.connection import Connection
from forebay_gateway.http_out.failures import ClosedEarly
from forebay_gateway.http_out.request import BodyPieces
from forebay_gateway.http_out.response import Response

_SLICE = 256 << 10


async def send_body(connection: Connection, response: Response, body: bytes | BodyPieces) -> None:
    """All of it, and until the head of the answer has come. Raises OSError."""
    writing = asyncio.create_task(_write(connection, body), name="body to an engine")
    writing.add_done_callback(_is_told)
    try:
        await response.wait_head()
    finally:
        writing.cancel()
        await asyncio.wait((writing,))  # whoever gives the pieces is not asked for any more then


async def _write(connection: Connection, body: bytes | BodyPieces) -> None:
    """A body that breaks ends the connection, so that the engine takes it for nothing whole."""
    try:
        if isinstance(body, bytes):
            view = memoryview(body)
            for begin in range(0, len(body), _SLICE):
                await connection.write(view[begin : begin + _SLICE])
        else:
            pieces = body.pieces()
            try:
                if body.length is None:
                    await _write_chunks(connection, pieces)
                else:
                    await _write_plain(connection, pieces, body.length)
            finally:
                if isinstance(pieces, AsyncGenerator):
                    await pieces.aclose()
    except Exception:
        connection.fail(ClosedEarly("Its request was not written whole."))
        raise
    connection.is_written = True


async def _write_chunks(connection: Connection, pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        if piece:
            await connection.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    await connection.write(b"0\r\n\r\n")


async def _write_plain(connection: Connection, pieces: AsyncIterator[bytes], length: int) -> None:
    async for piece in pieces:
        length -= len(piece)
        await connection.write(piece)
    if length:
        raise ValueError("A body is not as long as its request said.")


def _is_told(writing: asyncio.Task[None]) -> None:
    """By its answer: why it broke need not be told again."""
    if not writing.cancelled():
        writing.exception()
