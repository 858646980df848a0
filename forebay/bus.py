"""The bus: messages that may be lost, streams that may not, and buckets of keys. What is promised here is kept twice: by
`nats_bus` (NATS with JetStream) and by `memory_bus` (for tests and for everything in one process), under one suite of tests.

The bus reconnects for ever on its own. Whoever uses it decides what to do while it is away: `append` and the buckets raise
Unavailable, `publish` drops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from forebay.errors import ForebayError
from forebay.subjects import Stream

BACKLOG = 4096
"""Messages that a subscriber may be behind; then it loses the newest."""
BACKLOG_BYTES = 64 << 20
"""The same in bytes: of the largest messages, so many would be gigabytes."""
ACK_WAIT_S = 30.0
"""After which a message that was not acknowledged is delivered again."""


class WrongRevision(ForebayError):
    """Someone else wrote this key first."""


@dataclass(frozen=True, slots=True)
class Message:
    subject: str
    payload: bytes


class Backlog:
    """What a subscriber has not taken yet."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Message] = asyncio.Queue(BACKLOG)
        self._bytes = 0

    def put(self, message: Message) -> None:
        """Lost when it is full."""
        if not self._queue.full() and self._bytes + len(message.payload) <= BACKLOG_BYTES:
            self._bytes += len(message.payload)
            self._queue.put_nowait(message)

    async def messages(self) -> AsyncIterator[Message]:
        while True:
            message = await self._queue.get()
            self._bytes -= len(message.payload)
            yield message


@dataclass(frozen=True, slots=True)
class Entry:
    value: bytes
    revision: int


class Delivery(Protocol):
    """One message of a stream, ours until acknowledged."""

    @property
    def payload(self) -> bytes: ...
    @property
    def subject(self) -> str: ...
    @property
    def times_delivered(self) -> int: ...
    async def ack(self) -> None: ...
    async def give_back(self, delay_s: float) -> None:
        """Deliver it again, not sooner than `delay_s`."""
        ...


class Consumer(Protocol):
    async def fetch(self, most: int, wait_s: float) -> Sequence[Delivery]:
        """Up to `most` messages; none after `wait_s`. Raises Unavailable while the bus is away."""
        ...


class Bucket(Protocol):
    created_at: float
    """When the bucket's stream was made, seconds since the epoch: a bucket made anew is a later one."""

    async def get(self, key: str) -> Entry | None: ...
    async def put(self, key: str, value: bytes) -> int: ...
    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Compare and set: raises WrongRevision. Revision 0: the key must not exist (never written, deleted, or expired)."""
        ...

    async def delete(self, key: str, revision: int) -> None:
        """Compare and delete: raises WrongRevision. Revisions of the key go on growing."""
        ...


class Bus(Protocol):
    @property
    def is_connected(self) -> bool: ...
    async def wait_connected(self) -> None: ...
    async def publish(self, subject: str, payload: bytes) -> None:
        """At most once; dropped while the bus is away."""
        ...

    def subscribe(self, subject: str) -> AbstractAsyncContextManager[AsyncIterator[Message]]:
        """Messages on a subject (wildcards allowed); a subscriber that falls 4096, or 64 MiB, behind loses the newest."""
        ...

    async def append(self, subject: str, payload: bytes) -> None:
        """Returns when the stream that holds `subject` has stored it. Raises Unavailable."""
        ...

    async def ensure_stream(self, stream: Stream) -> None:
        """There, with at least this room: one that was given more keeps it."""
        ...

    async def consumer(self, stream: Stream, durable: str) -> Consumer: ...
    async def bucket(self, name: str, *, entries_live_s: float | None = None) -> Bucket:
        """Made when there is none. With `entries_live_s` an entry is gone so long after it was written; the server looks a
        few times a second. A bucket that was made with another lifetime is brought to this one and stays the same bucket."""
        ...
