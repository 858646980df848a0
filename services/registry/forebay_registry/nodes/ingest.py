"""The agents' samples, from the bus into memory and, in batches, into Postgres. Which of them count is decided in `samples`.

Memory has the newest of each node; the history may have a gap when Postgres was away for long, and says how large."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import DecodeError

from forebay.bus import Bus, Message
from forebay.clock import Clock
from forebay.errors import Unavailable
from forebay.metrics import Number
from forebay.subjects import MAX_PAYLOAD_BYTES, TELEMETRY_OF_ALL
from forebay.wire.v1.telemetry_pb2 import TelemetrySample
from forebay_registry.backend import NodeId
from forebay_registry.nodes.samples import Dropped, Hearing, Row, Sample, hear, judge

log = logging.getLogger(__name__)

MAX_WAITING = 5_000
"""Samples held for Postgres; past it the oldest go. Ten nodes for a quarter of an hour."""
BATCH = 500
_PRUNE_S = 60.0


@dataclass(frozen=True, slots=True)
class Tally:
    """Samples, by what became of them."""

    taken: Number = field(default_factory=Number)
    lost: Number = field(default_factory=Number)
    """Never came: gaps in the sequence."""
    not_kept: Number = field(default_factory=Number)
    """Taken, and missing in the history."""
    dropped: Mapping[Dropped, Number] = field(default_factory=lambda: {why: Number() for why in Dropped})


class KeepsSamples(Protocol):
    async def add_samples(self, rows: Sequence[Row]) -> None: ...
    async def last_samples(self) -> dict[NodeId, Row]: ...
    async def forget_samples(self, before: float) -> int: ...


class Ingest:
    def __init__(
        self,
        enrolled: Callable[[], Mapping[str, NodeId]],
        store: KeepsSamples,
        clock: Clock,
        *,
        keep_s: float,
        flush_s: float,
        tally: Tally | None = None,
    ) -> None:
        """`enrolled`: node name → id, as of now."""
        self._enrolled = enrolled
        self._store = store
        self._clock = clock
        self._keep_s = keep_s
        self._flush_s = flush_s
        self._hearings: dict[NodeId, Hearing] = {}
        self._waiting: deque[Row] = deque()
        self._may_store = False
        self.tally = tally or Tally()

    def heard_of(self, node_id: NodeId) -> Hearing:
        return self._hearings.get(node_id, Hearing())

    async def listen(self, bus: Bus) -> None:
        """Until cancelled; while the bus is away nothing comes."""
        async with bus.subscribe(TELEMETRY_OF_ALL) as messages:
            async for message in messages:
                self.take(message)

    def take(self, message: Message) -> None:
        dropped = self._take(message)
        if dropped is None:
            self.tally.taken.value += 1
            return
        if not self.tally.dropped[dropped].value:
            fields = {"action": "sample_dropped", "subject": message.subject, "why": str(dropped)}
            log.warning("sample not taken (told once, counted always)", extra=fields)
        self.tally.dropped[dropped].value += 1

    async def keep(self) -> None:
        """Stores what waits, every `flush_s`, and forgets what is too old, until cancelled. The tables must be there."""
        await self._remember()
        self._may_store = True
        prune_at = self._clock.monotonic()
        while True:
            await asyncio.sleep(self._flush_s)
            try:
                await self._flush()
                if self._clock.monotonic() >= prune_at:
                    await self._store.forget_samples(self._clock.now() - self._keep_s)
                    prune_at = self._clock.monotonic() + _PRUNE_S
            except Unavailable as error:
                log.debug("samples wait", extra={"action": "samples_wait", "why": error.message})

    async def drain(self) -> None:
        """The last batch, if Postgres is there; what cannot be stored is counted."""
        try:
            if self._may_store:
                await self._flush()
        except Unavailable as error:
            fields = {"action": "samples_lost", "samples": len(self._waiting), "why": error.message}
            log.warning("last samples not stored", extra=fields)
        self.tally.not_kept.value += len(self._waiting)
        self._waiting.clear()

    async def _remember(self) -> None:
        """What was heard before this start, so that a node which is silent since is not one never heard of."""
        while True:
            try:
                rows = await self._store.last_samples()
                break
            except Unavailable:
                await asyncio.sleep(self._flush_s)
        for node_id, row in rows.items():
            # Not counted, and no gap either: whether more came while we were away is not known.
            self._hearings.setdefault(node_id, Hearing(row.sample, row.heard_at, is_recalled=True))

    def _take(self, message: Message) -> Dropped | None:
        if len(message.payload) > MAX_PAYLOAD_BYTES:
            return Dropped.TOO_LARGE
        try:
            told = TelemetrySample.FromString(message.payload)
        except DecodeError:
            return Dropped.MALFORMED
        sample = Sample(told.node, told.agent_started_us, told.sequence, told.sampled_at_us, message.payload)
        enrolled = self._enrolled()
        if (dropped := judge(sample, message.subject, enrolled)) is not None:
            return dropped
        node_id, now = enrolled[sample.node], self._clock.now()
        before = self.heard_of(node_id)
        heard = hear(before, sample, now)
        if isinstance(heard, Dropped):
            return heard
        self.tally.lost.value += heard.lost - before.lost
        self._hearings[node_id] = heard
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self.tally.not_kept.value += 1
        self._waiting.append(Row(node_id, now, sample))
        return None

    async def _flush(self) -> None:
        while self._waiting:
            batch = [self._waiting[i] for i in range(min(BATCH, len(self._waiting)))]
            await self._store.add_samples(batch)
            for row in batch:
                # Some of the oldest may have made room meanwhile.
                if self._waiting and self._waiting[0] is row:
                    self._waiting.popleft()
