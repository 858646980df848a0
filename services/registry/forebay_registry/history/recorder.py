"""What is heard and seen becomes minutes: in memory while they are open, then in Postgres.

Time is the registry's own, whatever clocks the nodes have. A registry that is killed loses the minute it was in; one that is
stopped writes it down, and the next one goes on with it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID, uuid4

from google.protobuf.message import DecodeError

from forebay.clock import Clock
from forebay.errors import Unavailable
from forebay.metrics import Number
from forebay.wire.v1.telemetry_pb2 import GpuSample, TelemetrySample
from forebay_registry.backend import BackendId, NodeId
from forebay_registry.fleet.fleet import View
from forebay_registry.history import readings
from forebay_registry.history.closing import Over, energies, finish
from forebay_registry.history.energy import GAP_S, Meters, Portion, Reading
from forebay_registry.history.grid import Kept
from forebay_registry.history.rollup import Energy, Minute, Slot, Values, add
from forebay_registry.history.series import METRICS, Kind, Series
from forebay_registry.history.sources import holdings
from forebay_registry.history.store import NotWritten, Superseded
from forebay_registry.nodes.samples import Row

log = logging.getLogger(__name__)

MINUTE_S = 60
MOST_GPUS = 64
"""Of one node: what an agent tells beyond has no history."""
MAX_WAITING = 25_000
"""Minutes of series that wait for Postgres; past it the oldest go. Seven minutes of the largest fleet."""
BATCH = 250
"""Written at once: what is counted up and encoded in one go holds up everything else for so long."""
LATE_S = 12.0
"""After its end a minute is still open: what a GPU took in its last seconds is told by the sample after it, ten seconds
later from an agent that is idle. Else nearly each minute would be written twice."""
_TICK_S = 2.0
_MODELS_S = 10.0
"""Between two looks at how many backends each model has."""
_SUM_UP_S = 30.0
_TIDY_S = 600.0


class KeepsHistory(Protocol):
    async def begin(self, ago_s: float) -> None: ...
    async def write(self, flush: UUID, minutes: Sequence[Minute], names: Callable[[Series], str]) -> None: ...
    async def sum_up(self, now: float) -> int: ...
    async def prepare(self, now: float) -> None: ...
    async def drop_old(self, now: float, minutes_s: float, hours_s: float) -> int: ...


@dataclass(frozen=True, slots=True)
class Tally:
    """Minutes of series, by what became of them."""

    written: Number = field(default_factory=Number)
    lost: Number = field(default_factory=Number)
    """Postgres was away for too long."""
    left_out: Number = field(default_factory=Number)
    """Readings of series beyond the most that are kept."""


class Recorder:
    def __init__(
        self,
        store: KeepsHistory,
        views: Callable[[], Iterable[View]],
        clock: Clock,
        *,
        last_samples: Callable[[], Awaitable[Mapping[NodeId, Row]]],
        kept: Kept,
        max_series: int,
        tally: Tally | None = None,
    ) -> None:
        """`views`: the fleet as of now. `last_samples`: of each node, from before this start."""
        self._store = store
        self._last_samples = last_samples
        self._views = views
        self._clock = clock
        self._kept = kept
        self._max_series = max_series
        self.tally = tally or Tally()
        self._is_recording = False
        self._forget()

    # --- what comes in ---

    def on_sample(self, node_id: NodeId, sample: TelemetrySample, heard_at: float) -> None:
        if not self._is_recording:
            return
        node = Series(Kind.NODE, node_id)
        self._names[node] = sample.node
        host = sample.host
        self._add(node, heard_at, readings.of_host(host))
        if host.HasField("power_mw"):
            self._meter(node, Reading(heard_at, None, host.power_mw))
        for gpu in sample.gpus[:MOST_GPUS]:
            if gpu.index >= MOST_GPUS:
                continue  # else an agent could make new series all the time
            one = Series(Kind.GPU, f"{node_id}/{gpu.index}")
            self._names[one] = f"{sample.node}/{gpu.index}"
            self._add(one, heard_at, readings.of_gpu(gpu))
            if not gpu.error:
                counter = gpu.energy_mj if gpu.HasField("energy_mj") else None
                power = gpu.power_mw if gpu.HasField("power_mw") else None
                self._meter(one, Reading(heard_at, counter, power), _meter_of(node_id, gpu))

    def on_look(self, view: View) -> None:
        """A backend, right after it was looked at."""
        if not self._is_recording:
            return
        load = view.load
        if load is not None and self._measured.get(view.id) == load.measured_at:
            load = None  # told before
        elif load is not None:
            self._measured[view.id] = load.measured_at
        series = Series(Kind.BACKEND, view.id)
        self._names[series] = view.name
        self._add(series, self._clock.now(), readings.of_backend(view.condition, load))

    # --- what becomes of it ---

    async def run(self) -> None:
        """Until cancelled; once at a time. The tables must be there. Before and after it, what comes in is left aside."""
        self.begin()
        tidy_at = models_at = sum_up_at = self._clock.monotonic()
        try:
            while True:
                now = self._clock.monotonic()
                if now >= models_at:
                    models_at = now + _MODELS_S
                    self.look_at_models()
                try:
                    await self.write()
                    if now >= sum_up_at:
                        await self._store.sum_up(self._clock.now())
                        sum_up_at = now + _SUM_UP_S
                    if now >= tidy_at:  # not before what is to be dropped has been summed up
                        tidy_at = now + _TIDY_S
                        await self._tidy()
                except Unavailable as error:
                    log.debug("history waits", extra={"action": "history_waits", "why": error.message})
                except NotWritten as error:
                    log.error("history is not kept in order", extra={"action": "history_refused", "why": error.message})
                await asyncio.sleep(_TICK_S)
        finally:
            self.end()

    def begin(self) -> None:
        self._forget()
        self._is_recording = True

    def end(self) -> None:
        self._is_recording = False

    async def write(self) -> None:
        """Minutes that are over. Raises Unavailable."""
        self._close(self._clock.now() - LATE_S)
        await self._recall()
        await self._flush()

    async def drain(self) -> None:
        """Writes the minutes that are open, and whatever waits, if Postgres is there."""
        self._close(self._clock.now() + MINUTE_S)
        try:
            await self._flush()
        except Unavailable as error:
            fields = {"action": "history_lost", "minutes": len(self._waiting), "why": error.message}
            log.warning("the last minutes are not in the history", extra=fields)
        self.tally.lost.value += len(self._waiting)
        self._waiting.clear()

    def look_at_models(self) -> None:
        now = self._clock.now()
        for model, reading in readings.of_models(self._views()).items():
            series = Series(Kind.MODEL, model)
            self._names[series] = model
            self._add(series, now, reading)

    # --- inside ---

    def _forget(self) -> None:
        self._slots: dict[int, dict[Series, Slot]] = {}
        self._portions: dict[int, dict[Series, Energy]] = {}
        self._meters = Meters()
        self._names: dict[Series, str] = {}
        self._measured: dict[BackendId, float] = {}
        self._waiting: deque[Over] = deque()
        self._flushing: tuple[UUID, list[Minute]] | None = None
        self._is_recalled = False
        self._began_at = self._clock.monotonic()

    def _add(self, series: Series, at: float, values: Values) -> None:
        minute = int(at) // MINUTE_S * MINUTE_S
        slots = self._slots.get(minute)
        if slots is None:
            slots = self._slots[minute] = {}
        slot = slots.get(series)
        if slot is None:
            if len(slots) >= self._max_series:
                self._leave_out(series)
                return
            slot = slots[series] = Slot(len(METRICS[series.kind]))
        slot.add(values)

    def _leave_out(self, series: Series) -> None:
        if not self.tally.left_out.value:
            fields = {"action": "history_full", "series": self._max_series, "kind": series.kind, "ref": series.ref}
            log.warning(
                "more series than history_max_series: no history of them (told once, counted always)", extra=fields
            )
        self.tally.left_out.value += 1

    def _meter(self, series: Series, reading: Reading, meter: str = "") -> None:
        for portion in self._meters.read(meter or series.ref, reading):
            self._book(series, portion)

    def _book(self, series: Series, portion: Portion) -> None:
        is_server = series.kind is Kind.NODE
        energy = Energy(
            gpu_wh=None if is_server else portion.wh,
            server_wh=portion.wh if is_server else None,
            measured_s=portion.seconds,
            # A host has no counter; only of a GPU it says something that it had to be estimated.
            is_estimated=portion.is_estimated and not is_server,
        )
        booked = self._portions.setdefault(portion.minute, {})
        before = booked.get(series)
        booked[series] = energy if before is None else add(before, energy)

    def _close(self, now: float) -> None:
        """Minutes that are over wait for Postgres from now on."""
        for at in sorted(at for at in self._slots.keys() | self._portions.keys() if at + MINUTE_S <= now):
            slots = self._slots.pop(at, {})
            taken = energies(self._portions.pop(at, {}), holdings(self._views()))
            for series in slots.keys() | taken.keys():
                self._waiting.append(Over(series, at, slots.get(series), taken.get(series, Energy())))
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self.tally.lost.value += 1

    async def _recall(self) -> None:
        """Counters as they stood before this start tell what was taken meanwhile."""
        if self._is_recalled:
            return
        await self._store.begin(self._clock.monotonic() - self._began_at)
        for node_id, row in (await self._last_samples()).items():
            try:
                sample = TelemetrySample.FromString(row.sample.payload)
            except DecodeError:
                continue  # its meters begin anew
            for gpu in sample.gpus:
                if not gpu.error and gpu.HasField("energy_mj"):
                    self._meters.begin(_meter_of(node_id, gpu), Reading(row.heard_at, gpu.energy_mj, None))
        self._is_recalled = True

    async def _flush(self) -> None:
        while self._waiting or self._flushing:
            if self._flushing is None:
                self._flushing = uuid4(), self._batch()
            # Kept with its id until it is known to be in: it may be, though the answer was lost.
            flush, minutes = self._flushing
            try:
                await self._store.write(flush, minutes, self._name)
                self.tally.written.value += len(minutes)
            except Superseded:
                self._give_up()
                return
            except NotWritten as error:
                log.error("minutes not written", extra={"action": "history_refused", "why": error.message})
                self.tally.lost.value += len(minutes)
            self._flushing = None

    def _batch(self) -> list[Minute]:
        batch: dict[tuple[Series, int], Minute] = {}
        while self._waiting and len(batch) < BATCH:
            over = self._waiting[0]
            if (over.series, over.at) in batch:
                break  # its two parts go one after the other
            batch[over.series, over.at] = finish(self._waiting.popleft())
        return list(batch.values())

    def _give_up(self) -> None:
        """Another registry acted and wrote while this one was cut off and believed that it led."""
        lost = len(self._waiting) + (len(self._flushing[1]) if self._flushing else 0)
        fields = {"action": "history_superseded", "minutes": lost}
        log.warning("history of this time was written by another registry, ours is dropped", extra=fields)
        self.tally.lost.value += lost
        self._forget()

    async def _tidy(self) -> None:
        now = self._clock.now()
        await self._store.prepare(now)
        await self._store.drop_old(now, self._kept.minutes_s, self._kept.hours_s)
        self._meters.forget(now - GAP_S)
        if len(self._names) > 2 * self._max_series:
            self._names.clear()
        if len(self._measured) > self._max_series:
            self._measured.clear()

    def _name(self, series: Series) -> str:
        return self._names.get(series, series.ref)


def _meter_of(node_id: NodeId, gpu: GpuSample) -> str:
    """By its own id: the counter of a GPU that took another's place has nothing to do with that one's."""
    return f"{node_id}/{gpu.uuid or gpu.index}"
