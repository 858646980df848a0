"""How an answer that is no stream of tokens leaves the fake engine: whole, or as bytes in pieces. The faults of its request
come on the way."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from typing import Any

from aiohttp import web

from tests.fakes.engine_faults import FaultKind, Hit
from tests.fakes.engine_record import Seen

SEEN = web.RequestKey("seen", Seen)
HIT = web.RequestKey("hit", Hit)

BYTE_PIECES = 4


class Broken(Exception):
    """An injected fault ended the answer, and the connection with it."""


async def send_json(request: web.Request, body: dict[str, Any] | list[dict[str, Any]]) -> web.StreamResponse:
    if isinstance(body, dict) and request[HIT][FaultKind.NO_USAGE] is not None:
        body.pop("usage", None)
    raw = json.dumps(body, ensure_ascii=False).encode(errors="replace")
    return await send_whole(request, raw, "application/json; charset=utf-8")


async def send_whole(request: web.Request, raw: bytes, content_type: str) -> web.StreamResponse:
    hit = request[HIT]
    headers = {"content-type": content_type}
    if hit[FaultKind.MALFORMED_SSE]:
        raw = raw[: len(raw) // 2]
    cut = hit[FaultKind.CUT_AFTER]
    if cut is None:
        return web.Response(body=raw, headers=headers)
    response = web.StreamResponse(headers=headers)
    response.content_length = len(raw)
    await response.prepare(request)
    await response.write(raw[: len(raw) // 2])
    close_connection(request, reset=cut.reset)
    raise Broken


async def send_in_pieces(request: web.Request, raw: bytes, content_type: str, *, every_s: float) -> web.StreamResponse:
    """Chunked, so that no one knows how much is to come."""
    hit = request[HIT]
    response = web.StreamResponse(headers={"content-type": content_type})
    await response.prepare(request)
    size = -(-len(raw) // BYTE_PIECES)
    for i in range(BYTE_PIECES):
        if i > 0:
            await asyncio.sleep(every_s)
        if stall := hit.due(FaultKind.STALL_AFTER, i):
            await asyncio.sleep(stall.seconds)
        if cut := hit.due(FaultKind.CUT_AFTER, i):
            close_connection(request, reset=cut.reset)
            raise Broken
        await response.write(raw[i * size : (i + 1) * size])
    await response.write_eof()
    return response


async def until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def close_connection(request: web.Request, *, reset: bool) -> None:
    """FIN after what was written; with `reset`, RST at once."""
    transport = request.transport
    if transport is None:
        return
    if reset:
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
