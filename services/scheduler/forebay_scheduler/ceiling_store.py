"""What each gateway may hold, kept on the bus for the next leader: never less than any gateway was told.

Written before it is told, by compare and set. A new leader reads every shard and writes it again under its own epoch before
it grants anything: from then on whatever the leader before it still tries to write fails, and with that every raise of a
ceiling. What ceilings are right is `lending`'s business."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from forebay.bus import Bucket, Bus, WrongRevision
from forebay.clock import Clock, micros
from forebay.errors import Unavailable
from forebay.subjects import MAX_PAYLOAD_BYTES, SCHEDULER_BUCKET, ceilings_key
from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler.decisions import StoreCeilings, StoredCeilings
from forebay_scheduler.fencing import TooLargeToStore, demand_not_deposed, epoch_to_wire, read_epoch
from forebay_scheduler.lending.ceiling_writes import SHARDS
from forebay_scheduler.request import BackendId, Epoch, GatewayName

log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_S = 0.25


class CeilingStore:
    """`claim` once on taking the lead, then `store` as often as the core asks."""

    def __init__(self, bus: Bus, clock: Clock, tell_away: Callable[[bool], None] = lambda is_away: None) -> None:
        """`tell_away` hears when a write has to wait for the bus, and when it got through."""
        self._bus = bus
        self._clock = clock
        self._tell_away = tell_away
        self._bucket: Bucket | None = None
        self._epoch = Epoch(0, 0)
        self._revisions = [0] * SHARDS
        self._one_at_a_time = asyncio.Lock()
        self._is_away = False

    async def claim(self, epoch: Epoch) -> list[StoredCeilings]:
        """All that earlier leaders told, one for each gateway process; they can tell no more when this returns. Waits for
        the bus. Raises Deposed."""
        self._epoch = epoch
        shards = await _together(self._claim_shard(number) for number in range(SHARDS))
        return _joined([ceilings for shard in shards for ceilings in shard])

    async def store(self, order: StoreCeilings) -> None:
        """Returns when the bus holds all of it; waits for the bus. Raises Deposed, and TooLargeToStore before anything is
        written."""
        payloads = {number: self._payload(number, shard) for number, shard in order.shards.items()}
        async with self._one_at_a_time:
            await _together(self._write_shard(number, payload) for number, payload in payloads.items())

    async def _claim_shard(self, number: int) -> list[StoredCeilings]:
        while True:
            try:
                shard, self._revisions[number] = await self._read_shard(number)
                shard.epoch.CopyFrom(epoch_to_wire(self._epoch))
                shard.stored_at_us = micros(self._clock.now())
                bucket = await self._open_bucket()
                payload = shard.SerializeToString()
                self._revisions[number] = await bucket.update(ceilings_key(number), payload, self._revisions[number])
            except WrongRevision:
                continue  # the leader before us is at it still: what it wrote counts too
            except Unavailable as error:
                await self._wait(error)
                continue
            self._note_bus(is_away=False)
            return [_from_wire(ceilings, self._clock.now()) for ceilings in shard.gateways]

    async def _write_shard(self, number: int, payload: bytes) -> None:
        while True:
            try:
                bucket = await self._open_bucket()
                self._revisions[number] = await bucket.update(ceilings_key(number), payload, self._revisions[number])
            except WrongRevision:
                try:  # a write of ours whose answer was lost, or somebody else's: then this raises Deposed
                    _, self._revisions[number] = await self._read_shard(number)
                except Unavailable as error:
                    await self._wait(error)
                continue
            except Unavailable as error:
                await self._wait(error)
                continue
            self._note_bus(is_away=False)
            return

    async def _read_shard(self, number: int) -> tuple[scheduler_pb2.CeilingShard, int]:
        """With its revision. Raises Deposed and Unavailable."""
        entry = await (await self._open_bucket()).get(ceilings_key(number))
        if entry is None:
            return scheduler_pb2.CeilingShard(), 0
        try:
            shard = scheduler_pb2.CeilingShard.FromString(entry.value)
        except DecodeError as error:
            log.error(
                "stored ceilings are not readable; who held them is not known",
                extra={"action": "ceilings_bad", "shard": number, "why": str(error)},
            )
            return scheduler_pb2.CeilingShard(), entry.revision
        demand_not_deposed(self._epoch, read_epoch(shard.epoch))
        return shard, entry.revision

    async def _open_bucket(self) -> Bucket:
        if self._bucket is None:
            self._bucket = await self._bus.bucket(SCHEDULER_BUCKET)
        return self._bucket

    def _payload(self, number: int, shard: Sequence[StoredCeilings]) -> bytes:
        now = self._clock.now()
        message = scheduler_pb2.CeilingShard(
            epoch=epoch_to_wire(self._epoch),
            stored_at_us=micros(now),
            gateways=[_to_wire(ceilings, now) for ceilings in shard],
        )
        payload = message.SerializeToString()
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise TooLargeToStore(
                f"Shard {number} of the ceilings has {len(payload)} bytes, of {len(shard)} gateways; "
                f"{MAX_PAYLOAD_BYTES} fit. No ceiling in it can be raised."
            )
        return payload

    async def _wait(self, error: Unavailable) -> None:
        log.debug("ceilings wait for the bus", extra={"action": "ceilings_wait", "why": error.message})
        self._note_bus(is_away=True)
        await asyncio.sleep(_RETRY_S)

    def _note_bus(self, *, is_away: bool) -> None:
        if is_away != self._is_away:
            self._is_away = is_away
            self._tell_away(is_away)


async def _together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All of them, or the first error and none of them goes on."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _to_wire(ceilings: StoredCeilings, now: float) -> scheduler_pb2.GatewayCeilings:
    return scheduler_pb2.GatewayCeilings(
        gateway=ceilings.gateway,
        generation=ceilings.generation,
        slots={str(backend): slots for backend, slots in ceilings.slots.items()},
        heard_at_us=micros(now - ceilings.silent_s),
        dead=ceilings.is_dead,
    )


def _from_wire(ceilings: scheduler_pb2.GatewayCeilings, now: float) -> StoredCeilings:
    """A writer whose clock is ahead of ours heard of nobody in the future."""
    return StoredCeilings(
        GatewayName(ceilings.gateway),
        ceilings.generation,
        {BackendId(backend): slots for backend, slots in ceilings.slots.items()},
        silent_s=max(now - ceilings.heard_at_us / 1e6, 0.0),
        is_dead=ceilings.dead,
    )


def _joined(shards: Iterable[StoredCeilings]) -> list[StoredCeilings]:
    """Of one process from all shards. Where two disagree, the more careful: the higher ceiling, the later sign of life."""
    joined: dict[tuple[GatewayName, int], StoredCeilings] = {}
    for part in shards:
        process = part.gateway, part.generation
        known = joined.get(process)
        if known is None:
            joined[process] = part
            continue
        slots = dict(known.slots)
        for backend, most in part.slots.items():
            slots[backend] = max(most, slots.get(backend, 0))
        joined[process] = StoredCeilings(
            *process, slots, min(known.silent_s, part.silent_s), known.is_dead or part.is_dead
        )
    return list(joined.values())
