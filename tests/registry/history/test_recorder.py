"""What is heard and seen, minute by minute, with the hands of the clock in the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from forebay.clock import ManualClock
from forebay.errors import Unavailable
from forebay.wire.v1.telemetry_pb2 import GpuSample, HostSample, TelemetrySample
from forebay_registry.backend import BackendId, Condition, Desired, Load, Model, NodeId, Observed, Seen
from forebay_registry.fleet.fleet import View, view_of
from forebay_registry.history import recorder as recorder_module
from forebay_registry.history.grid import Kept
from forebay_registry.history.recorder import LATE_S, Recorder
from forebay_registry.history.rollup import Minute
from forebay_registry.history.series import METRICS, Kind, Series
from forebay_registry.history.store import NotWritten, Superseded
from forebay_registry.nodes.samples import Row, Sample

NODE = NodeId("no-1")
NOON = 1_800_000_000 // 3600 * 3600.0
BACKEND = Desired(BackendId("be-1"), "big", "http://gpu-1:8000", None, "default", 4, NODE, "ada", 0.0)


@pytest.fixture(autouse=True)
def minutes_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "LATE_S", 0.0)


class Shelf:
    """A store of minutes that can be away."""

    def __init__(self) -> None:
        self.minutes: list[Minute] = []
        self.flushes: list[UUID] = []
        self.names: dict[Series, str] = {}
        self.error: Exception | None = None

    async def begin(self, ago_s: float) -> None: ...

    async def write(self, flush: UUID, minutes: Sequence[Minute], names: Callable[[Series], str]) -> None:
        self.flushes.append(flush)
        if self.error is not None:
            raise self.error
        self.minutes += minutes
        self.names |= {minute.series: names(minute.series) for minute in minutes}

    async def sum_up(self, now: float) -> int:
        return 0

    async def prepare(self, now: float) -> None: ...

    async def drop_old(self, now: float, minutes_s: float, hours_s: float) -> int:
        return 0

    def of(self, kind: Kind, ref: str) -> list[Minute]:
        return sorted((m for m in self.minutes if m.series == Series(kind, ref)), key=lambda m: m.at)


class House:
    def __init__(self, *, max_series: int = 100, views: Sequence[View] = ()) -> None:
        self.clock, self.shelf = ManualClock(NOON), Shelf()
        self.views = list(views)
        self.last: dict[NodeId, Row] = {}
        self.recorder = Recorder(
            self.shelf,
            lambda: self.views,
            self.clock,
            last_samples=self._last,
            kept=Kept(14 * 86_400.0, 400 * 86_400.0),
            max_series=max_series,
        )
        self.recorder.begin()

    async def _last(self) -> dict[NodeId, Row]:
        return self.last

    def hear(self, sample: TelemetrySample) -> None:
        self.recorder.on_sample(NODE, sample, self.clock.now())

    async def pass_minutes(self, minutes: int = 1) -> None:
        self.clock.advance(60.0 * minutes)
        await self.recorder.write()


def told(*gpus: GpuSample, power_mw: int | None = None) -> TelemetrySample:
    return TelemetrySample(node="gpu-1", host=HostSample(cpu_percent=50.0, power_mw=power_mw), gpus=gpus)


def gpu(index: int = 0, **facts: Any) -> GpuSample:
    return GpuSample(index=index, uuid=f"GPU-{index}", **facts)


def view(desired: Desired = BACKEND, running: int | None = None, measured_at: float = 1.0) -> View:
    load = None if running is None else Load(running, 0, None, measured_at)
    seen = Seen(models=(Model("llama", loaded=True),))
    return view_of(desired, Observed(Condition.HEALTHY, seen=seen, load=load), has_credential=False)


def number(minute: Minute, metric: str) -> tuple[float | None, float | None, float | None]:
    place = METRICS[minute.series.kind].index(metric)
    return minute.mins[place], minute.means[place], minute.maxs[place]


async def test_samples_of_a_minute_become_a_minute_of_the_node_and_of_each_gpu() -> None:
    house = House()
    for percent in (10, 30, 80):
        house.hear(told(gpu(0, utilization_percent=percent), gpu(1)))
        house.clock.advance(2.0)
    await house.pass_minutes()
    (minute,) = house.shelf.of(Kind.GPU, "no-1/0")
    assert minute.at == NOON
    assert number(minute, "utilization_percent") == (10.0, 40.0, 80.0)
    assert house.shelf.names[minute.series] == "gpu-1/0"
    assert house.shelf.names[Series(Kind.NODE, NODE)] == "gpu-1"
    (bare,) = house.shelf.of(Kind.GPU, "no-1/1")
    assert number(bare, "utilization_percent") == (None, None, None), "not told is not zero"


async def test_a_gpu_that_cannot_be_read_has_a_gap_and_takes_nothing() -> None:
    house = House()
    house.hear(told(gpu(0, energy_mj=1000, power_mw=100_000)))
    house.clock.advance(2.0)
    house.hear(told(GpuSample(index=0, uuid="GPU-0", error="GPU_IS_LOST", power_mw=100_000, energy_mj=9000)))
    await house.pass_minutes()
    (minute,) = house.shelf.of(Kind.GPU, "no-1/0")
    assert number(minute, "power_w") == (100.0, 100.0, 100.0)
    assert minute.energy.gpu_wh is None


async def test_energy_goes_to_the_gpu_its_node_and_the_backends_that_run_there() -> None:
    house = House(views=[view()])
    for step in range(4):
        house.hear(told(gpu(0, energy_mj=step * 3_600_000), gpu(1, energy_mj=step * 7_200_000), power_mw=14_400_000))
        house.recorder.on_look(view(running=0, measured_at=float(step)))
        house.clock.advance(10.0)
    await house.pass_minutes()
    (one,) = house.shelf.of(Kind.GPU, "no-1/0")
    (node,) = house.shelf.of(Kind.NODE, NODE)
    (backend,) = house.shelf.of(Kind.BACKEND, "be-1")
    assert one.energy.gpu_wh == pytest.approx(3.0)
    assert (one.energy.measured_s, one.energy.is_estimated) == (30.0, False)
    for whole in (node, backend):
        assert [whole.energy.gpu_wh, whole.energy.server_wh] == pytest.approx([9.0, 120.0])
    assert backend.energy.idle_wh == pytest.approx(9.0), "nothing ran"


@pytest.mark.parametrize(("running", "idle"), [(2, 0.0), (None, None)])
async def test_what_a_backend_took_is_not_idle_when_something_ran_and_unknown_when_its_engine_does_not_tell(
    running: int | None, idle: float | None
) -> None:
    house = House(views=[view()])
    house.recorder.on_look(view(running=running))
    for step in range(2):
        house.hear(told(gpu(0, energy_mj=step * 3_600_000)))
        house.clock.advance(10.0)
    await house.pass_minutes()
    (backend,) = house.shelf.of(Kind.BACKEND, "be-1")
    assert backend.energy.idle_wh == idle


async def test_an_engines_word_counts_once_however_often_it_is_looked_at() -> None:
    house = House()
    for running in (1, 1, 1, 7):
        house.recorder.on_look(view(running=running, measured_at=float(running)))
    await house.pass_minutes()
    (minute,) = house.shelf.of(Kind.BACKEND, "be-1")
    assert number(minute, "running") == (1.0, 4.0, 7.0)
    assert minute.samples[METRICS[Kind.BACKEND].index("serving")] == 4


async def test_models_are_counted_over_their_backends() -> None:
    other = replace(BACKEND, id=BackendId("be-2"), name="small")
    house = House(views=[view(running=3), view(other, running=2)])
    house.recorder.look_at_models()
    await house.pass_minutes()
    (minute,) = house.shelf.of(Kind.MODEL, "llama")
    assert [number(minute, m)[1] for m in ("backends", "loaded_backends", "running")] == [2.0, 2.0, 5.0]


async def test_silence_is_a_gap_and_the_counter_tells_afterwards_what_was_taken_in_it() -> None:
    house = House()
    house.hear(told(gpu(0, energy_mj=0)))
    await house.pass_minutes(5)
    house.hear(told(gpu(0, energy_mj=300_000_000)))
    await house.pass_minutes()
    minutes = house.shelf.of(Kind.GPU, "no-1/0")
    by_minute = {m.at - NOON: m for m in minutes if m.energy.gpu_wh}
    assert sorted(by_minute) == [0, 60, 120, 180, 240]
    assert all(not any(m.samples) for m in by_minute.values() if m.at > NOON)
    assert sum(m.energy.gpu_wh or 0 for m in minutes) == pytest.approx(300_000 / 3600)


async def test_a_restart_goes_on_from_the_counters_of_before() -> None:
    house = House()
    before = told(gpu(0, energy_mj=1_000_000)).SerializeToString()
    house.last = {NODE: Row(NODE, NOON - 100.0, Sample("gpu-1", 1, 1, 0, before))}
    await house.recorder.write()
    house.hear(told(gpu(0, energy_mj=37_000_000)))
    await house.pass_minutes()
    minutes = house.shelf.of(Kind.GPU, "no-1/0")
    assert sum(m.energy.gpu_wh or 0 for m in minutes) == pytest.approx(10.0)


async def test_while_postgres_is_away_minutes_wait_under_the_same_id_and_past_the_bound_the_oldest_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder_module, "MAX_WAITING", 3)
    house = House()
    house.shelf.error = Unavailable()
    house.hear(told())
    with pytest.raises(Unavailable):
        await house.pass_minutes()
    for _ in range(4):
        house.hear(told())
        with pytest.raises(Unavailable):
            await house.pass_minutes()
    house.shelf.error = None
    await house.recorder.write()
    assert house.shelf.flushes[0] == house.shelf.flushes[5], "written again, and not as something new"
    assert [m.at - NOON for m in house.shelf.of(Kind.NODE, NODE)] == [0, 120, 180, 240]
    assert house.recorder.tally.lost.value == 1


async def test_what_another_registry_has_written_meanwhile_is_not_written_again() -> None:
    house = House()
    house.hear(told())
    house.shelf.error = Superseded()
    await house.pass_minutes()
    house.shelf.error = None
    house.hear(told())
    await house.pass_minutes()
    assert [m.at - NOON for m in house.shelf.of(Kind.NODE, NODE)] == [60]
    assert house.recorder.tally.lost.value == 1


async def test_a_batch_that_postgres_refuses_is_lost_alone() -> None:
    house = House()
    house.hear(told())
    house.shelf.error = NotWritten()
    await house.pass_minutes()
    house.shelf.error = None
    house.hear(told())
    await house.pass_minutes()
    assert [m.at - NOON for m in house.shelf.of(Kind.NODE, NODE)] == [60]
    assert house.recorder.tally.lost.value == 1


async def test_series_are_bounded_and_an_agent_cannot_make_more_than_its_part(caplog: pytest.LogCaptureFixture) -> None:
    house = House(max_series=2)
    house.hear(told(*(gpu(i, utilization_percent=1) for i in range(100))))
    await house.pass_minutes()
    assert len({m.series for m in house.shelf.minutes}) == 2
    assert house.recorder.tally.left_out.value == recorder_module.MOST_GPUS - 1
    assert sum("history_max_series" in r.message for r in caplog.records) == 1


async def test_a_registry_that_stops_writes_the_minute_it_is_in() -> None:
    house = House()
    house.hear(told())
    house.clock.advance(20.0)
    await house.recorder.drain()
    assert [m.at for m in house.shelf.of(Kind.NODE, NODE)] == [NOON]


async def test_one_that_stands_by_makes_nothing_of_what_it_hears() -> None:
    house = House()
    house.recorder.end()
    house.hear(told())
    house.recorder.on_look(view())
    await house.recorder.drain()
    assert house.shelf.minutes == []


async def test_a_last_sample_that_cannot_be_read_costs_its_own_meters_alone() -> None:
    house = House()
    good = told(gpu(0, energy_mj=1_000_000)).SerializeToString()
    house.last = {
        NodeId("no-9"): Row(NodeId("no-9"), NOON - 100.0, Sample("gpu-9", 1, 1, 0, b"\xff\xff")),
        NODE: Row(NODE, NOON - 100.0, Sample("gpu-1", 1, 1, 0, good)),
    }
    await house.recorder.write()
    house.hear(told(gpu(0, energy_mj=37_000_000)))
    await house.pass_minutes()
    assert sum(m.energy.gpu_wh or 0 for m in house.shelf.of(Kind.GPU, "no-1/0")) == pytest.approx(10.0)


async def test_an_agent_cannot_make_new_series_all_the_time() -> None:
    house = House(max_series=1000)
    for first in range(0, 640, 64):
        house.hear(told(*(gpu(i, utilization_percent=1) for i in range(first, first + 64))))
    await house.pass_minutes()
    assert len({m.series for m in house.shelf.minutes if m.series.kind is Kind.GPU}) == recorder_module.MOST_GPUS


async def test_what_postgres_refuses_of_the_upkeep_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "_TICK_S", 0.0)
    house, tries = House(), 0

    async def refuse(now: float) -> int:
        nonlocal tries
        if (tries := tries + 1) == 3:
            raise RuntimeError("enough")
        house.clock.advance(60.0)
        raise NotWritten

    monkeypatch.setattr(house.shelf, "sum_up", refuse)
    with pytest.raises(RuntimeError, match="enough"):
        await house.recorder.run()
    assert tries == 3


async def test_each_minute_is_written_once_though_its_last_energy_is_told_after_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder_module, "LATE_S", LATE_S)
    house = House(views=[view()])
    for second in range(0, 300, 2):
        if second % 10 == 6:
            house.hear(told(gpu(0, energy_mj=second * 100_000), power_mw=200_000))
            house.recorder.on_look(view(running=0, measured_at=float(second)))
        await house.recorder.write()
        house.clock.advance(2.0)
    written = [(m.series, m.at) for m in house.shelf.minutes]
    assert len(written) == len(set(written))
    whole = house.shelf.of(Kind.BACKEND, "be-1")[1:]
    assert len(whole) == 3
    for minute in whole:
        assert [minute.energy.gpu_wh, minute.energy.idle_wh] == pytest.approx([100.0 * 60 / 3600] * 2)
        assert minute.energy.server_wh == pytest.approx(200.0 * 60 / 3600)
