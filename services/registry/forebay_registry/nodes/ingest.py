"""The agents' samples, from the bus into memory. Which of them count is decided in `samples`, what is wrong with a node in
`troubles`; what becomes of the numbers is the part of `history`, which hears each of them.

The newest of each node is kept in Postgres too, now and then, for the time after a restart."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from forebay_registry.nodes.agents import NOTHING_SAID, Said
from forebay_registry.nodes.drops import Drops, drop
from forebay_registry.nodes.messages import is_sound, said
from forebay_registry.nodes.samples import Dropped, Hearing, Row, Sample, hear, judge
from forebay_registry.nodes.troubles import NO_DROPS, Trouble, troubles

log = logging.getLogger(__name__)

_QUIET_S = 3600.0
"""For so long the same mistake on the same subject is counted and not told again."""
_MOST_TOLD = 1000

OnSample = Callable[[NodeId, TelemetrySample, float], None]
"""Called with each sample that counts: the node, the sample, when it was heard (by our clock, s)."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Samples, by what became of them."""

    taken: Number = field(default_factory=Number)
    lost: Number = field(default_factory=Number)
    """Never came: gaps in the sequence."""
    dropped: Mapping[Dropped, Number] = field(default_factory=lambda: {why: Number() for why in Dropped})


class KeepsSamples(Protocol):
    async def keep_samples(self, rows: Sequence[Row]) -> None: ...
    async def last_samples(self) -> dict[NodeId, Row]: ...


class Ingest:
    def __init__(
        self,
        enrolled: Callable[[], Mapping[str, NodeId]],
        store: KeepsSamples,
        clock: Clock,
        *,
        flush_s: float,
        tally: Tally | None = None,
    ) -> None:
        """`enrolled`: node name → id, as of now."""
        self._enrolled = enrolled
        self._store = store
        self._clock = clock
        self._flush_s = flush_s
        self._hearings: dict[NodeId, Hearing] = {}
        self._drops: dict[NodeId, Drops] = {}
        self._waiting: dict[NodeId, Row] = {}
        self._may_store = False
        self._troubles: dict[NodeId, frozenset[Trouble]] = {}
        self._told: dict[tuple[str, Dropped], float] = {}
        self.tally = tally or Tally()
        self.on_sample: list[OnSample] = []
        """Whoever wants each sample as it comes, in order, each node's newest last. Must neither raise nor wait."""

    def heard_of(self, node_id: NodeId) -> Hearing:
        return self._hearings.get(node_id, Hearing())

    def troubles_of(self, node_id: NodeId) -> dict[Trouble, str]:
        """What is wrong with the node right now, each with its sentence."""
        return troubles(self.heard_of(node_id), self._clock.now(), self.drops_of(node_id))

    def drops_of(self, node_id: NodeId) -> Drops:
        """Of what came on its subject."""
        return self._drops.get(node_id, NO_DROPS)

    def troubled(self) -> Iterable[tuple[tuple[str], float]]:
        """How many nodes have each trouble."""
        counts = Counter(trouble for node_id in self._enrolled().values() for trouble in self.troubles_of(node_id))
        return [((str(trouble),), counts[trouble]) for trouble in Trouble]

    async def listen(self, bus: Bus) -> None:
        """Until cancelled; while the bus is away nothing comes."""
        async with bus.subscribe(TELEMETRY_OF_ALL) as messages:
            async for message in messages:
                self.take(message)
                await asyncio.sleep(0)  # a backlog must not hold up everything else until it is worked off

    def take(self, message: Message) -> None:
        dropped = self._take(message)
        if dropped is None:
            self.tally.taken.value += 1
            return
        self.tally.dropped[dropped].value += 1
        node = message.subject.rpartition(".")[2]
        if (node_id := self._enrolled().get(node)) is not None:
            self._drops[node_id] = drop(self.drops_of(node_id), dropped, self._clock.now())
            self._tell_troubles(node_id, node)
        self._tell_dropped(message.subject, dropped)

    async def keep(self) -> None:
        """Stores the newest of each node, every `flush_s`, until cancelled. The tables must be there."""
        await self._remember()
        self._may_store = True
        while True:
            await asyncio.sleep(self._flush_s)
            try:
                await self._flush()
            except Unavailable as error:
                log.debug("samples wait", extra={"action": "samples_wait", "why": error.message})

    async def drain(self) -> None:
        """The last of each node, if Postgres is there."""
        try:
            if self._may_store:
                await self._flush()
        except Unavailable as error:
            fields = {"action": "samples_lost", "nodes": len(self._waiting), "why": error.message}
            log.warning("last samples not stored", extra=fields)

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
            recalled = Hearing(row.sample, row.heard_at, is_recalled=True, said=_said_in(row.sample.payload))
            self._hearings.setdefault(node_id, recalled)

    def _take(self, message: Message) -> Dropped | None:
        if len(message.payload) > MAX_PAYLOAD_BYTES:
            return Dropped.TOO_LARGE
        try:
            told = TelemetrySample.FromString(message.payload)
        except DecodeError:
            return Dropped.MALFORMED
        if not is_sound(told):
            return Dropped.MALFORMED
        sample = Sample(told.node, told.agent_started_us, told.sequence, told.sampled_at_us, message.payload)
        enrolled = self._enrolled()
        if (dropped := judge(sample, message.subject, enrolled)) is not None:
            return dropped
        node_id, now = enrolled[sample.node], self._clock.now()
        before = self.heard_of(node_id)
        heard, dropped = hear(before, sample, now, said(told))
        self._hearings[node_id] = heard
        self._tell_troubles(node_id, sample.node)
        if dropped is not None:
            return dropped
        self.tally.lost.value += heard.lost - before.lost
        self._waiting[node_id] = Row(node_id, now, sample)
        for listener in self.on_sample:
            try:
                listener(node_id, told, now)
            except Exception:
                # One sample, whatever is in it, must not end the hearing of all others.
                log.exception("a sample was not understood", extra={"action": "internal", "node": sample.node})
        return None

    def _tell_dropped(self, subject: str, why: Dropped) -> None:
        """Each mistake of each node now and then, however often it makes it."""
        now = self._clock.now()
        if abs(now - self._told.get((subject, why), -_QUIET_S)) < _QUIET_S:
            return
        if len(self._told) >= _MOST_TOLD:  # what a bus lets in under any name must not grow in here
            self._told.clear()
        self._told[subject, why] = now
        fields = {"action": "sample_dropped", "subject": subject, "why": str(why)}
        log.warning("sample not taken (told once an hour, counted always)", extra=fields)

    def _tell_troubles(self, node_id: NodeId, node: str) -> None:
        """Each once, when it begins; a node that is silent says nothing, so that is mostly `troubles_of`'s to tell."""
        now = self.troubles_of(node_id)
        before = self._troubles.get(node_id, frozenset())
        for trouble in now.keys() - before:
            log.warning("a node is in trouble", extra={"action": str(trouble), "node": node, "why": now[trouble]})
        for trouble in before - now.keys():
            log.info("a node is well again", extra={"action": f"{trouble}_over", "node": node})
        self._troubles[node_id] = frozenset(now)

    async def _flush(self) -> None:
        batch = list(self._waiting.values())
        if batch:
            await self._store.keep_samples(batch)
        for row in batch:
            if self._waiting.get(row.node_id) is row:
                del self._waiting[row.node_id]


def _said_in(payload: bytes) -> Said:
    try:
        return said(TelemetrySample.FromString(payload))
    except DecodeError:
        return NOTHING_SAID
