"""The bus of a single process. Nothing outlives it."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from forebay.bus import ACK_WAIT_S, Backlog, Bucket, Consumer, Delivery, Entry, Message, WrongRevision
from forebay.errors import Unavailable
from forebay.subjects import Stream


@dataclass(slots=True, eq=False)
class _Stored:
    subject: str
    payload: bytes
    times_delivered: int = 0
    due: float = 0.0
    """When it may be delivered (again): a message that nobody acknowledges comes back."""


@dataclass(slots=True)
class _StoredStream:
    stream: Stream
    messages: dict[_Stored, None] = field(default_factory=dict)  # an ordered set: the oldest first, until acknowledged
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    size: int = 0


class _MemoryDelivery:
    def __init__(self, bus: MemoryBus, stored: _Stored, into: _StoredStream) -> None:
        self._bus, self._stored, self._into = bus, stored, into
        self.payload, self.subject, self.times_delivered = stored.payload, stored.subject, stored.times_delivered

    async def ack(self) -> None:
        self._bus.demand_connection()
        if self._stored in self._into.messages:
            del self._into.messages[self._stored]
            self._into.size -= len(self.payload)

    async def give_back(self, delay_s: float) -> None:
        self._bus.demand_connection()
        self._stored.due = asyncio.get_running_loop().time() + delay_s
        self._into.arrived.set()


class _MemoryConsumer:
    def __init__(self, bus: MemoryBus, stored: _StoredStream) -> None:
        self._bus, self._stored = bus, stored

    async def fetch(self, most: int, wait_s: float) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            self._bus.demand_connection()
            now = loop.time()
            due = list(itertools.islice((m for m in self._stored.messages if m.due <= now), most))
            for message in due:
                message.due = now + ACK_WAIT_S
                message.times_delivered += 1
            if due or now >= until:
                return [_MemoryDelivery(self._bus, m, self._stored) for m in due]
            self._stored.arrived.clear()
            try:
                async with asyncio.timeout(min(until - now, 0.05)):
                    await self._stored.arrived.wait()
            except TimeoutError:
                continue


class _MemoryBucket:
    def __init__(self, bus: MemoryBus, created_at: float) -> None:
        self._bus = bus
        self.created_at = created_at
        self.entries_live_s: float | None = None
        self._entries: dict[str, tuple[Entry, float]] = {}
        """With the moment in which each was written."""
        self._revisions = itertools.count(1)

    async def get(self, key: str) -> Entry | None:
        self._bus.demand_connection()
        entry, written_at = self._entries.get(key, (None, 0.0))
        if self.entries_live_s is not None and _loop_time() - written_at >= self.entries_live_s:
            return None
        return entry

    async def put(self, key: str, value: bytes) -> int:
        self._bus.demand_connection()
        entry = Entry(value, next(self._revisions))
        self._entries[key] = entry, _loop_time()
        return entry.revision

    async def update(self, key: str, value: bytes, revision: int) -> int:
        await self._demand(key, revision)
        return await self.put(key, value)

    async def delete(self, key: str, revision: int) -> None:
        await self._demand(key, revision)
        self._entries.pop(key, None)
        next(self._revisions)

    async def _demand(self, key: str, revision: int) -> None:
        held = await self.get(key)
        if (held.revision if held else 0) != revision:
            raise WrongRevision


class MemoryBus:
    """The bus of a single process. Nothing outlives it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._subscribers: dict[str, list[Backlog]] = defaultdict(list)
        self._streams: dict[str, _StoredStream] = {}
        self._buckets: dict[str, _MemoryBucket] = {}
        self.is_connected = True

    async def wait_connected(self) -> None:
        while not self.is_connected:  # noqa: ASYNC110  (a plain attribute that tests flip)
            await asyncio.sleep(0.01)

    async def publish(self, subject: str, payload: bytes) -> None:
        if not self.is_connected:
            return
        for pattern, backlogs in self._subscribers.items():
            if _matches(pattern, subject):
                for backlog in backlogs:
                    backlog.put(Message(subject, payload))

    @asynccontextmanager
    async def subscribe(self, subject: str) -> AsyncIterator[AsyncIterator[Message]]:
        backlog = Backlog()
        self._subscribers[subject].append(backlog)
        try:
            yield backlog.messages()
        finally:
            self._subscribers[subject].remove(backlog)

    async def append(self, subject: str, payload: bytes) -> None:
        self.demand_connection()
        for stored in self._streams.values():
            if any(_matches(pattern, subject) for pattern in stored.stream.subjects):
                if stored.size + len(payload) > stored.stream.max_bytes:
                    raise Unavailable(f"The stream {stored.stream.name} is full.")
                stored.size += len(payload)
                stored.messages[_Stored(subject, payload)] = None
                stored.arrived.set()
                return
        raise Unavailable(f"No stream holds {subject} yet.")

    async def ensure_stream(self, stream: Stream) -> None:
        self.demand_connection()
        stored = self._streams.setdefault(stream.name, _StoredStream(stream))
        stored.stream = replace(stream, max_bytes=max(stream.max_bytes, stored.stream.max_bytes))

    async def consumer(self, stream: Stream, durable: str) -> Consumer:
        self.demand_connection()
        await self.ensure_stream(stream)
        return _MemoryConsumer(self, self._streams[stream.name])

    async def bucket(self, name: str, *, entries_live_s: float | None = None) -> Bucket:
        self.demand_connection()
        bucket = self._buckets.setdefault(name, _MemoryBucket(self, self._now()))
        bucket.entries_live_s = entries_live_s
        return bucket

    def demand_connection(self) -> None:
        if not self.is_connected:
            raise Unavailable("The bus is away.")


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _matches(pattern: str, subject: str) -> bool:
    wanted, given = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(given) > index
        if index >= len(given) or part not in ("*", given[index]):
            return False
    return len(wanted) == len(given)
