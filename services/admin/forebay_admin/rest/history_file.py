"""History as a file, the same as the command line writes, sent while the registry tells its pages. What goes wrong after
the first of them breaks the connection off, so that nobody takes half a file for a whole one."""

from __future__ import annotations

import asyncio
import io
import logging
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import IO, Any, cast

from aiohttp import web

from forebay.errors import BadInput, ForebayError
from forebay.wire.v1 import history_pb2 as wire
from forebay_admin.fleet.history_files import Writer, writer_of
from forebay_admin.fleet.history_rows import pages_of, rows_of
from forebay_admin.json_form import word
from forebay_admin.rest.failures import TookTooLong
from forebay_admin.rest.file_forms import TYPES

log = logging.getLogger(__name__)

_AT_ONCE = struct.pack("ii", 1, 0)
"""What is unsent is dropped, and the other side hears of a reset."""


async def send_file(request: web.Request, form: str, asked: Any, operator: Any, call_s: float) -> web.StreamResponse:
    """`asked`: the request of ShowHistory. `operator`: the servicer of the operators' calls. `call_s`: the longest that one
    page may take. Raises what the call raises before its first answer."""
    if asked.page:
        raise BadInput("A file holds all pages: leave out page, or the format.")

    async def ask(page: wire.ReadHistoryRequest) -> wire.ReadHistoryResponse:
        try:
            async with asyncio.timeout(call_s):
                answer: wire.ReadHistoryResponse = await operator.ShowHistory(page, None)
                return answer
        except TimeoutError as error:
            raise TookTooLong from error

    known = (await operator.ShowSeries(wire.ListSeriesRequest(kind=asked.kind), None)).metrics
    metrics = [metric for metric in known if metric in asked.metrics or not asked.metrics]
    kind, pipe = word(asked, "kind") or "", _Pipe()
    # What writes Parquet takes a second to load.
    writer = await asyncio.to_thread(writer_of, form, cast(IO[bytes], pipe), metrics)
    response = web.StreamResponse(
        headers={"content-type": TYPES[form], "content-disposition": f'attachment; filename="{kind}.{form}"'}
    )
    is_whole = False
    try:
        async with aclosing(pages_of(ask, asked)) as pages:
            await _send(request, response, pages, kind, metrics, writer, pipe)
        await response.write_eof()
        is_whole = True
    except ConnectionError:  # whoever asked for it has gone
        if not response.prepared:
            raise
    except ForebayError as error:
        if not response.prepared:
            raise
        log.warning("history file broken off", extra={"action": "history_file_broken_off", "why": error.message})
    finally:
        if response.prepared and not is_whole:
            _break_off(request)
    return response


def _break_off(request: web.Request) -> None:
    """An end in good order is the end of a whole file to those who ask in HTTP/1.0, as proxies do."""
    if request.transport is None:
        return
    if (connection := request.transport.get_extra_info("socket")) is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    request.transport.abort()


async def _send(
    request: web.Request,
    response: web.StreamResponse,
    pages: AsyncIterator[wire.ReadHistoryResponse],
    kind: str,
    metrics: Sequence[str],
    writer: Writer,
    pipe: _Pipe,
) -> None:
    async for page in pages:
        if not response.prepared:
            await response.prepare(request)
        # Ten thousand rows of a hundred columns take a while, in which others have their turn.
        await asyncio.to_thread(_write, writer, page, kind, metrics)
        await response.write(pipe.take())
    await asyncio.to_thread(writer.close)
    await response.write(pipe.take())


def _write(writer: Writer, page: wire.ReadHistoryResponse, kind: str, metrics: Sequence[str]) -> None:
    for row in rows_of(page, kind, metrics):
        writer.write(row)


class _Pipe(io.RawIOBase):
    """A file that only grows, and of which what was written so far can be taken."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._taken = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held += data
        return len(data)

    def tell(self) -> int:
        """Where the file is written to, by which Parquet finds its columns again."""
        return self._taken + len(self._held)

    def take(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        self._taken += len(held)
        return held
