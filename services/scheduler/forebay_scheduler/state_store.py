"""The whole state of a leader, kept on the bus for the next one: who is ahead of whom, what is spent, what was settled.

A state is stored in parts, and then a manifest names it, by compare and set. Until then the state before it stands, whole,
under other keys. What a state means is the core's business; here it is bytes."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from forebay.bus import Bucket, Bus, WrongRevision
from forebay.clock import Clock, micros
from forebay.errors import Unavailable
from forebay.subjects import SCHEDULER_BUCKET, STATE_KEY, state_part_key
from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler.fencing import TooLargeToStore, demand_not_deposed, epoch_to_wire, read_epoch
from forebay_scheduler.request import Epoch

log = logging.getLogger(__name__)

PART_BYTES = 400_000
MOST_BYTES = 32_000_000
"""Of one state: eighty parts, and half a minute of a slow disk."""
_BRIEF_BYTES = 1_000_000  # more than this is hashed and parsed on a thread: it would hold up the loop for milliseconds
_RETRY_S = 0.25


@dataclass(frozen=True, slots=True)
class _Manifest:
    epoch: Epoch
    number: int
    parts: int
    digest: bytes


class StateStore:
    """`claim` once on taking the lead, then `write` about once a second."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._bucket: Bucket | None = None
        self._epoch = Epoch(0, 0)
        self._stored = _Manifest(self._epoch, 0, 0, b"")
        """The last, by whomever."""
        self._revision: int | None = None
        """Of the manifest. None: it has to be read again, since a write may have arrived whose answer did not."""
        self._part_revisions: dict[str, int] = {}

    async def claim(self, epoch: Epoch) -> tuple[int, scheduler_pb2.SchedulerState | None]:
        """The last state that a leader before this one stored whole, and its number. No earlier leader can store another
        when this returns. None where there is none, or none that can be trusted: the log says why. Waits for the bus.
        Raises Deposed."""
        self._epoch = epoch
        while True:
            try:
                await self._read_manifest()
                await self._write_manifest(self._stored)
                return self._stored.number, await self._read_state(self._stored)
            except WrongRevision:
                continue  # the leader before us is at it still
            except Unavailable as error:
                log.info("waiting for the last state", extra={"action": "state_wait", "why": error.message})
                await asyncio.sleep(_RETRY_S)

    async def write(self, payload: bytes) -> int:
        """Returns its number when the bus holds all of it. Raises Unavailable (then the one before it stands: try again with
        what is true by then), Deposed and TooLargeToStore."""
        if len(payload) > MOST_BYTES:
            raise TooLargeToStore(f"The scheduler's state has {len(payload)} bytes; {MOST_BYTES} may be stored.")
        digest = await _sha256(payload)
        if self._revision is None:
            await self._read_manifest()
        number = self._stored.number + 1
        pieces = range(0, len(payload), PART_BYTES)
        keys = [state_part_key(number, index) for index in range(len(pieces))]
        try:
            await self._look_at(keys)
            for key, begin in zip(keys, pieces, strict=True):
                await self._write_part(key, payload[begin : begin + PART_BYTES])
            await self._write_manifest(_Manifest(self._epoch, number, len(keys), digest))
        except WrongRevision as error:  # a write of ours arrived that was taken for lost; or else this raises Deposed
            await self._read_manifest()
            raise Unavailable("The bus holds more than it had confirmed; the next state goes on from there.") from error
        return number

    async def _look_at(self, keys: Iterable[str]) -> None:
        """Parts too are written by compare and set, so that what a deposed leader has on its way does not get into the
        state of its successor. A successor takes the manifest first: as long as that is ours, what was seen of the parts
        before is from before any successor."""
        unknown = [key for key in keys if key not in self._part_revisions]
        for key in unknown:
            entry = await (await self._open_bucket()).get(key)
            self._part_revisions[key] = entry.revision if entry else 0
        if unknown:
            await self._read_manifest()

    async def _write_part(self, key: str, value: bytes) -> None:
        bucket = await self._open_bucket()
        self._part_revisions[key] = await bucket.update(key, value, self._part_revisions.pop(key))

    async def _write_manifest(self, manifest: _Manifest) -> None:
        assert self._revision is not None
        message = scheduler_pb2.StateManifest(
            epoch=epoch_to_wire(self._epoch),
            stored_at_us=micros(self._clock.now()),
            number=manifest.number,
            parts=manifest.parts,
            digest=manifest.digest,
        )
        revision, self._revision = self._revision, None
        bucket = await self._open_bucket()
        self._revision = await bucket.update(STATE_KEY, message.SerializeToString(), revision)
        self._stored = manifest

    async def _read_manifest(self) -> None:
        """Raises Deposed and Unavailable."""
        entry = await (await self._open_bucket()).get(STATE_KEY)
        manifest = _Manifest(Epoch(0, 0), 0, 0, b"")
        if entry is not None:
            try:
                found = scheduler_pb2.StateManifest.FromString(entry.value)
            except DecodeError as error:
                _log_untrusted("the manifest is not readable", str(error))
            else:
                manifest = _Manifest(read_epoch(found.epoch), found.number, found.parts, found.digest)
        demand_not_deposed(self._epoch, manifest.epoch)
        self._stored, self._revision = manifest, entry.revision if entry else 0

    async def _read_state(self, manifest: _Manifest) -> scheduler_pb2.SchedulerState | None:
        if not manifest.number:
            return None
        bucket = await self._open_bucket()
        parts = []
        for index in range(manifest.parts):
            entry = await bucket.get(state_part_key(manifest.number, index))
            if entry is None:
                _log_untrusted("a part is missing", f"part {index} of {manifest.parts}")
                return None
            parts.append(entry.value)
        payload = b"".join(parts)
        if await _sha256(payload) != manifest.digest:
            _log_untrusted("its digest does not agree with its parts", f"{len(payload)} bytes")
            return None
        try:
            return await _parsed(payload)
        except DecodeError as error:
            _log_untrusted("it is not readable", str(error))
            return None

    async def _open_bucket(self) -> Bucket:
        if self._bucket is None:
            self._bucket = await self._bus.bucket(SCHEDULER_BUCKET)
        return self._bucket


def _log_untrusted(why: str, what: str) -> None:
    log.error(
        "the last leader's state is not used: %s; shares begin even, and what was spent is known from admin alone",
        why,
        extra={"action": "state_bad", "why": why, "what": what},
    )


async def _sha256(payload: bytes) -> bytes:
    def digest() -> bytes:
        return hashlib.sha256(payload).digest()

    return await asyncio.to_thread(digest) if len(payload) > _BRIEF_BYTES else digest()


async def _parsed(payload: bytes) -> scheduler_pb2.SchedulerState:
    def parse() -> scheduler_pb2.SchedulerState:
        return scheduler_pb2.SchedulerState.FromString(payload)

    return await asyncio.to_thread(parse) if len(payload) > _BRIEF_BYTES else parse()
