"""Answers that come one after the other: lines of JSON, or server-sent events. What goes wrong after the first is told among
them, and ends them; that the client went ends the call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import orjson
from aiohttp import web
from google.protobuf.message import Message

from forebay.errors import ForebayError
from forebay_admin.json_form import plain
from forebay_admin.rest.failures import told

log = logging.getLogger(__name__)

EVENTS, LINES = "text/event-stream", "application/x-ndjson"

_LOOK_S = 1.0
"""How often it is looked whether the client is still there while there is nothing to tell."""
_QUIET_LOOKS = 15
"""After so many looks events get a comment, so that nothing between here and the client takes them for dead."""


async def first_of(answers: AsyncIterator[Message]) -> Message:
    async with aclosing(answers) as opened:  # type: ignore[type-var]
        async for answer in opened:
            return answer
    raise ForebayError("The call ended without an answer.")


async def tell_all(request: web.Request, answers: AsyncIterator[Message]) -> web.StreamResponse:
    """Raises what the call raises before its first answer."""
    as_events = EVENTS in request.headers.get("accept", "")
    response = web.StreamResponse(headers={"content-type": EVENTS if as_events else LINES})
    async with aclosing(answers) as opened:  # type: ignore[type-var]
        coming = asyncio.ensure_future(anext(opened, None))
        try:
            answer = await coming
            await response.prepare(request)
            while answer is not None:
                await response.write(_event(answer) if as_events else _line(plain(answer)))
                coming = asyncio.ensure_future(anext(opened, None))
                if not await _is_awaited(coming, request, response, as_events=as_events):
                    return response
                answer = coming.result()
        except ConnectionError:
            return response
        except ForebayError as error:
            if not response.prepared:
                raise
            await _tell_end(response, told(error), as_events=as_events)
        except Exception:
            if not response.prepared:
                raise
            log.exception("stream failed", extra={"action": "rest_stream_failed"})
            await _tell_end(response, told(ForebayError()), as_events=as_events)
        finally:
            coming.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await coming  # a generator that still runs cannot be closed
    with suppress(ConnectionError):
        await response.write_eof()
    return response


async def _is_awaited(
    coming: asyncio.Future[Any], request: web.Request, response: web.StreamResponse, *, as_events: bool
) -> bool:
    """When the next answer is there. False: the client has gone."""
    looks = 0
    while not (await asyncio.wait((coming,), timeout=_LOOK_S))[0]:
        if request.transport is None or request.transport.is_closing():
            return False
        looks += 1
        if as_events and looks % _QUIET_LOOKS == 0:
            await response.write(b": waiting\n\n")
    return True


async def _tell_end(response: web.StreamResponse, error: dict[str, Any], *, as_events: bool) -> None:
    with suppress(ConnectionError):
        await response.write(b"event: error\ndata: " + orjson.dumps(error) + b"\n\n" if as_events else _line(error))


def _event(answer: Message) -> bytes:
    return b"data: " + orjson.dumps(plain(answer)) + b"\n\n"


def _line(values: dict[str, Any]) -> bytes:
    return orjson.dumps(values) + b"\n"
