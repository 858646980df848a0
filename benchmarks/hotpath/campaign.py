"""The whole measurement: everything is started, then repetition by repetition each scenario is run on each of its systems,
so that a noisy minute hits all of them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.hotpath.engines import open_engine
from benchmarks.hotpath.goals import Grown, Outage, RecordCost
from benchmarks.hotpath.growth import Growth
from benchmarks.hotpath.loads import Load, NotMeasured, Reading, System, measure
from benchmarks.hotpath.machine import Cores, family, prefer
from benchmarks.hotpath.ours import OTHER_MODEL, Ours, mock_engine, open_ours
from benchmarks.hotpath.peers import PEERS, is_there, open_peer
from benchmarks.hotpath.records import cost_of_records
from benchmarks.hotpath.scenarios import AIOHTTP, BARE, DIRECT, OURS, TLS, WORKERS, Scenario
from benchmarks.hotpath.summary import Sample

_GATEWAYS: dict[str, tuple[dict[str, str], bool]] = {
    OURS: ({}, False),
    AIOHTTP: ({"FOREBAY_GATEWAY_HOT_PATH": "false"}, False),
    TLS: ({}, True),
    WORKERS: ({"FOREBAY_GATEWAY_WORKERS": "2"}, False),
}
"""Settings, and whether clients come over TLS."""
_OUTAGE_RATE = 200.0


@dataclass
class Found:
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be measured, and why."""
    outage: Outage | None = None
    records: RecordCost | None = None
    growth: list[Grown] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    scenarios: Sequence[Scenario]
    systems: frozenset[str]
    repetitions: int
    outage_s: float
    """0: the scheduler stays."""
    records: bool
    growth: bool
    short: bool
    nice: int = 0
    python: str = sys.executable
    """Which runs our gateways."""


class Campaign:
    def __init__(self, wanted: Wanted, work: Path, programs: Path) -> None:
        self._wanted = wanted
        self._work = work
        self._programs = programs
        self._cores = Cores.of(os.sched_getaffinity(0))
        self._engine_port = 0
        self._systems: dict[str, System] = {}
        self.found = Found()

    async def run(self) -> Found:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            direct = await enter(open_engine(self._cores, self._programs))
            other = await enter(open_engine(self._cores, self._programs, OTHER_MODEL))
            self._engine_port = direct.port
            self._systems[DIRECT] = direct
            ours = await enter(open_ours(self._work / "data", self._cores, mock_engine(direct.port), other.port))
            ours.gateway_python = self._wanted.python
            lasting = {name for one in self._wanted.scenarios if not one.is_fresh for name in one.systems}
            for name in [
                name for name in (*PEERS, *_GATEWAYS) if name in lasting | {OURS} and name in self._wanted.systems
            ]:
                await self._open(name, ours, stack)
            self._prefer()
            for repetition in range(self._wanted.repetitions):
                for scenario in self._wanted.scenarios:
                    for name in scenario.systems:
                        if name in self._wanted.systems:
                            await self._measure(name, scenario, repetition, ours)
            if OURS in self._systems:
                await self._rest(ours)
        if self._wanted.growth:
            await self._grow()
        return self.found

    async def _grow(self) -> None:
        wanted = self._wanted
        growth = Growth(self._work, self._cores, self._programs, wanted.python, short=wanted.short)
        async for step in growth.measure():
            if isinstance(step, NotMeasured):
                self._note(str(step))
                continue
            self.found.growth.append(step)
            print(
                f"{step.what:9} {step.size:8,} {step.us_per_answer:8.1f} us/request {step.of_smallest:8.2f} x the smallest"
                f"  {step.rss_mb:5.0f} MB",
                flush=True,
            )

    async def _open(self, name: str, ours: Ours, stack: AsyncExitStack) -> None:
        try:
            if name in _GATEWAYS:
                environ, tls = _GATEWAYS[name]
                self._systems[name] = await stack.enter_async_context(ours.open_gateway(name, environ, tls=tls))
            else:
                peer = open_peer(PEERS[name], self._cores, self._engine_port, self._work)
                self._systems[name] = await stack.enter_async_context(peer)
        except Exception as error:  # whatever it is, the others can be measured
            self._note(f"{name} is not measured: {error}")

    async def _measure(self, name: str, scenario: Scenario, repetition: int, ours: Ours) -> None:
        async with AsyncExitStack() as stack:
            lasting = self._systems.pop(name, None) if scenario.is_fresh else None
            if lasting is not None:
                stack.callback(self._systems.update, {name: lasting})
            if scenario.is_fresh:
                await self._open(name, ours, stack)
                self._prefer()
            system = self._systems.pop(name, None) if scenario.is_fresh else self._system(name, ours)
            if system is None:
                return
            try:
                reading = await measure(system, scenario.load, self._cores, self._programs)
            except NotMeasured as error:
                self._note(f"{scenario.name}: {error}")
            else:
                self.found.samples.append(Sample(scenario.name, name, repetition, reading))
                print(_line(name, scenario, reading), flush=True)

    def _system(self, name: str, ours: Ours) -> System | None:
        if name == BARE and OURS in self._systems:
            return replace(self._systems[OURS], name=BARE, key=ours.free_key)
        return self._systems.get(name)

    async def _rest(self, ours: Ours) -> None:
        if self._wanted.records:
            try:
                self.found.records = await cost_of_records(ours, self._work / "records")
            except Exception as error:
                self._note(f"the cost of a record is not measured: {error!r}")
        if self._wanted.outage_s:
            try:
                self.found.outage = await self._outage(ours)
            except NotMeasured as error:
                self._note(f"the time without a scheduler is not measured: {error}")

    async def _outage(self, ours: Ours) -> Outage:
        """The scheduler dies under a steady load and stays away. The load ends before it comes back."""
        load = Load(connections=64, rate=_OUTAGE_RATE, seconds=self._wanted.outage_s + 2, warm_s=3)
        system = replace(self._systems[OURS], key=ours.free_key)
        measuring = asyncio.create_task(measure(system, load, self._cores, self._programs))
        await asyncio.sleep(load.warm_s + 1)
        scheduler = ours.parts["scheduler"]
        scheduler.hurry()
        await scheduler.stop()
        reading = await measuring
        await scheduler.start()
        return Outage(self._wanted.outage_s, reading.answers, reading.errors, reading.longest_silence_ms)

    def _prefer(self) -> None:
        if self._wanted.nice:
            prefer(self._wanted.nice, *family(os.getpid()))

    def _note(self, line: str) -> None:
        if line not in self.found.notes:
            self.found.notes.append(line)
            print(line, flush=True)


def missing(systems: frozenset[str]) -> list[str]:
    """Names of peers that are wanted and not installed."""
    return [name for name, peer in PEERS.items() if name in systems and not is_there(peer)]


def _line(name: str, scenario: Scenario, reading: Reading) -> str:
    cost = (
        f"{reading.us_per_token:8.1f} us/token" if scenario.load.tokens else f"{reading.us_per_answer:8.1f} us/request"
    )
    rate = (reading.tokens if scenario.load.tokens else reading.answers) / reading.seconds
    wrong = f"  errors {reading.errors}+{reading.incomplete} {reading.said[:160]}" if not reading.is_valid else ""
    return (
        f"{scenario.name:20} {name:24}{cost} {rate:8.0f}/s  p50 {reading.latency_p50_us or 0:8.0f} us"
        f"  {reading.rss_mb:5.0f} MB  core busy before {reading.busy_before:.0%}{wrong}"
    )
