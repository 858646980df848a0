"""Lists as CSV files, written while they are asked for, so that one of any length needs little memory. What a spreadsheet
would take for a formula is made harmless."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from forebay.errors import ForebayError
from forebay_admin.row_files import Column, Row, Writer, writer_of
from forebay_admin.web.visit import Visit

log = logging.getLogger(__name__)


async def send_csv(
    visit: Visit, name: str, columns: Sequence[Column], pieces: AsyncIterator[Sequence[Row]]
) -> web.StreamResponse:
    """`name`: of the file, without its ending. Raises what asking for the first piece raises; what goes wrong later breaks
    the connection off, so that nobody takes half a file for a whole one."""
    first = await anext(pieces, ())
    response = web.StreamResponse(
        headers={
            "content-type": "text/csv; charset=utf-8",
            "content-disposition": f'attachment; filename="{name}.csv"',
        }
    )
    response.enable_chunked_encoding()
    file = io.BytesIO()
    writer = writer_of("csv", file, columns)
    is_whole = False
    try:
        await response.prepare(visit.request)
        await _write(response, file, writer, first)
        async for piece in pieces:
            await _write(response, file, writer, piece)
        await response.write_eof()
        is_whole = True
    except ConnectionError:  # whoever asked for it has gone
        pass
    except ForebayError as error:
        log.warning("list broken off", extra={"action": "list_broken_off", "list": name, "why": error.message})
    finally:
        writer.close()
        if not is_whole and visit.request.transport is not None:
            visit.request.transport.abort()
    return response


async def _write(response: web.StreamResponse, file: io.BytesIO, writer: Writer, rows: Sequence[Row]) -> None:
    for row in rows:
        writer.write(row)
    await response.write(file.getvalue())
    file.seek(0)
    file.truncate()
