"""The registry, of which there may be two: one leads, the other stands by and takes over within a second or two.

`Registries.leading` is a peer like any other, whose calls go to the one that leads. `watch_fleet` listens to all of them and
believes the newest epoch: so the next leader's first word arrives on a stream that is open already, and what an older one
still says, cut off from Postgres and unaware of it, is not heard any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from forebay.errors import BadSettings
from forebay.internal_tls import PeerTls
from forebay.rpc import Peer, open_peer
from forebay.wire.v1.registry_pb2 import FleetUpdate, WatchFleetRequest
from forebay.wire.v1.registry_pb2_grpc import RegistryStub

STANDS_BY = "This registry stands by"
"""How one that does not lead begins its refusals."""
_NOT_ASKED = (STANDS_BY, "failed to connect")
"""Of errors after which the call was not made for certain, so that another one may be asked."""

_CALL_S = 4.0
_PAUSE_S = 0.1
_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 1.0
_BEHIND = 64
"""Updates of all streams together that may wait; then the registries do."""


@dataclass(frozen=True, slots=True)
class Registries:
    peers: tuple[Peer, ...]
    leading: Peer
    """Whichever leads."""
    addresses: tuple[str, ...] = ()
    """Of `peers`."""

    @property
    def each(self) -> list[tuple[str, Peer]]:
        return list(zip(self.addresses, self.peers, strict=True))


@asynccontextmanager
async def open_registries(
    addresses: str, *, token_file: Path, setting: str, tls: PeerTls | None = None
) -> AsyncIterator[Registries]:
    """`addresses`: HOST:PORT, or several with commas between them. Raises BadSettings, naming `setting`."""
    each = list(dict.fromkeys(address.strip() for address in addresses.split(",") if address.strip()))
    if not each:
        raise BadSettings([f"{setting}: it names no registry"])
    async with AsyncExitStack() as stack:
        opening = [open_peer(one, token_file=token_file, tls=tls) for one in each]
        peers = tuple([await stack.enter_async_context(one) for one in opening])
        channel: Any = _LeadingChannel([peer.channel for peer in peers])
        leading = peers[0] if len(peers) == 1 else Peer(channel, peers[0].metadata)
        yield Registries(peers, leading, tuple(each))


# --- watching ---------------------------------------------------------------------------------------------------------


class FleetStream:
    """WatchFleet of all registries as one stream. It remembers the newest epoch between two calls of `watch`."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        self._peers = peers
        self.epoch = 0
        """The newest that was heard of."""

    async def watch(self) -> AsyncIterator[FleetUpdate]:
        """A snapshot, then changes, and a snapshot again when another registry has taken over. Raises the AioRpcError of the
        registry that is listened to, or of the last one, when none can be reached."""
        heard: asyncio.Queue[tuple[int, FleetUpdate | grpc.aio.AioRpcError | None]] = asyncio.Queue(_BEHIND)
        listening = [asyncio.create_task(self._listen(number, heard)) for number in range(len(self._peers))]
        source: int | None = None
        failed: set[int] = set()
        try:
            while True:
                number, told = await heard.get()
                if not isinstance(told, FleetUpdate):
                    failed.add(number)
                    if number != source and len(failed) < len(self._peers):
                        continue
                    if told is None:
                        return
                    raise told
                failed.discard(number)
                if self._is_news(told, is_source=number == source, has_source=source is not None):
                    source = number
                    yield told
                elif number == source:
                    source = None  # it stands by now, or a newer epoch has begun elsewhere
        finally:
            for one in listening:
                one.cancel()

    def _is_news(self, told: FleetUpdate, *, is_source: bool, has_source: bool) -> bool:
        epoch = told.epoch or told.term_us
        is_newer, is_older = epoch > self.epoch, epoch < self.epoch
        self.epoch = max(self.epoch, epoch)
        if told.stands_by or is_older:
            return False
        # Two of one epoch know the same fleet, and one of them is enough; a change without what it changes is none.
        return is_source or (told.snapshot and (is_newer or not has_source))

    async def _listen(self, number: int, heard: asyncio.Queue[Any]) -> None:
        """For ever: what this registry says, and how its stream ends."""
        peer, retry_s = self._peers[number], _FIRST_RETRY_S
        stub: Any = RegistryStub(peer.channel)
        while True:
            end: grpc.aio.AioRpcError | None = None
            try:
                async for update in stub.WatchFleet(WatchFleetRequest(), metadata=peer.metadata):
                    await heard.put((number, update))
                    retry_s = _FIRST_RETRY_S
            except grpc.aio.AioRpcError as error:
                end = error
            await heard.put((number, end))
            await asyncio.sleep(retry_s)
            retry_s = min(_LAST_RETRY_S, retry_s * 2)


# --- calling ----------------------------------------------------------------------------------------------------------


class _LeadingChannel:
    """As much of a channel as stubs use: each call goes to the one that led last, and from there to the others, until one
    of them leads or the time is over."""

    def __init__(self, channels: Sequence[grpc.aio.Channel]) -> None:
        self._channels = channels
        self._led = 0

    def unary_unary(self, method: str, *forms: Any, **more: Any) -> Callable[..., Any]:
        calls = [channel.unary_unary(method, *forms, **more) for channel in self._channels]

        async def call(request: Any, *, timeout: float = _CALL_S, metadata: Any = None, **_: Any) -> Any:
            turns = _Turns(self._led, len(calls), timeout)
            while True:
                try:
                    answer = await calls[turns.which](request, timeout=turns.left_s(), metadata=metadata)
                except grpc.aio.AioRpcError as error:
                    await turns.pass_on(error)
                else:
                    self._led = turns.which
                    return answer

        return call

    def unary_stream(self, method: str, *forms: Any, **more: Any) -> Callable[..., Any]:
        calls = [channel.unary_stream(method, *forms, **more) for channel in self._channels]

        async def call(
            request: Any, *, timeout: float | None = None, metadata: Any = None, **_: Any
        ) -> AsyncIterator[Any]:
            turns = _Turns(self._led, len(calls), _CALL_S)
            has_answered = False
            while True:
                try:
                    async for answer in calls[turns.which](request, timeout=timeout, metadata=metadata):
                        has_answered, self._led = True, turns.which
                        yield answer
                    return
                except grpc.aio.AioRpcError as error:
                    if has_answered:
                        raise
                    await turns.pass_on(error)

        return call


class _Turns:
    """Whom to ask next."""

    def __init__(self, first: int, count: int, patience_s: float) -> None:
        self.which = first
        self._count = count
        self._asked = 0
        self._ends = time.monotonic() + patience_s

    def left_s(self) -> float:
        return max(0.01, self._ends - time.monotonic())

    async def pass_on(self, error: grpc.aio.AioRpcError) -> None:
        """Raises it where nobody else may be asked."""
        said = error.details() or ""
        if error.code() is not grpc.StatusCode.UNAVAILABLE or not any(word in said for word in _NOT_ASKED):
            raise error
        self._asked += 1
        self.which = (self.which + 1) % self._count
        if self._asked % self._count == 0:  # a new leader is there within seconds of the old one's end
            if self.left_s() <= 2 * _PAUSE_S:
                raise error
            await asyncio.sleep(_PAUSE_S)
