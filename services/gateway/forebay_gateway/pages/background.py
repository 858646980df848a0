"""A response in the background, as clients see it begin and grow: the request that asks for one, and its events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

import orjson

from forebay.errors import ForebayError
from forebay_gateway.asked import Background
from forebay_gateway.keeping.background import BackgroundResponse
from forebay_gateway.reply import Reply

_REFUSED_WITHIN_S = 0.05
"""So long it is waited for what refuses a request at once, such as its limits: its client hears of it at once too."""
_COMMENT = b": waiting\n\n"


class Serving(Protocol):
    """A request on its way from its arrival to its end (relay.Exchange)."""

    on_left: Callable[[Background, Reply], None] | None

    async def serve(self) -> None: ...


async def serve_apart(exchange: Serving, comment_every_s: float) -> None:
    """In a task of its own, which goes on without the client when that is what it asked for, and else ends with it."""
    left: asyncio.Future[tuple[Background, Reply]] = asyncio.get_running_loop().create_future()
    exchange.on_left = lambda background, client: left.set_result((background, client))
    work = asyncio.create_task(exchange.serve(), name="response")
    try:
        await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
        if not left.done():
            work.result()
            return
        await asyncio.wait({work}, timeout=_REFUSED_WITHIN_S)
    except asyncio.CancelledError:
        work.cancel()  # the client knows of no response yet
        await asyncio.wait({work})
        raise
    background, client = left.result()
    assert isinstance(background, BackgroundResponse)
    await _tell_begun(background, client, comment_every_s)


async def _tell_begun(response: BackgroundResponse, client: Reply, comment_every_s: float) -> None:
    if response.refusal is not None:
        await client.refuse(response.refusal)
    else:
        response.is_told = True
        if response.streams:
            await tell_events(client, response.follow(-1, comment_every_s))
        else:
            await client.send(200, orjson.dumps(response.queued))


async def tell_events(client: Reply, events: AsyncGenerator[bytes, None]) -> None:
    """`events`: some at a time; nothing when the client has waited long for the next. Raises ConnectionError."""
    try:
        async with aclosing(events):
            piece = await anext(events, None)  # what goes wrong before anything is told has a status of its own
            await client.begin_stream()
            while piece is not None:
                await client.write(piece or _COMMENT)
                piece = await anext(events, None)
        await client.end_stream(b"")
    except ForebayError as error:
        await client.refuse(error)
