"""Where one answer goes, whichever way its request came in. What it says is Reply's and relaying's business."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol


class Wire(Protocol):
    """Takes bytes as they are to stand on the connection."""

    is_full: bool
    """The client is slow."""

    def write(self, part: bytes) -> None:
        """Raises ConnectionError when the client has gone."""
        ...


class Outgoing(Protocol):
    """Either `send`, or `begin`, any number of writes, and `end`. All of them raise ConnectionError when the client has
    gone, and those that wait do so for a client that is slow."""

    @property
    def takes_now(self) -> bool:
        """Whether `write_now` is there."""
        ...

    async def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """All of it. `headers`: with the content-type, and without those of the framing."""
        ...

    async def begin(self, status: int, headers: Mapping[str, str]) -> None: ...
    async def write(self, piece: bytes) -> None: ...
    def write_now(self, piece: bytes) -> bool:
        """In this turn of the loop, whether or not the client is slow. True: it is, and so much is on its way to it that
        nothing more should be written now."""
        ...

    @property
    def wire(self) -> Wire | None:
        """For pieces that are framed as chunks already, in between `write_now`. None: there is none, or not now."""
        ...

    def drained(self) -> Awaitable[None] | None:
        """Waits until it is not full. None: it is not."""
        ...

    async def end(self, piece: bytes = b"") -> None:
        """With the last piece."""
        ...

    def abort(self) -> None:
        """Drops the connection, unsent bytes and all."""
        ...
