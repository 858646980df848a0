"""Who holds how many slots where, stored on the bus once a second and when a new gateway comes, for the next scheduler.

It is a hint with a purpose: gateways in it that do not say Hello to a new leader keep their slots back for a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from google.protobuf.message import DecodeError

from forebay.bus import Bus, WrongRevision
from forebay.clock import Clock
from forebay.errors import Unavailable
from forebay.subjects import MAX_PAYLOAD_BYTES, SCHEDULER_BUCKET
from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler import wire
from forebay_scheduler.introductions import Introductions
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import Epoch, Holding

log = logging.getLogger(__name__)

_KEY = "holdings"
_EVERY_S = 1.0
_RETRY_S = 0.25


async def read_holdings(bus: Bus, clock: Clock) -> list[Holding]:
    """What the last leader stored. Waits for the bus."""
    while True:
        try:
            entry = await (await bus.bucket(SCHEDULER_BUCKET)).get(_KEY)
        except Unavailable as error:
            log.info("waiting for the last snapshot", extra={"action": "snapshot_wait", "why": error.message})
            await asyncio.sleep(_RETRY_S)
            continue
        if entry is None:
            return []
        try:
            return wire.read_snapshot(scheduler_pb2.SchedulerSnapshot.FromString(entry.value), clock.now())
        except DecodeError as error:
            log.warning("the last snapshot is not readable", extra={"action": "snapshot_bad", "why": str(error)})
            return []


async def store_holdings(
    bus: Bus, policy: Policy, clock: Clock, may_store: Callable[[], bool], introductions: Introductions
) -> None:
    """Until cancelled, or until a later leader has stored one. While the bus is away nothing is stored, and the older one
    stands."""
    revision: int | None = None
    while True:
        try:
            async with asyncio.timeout(_EVERY_S):
                await introductions.wanted.wait()
        except TimeoutError:
            pass  # nobody is new
        if not may_store():
            return
        holdings = [*policy.holdings(), *introductions.newcomers()]
        payload = wire.snapshot_to_wire(policy.epoch, holdings, clock.now()).SerializeToString()
        if len(payload) > MAX_PAYLOAD_BYTES:
            log.error("snapshot too large to store", extra={"action": "snapshot_large", "bytes": len(payload)})
            continue
        try:
            bucket = await bus.bucket(SCHEDULER_BUCKET)
            if revision is None:
                entry = await bucket.get(_KEY)
                if entry is not None and _epoch_of(entry.value) > policy.epoch:
                    log.warning("a later leader stores snapshots", extra={"action": "snapshot_later"})
                    return
                revision = entry.revision if entry is not None else 0
            revision = await bucket.update(_KEY, payload, revision)
            introductions.note_stored(holdings)
        except WrongRevision:
            revision = None  # somebody else's write, or one of ours whose answer was lost: look who stored it
        except Unavailable as error:
            log.debug("snapshot not stored", extra={"action": "snapshot_store", "why": error.message})


def _epoch_of(stored: bytes) -> Epoch:
    try:
        return wire.read_epoch(scheduler_pb2.SchedulerSnapshot.FromString(stored).epoch)
    except DecodeError:
        return Epoch(0, 0)
