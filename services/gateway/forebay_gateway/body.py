"""Reads a request's body: no longer and not slower than allowed, and within what all requests together may hold."""

from __future__ import annotations

import asyncio

from aiohttp import web

from forebay.errors import BadInput, Refusal
from forebay_gateway.refused import BodyStalled, BodyTooLarge, Refused


class BodyBudget:
    """Bytes of request bodies that this process holds, for requests whose answer has not begun."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.held_bytes = 0

    def hold(self) -> HeldBody:
        return HeldBody(self)

    def take(self, size: int) -> None:
        if self.held_bytes + size > self._most_bytes:
            raise Refused(
                Refusal.QUEUE_FULL,
                "This gateway holds as many waiting requests as its memory allows. Try again in a moment.",
                retry_after_s=2.0,
            )
        self.held_bytes += size


class HeldBody:
    """One request's share of the budget."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._size = 0

    def grow(self, size: int) -> None:
        """Raises Refused when the budget is spent."""
        self._budget.take(size)
        self._size += size

    def release(self) -> None:
        """May be called again."""
        self._budget.held_bytes -= self._size
        self._size = 0


async def read_body(request: web.BaseRequest, held: HeldBody, *, most_bytes: int, idle_s: float) -> bytes:
    """Raises BodyTooLarge, BodyStalled, and Refused when the budget is spent."""
    announced = request.content_length
    if announced is not None and announced > most_bytes:
        raise _too_large(most_bytes)
    if request.version >= (1, 1) and request.headers.get("expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    pieces: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(idle_s) as idle:
            while not request.content.at_eof():
                piece = await request.content.readany()
                size += len(piece)
                if size > most_bytes:
                    raise _too_large(most_bytes)
                held.grow(len(piece))
                pieces.append(piece)
                idle.reschedule(loop.time() + idle_s)
    except TimeoutError as error:
        raise BodyStalled from error
    except web.RequestPayloadError as error:
        raise BadInput("The request's body was cut off, or is not encoded as its headers say.") from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(most_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request's body is larger than {most_bytes} bytes, the most that this gateway takes.")
