"""The network between any two parts is slow, is cut one way and is cut both ways, under load with open streams: nobody is
given what another has, and a leader that lost the bus is left within the fence.

Both gateways refuse past their fence, so that the slots hold at every moment; the fence is short, so that it passes here.
The short form cuts one wire between any two services in one of the three ways; FOREBAY_CHAOS_LONG=1 cuts every wire in all
three, for longer than the fence."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.chaos.episodes import ENGINES, SLOTS, Story, add_up, figures_of, holds_of, under_load, why
from tests.chaos.figures import LONG, tell
from tests.fakes.cut_wire import CutWire
from tests.system.cluster import Cluster, cluster_place, open_cluster

SEED = int(os.environ.get("FOREBAY_CHAOS_SEED", "7"))
FENCE_S = 10.0
CUT_S = 12.0 if LONG else 2.0
SLOW_S = 30.0 if LONG else 6.0
SLOWER_BY_S = 0.2
_CALM_S = 2.0 if LONG else 0.5
NOT_SERVED = ("no_scheduler",)
"""How a gateway refuses that has not heard of a leader for longer than the fence."""

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    scheduler = {"FOREBAY_SCHEDULER_FENCE_S": str(FENCE_S)}
    gateway = {"FOREBAY_GATEWAY_ISOLATION": "refuse"}
    async with open_cluster(
        cluster_place(tmp_path_factory, "network"),
        engines=ENGINES,
        engine_slots=SLOTS,
        has_agent=True,
        is_wired=True,
        settings={"scheduler-1": scheduler, "scheduler-2": scheduler, "gateway-1": gateway, "gateway-2": gateway},
    ) as cluster:
        yield cluster


@dataclass(frozen=True, slots=True)
class Cut:
    """Which directions pass no more, seen from who connected."""

    name: str
    to_server: bool
    to_client: bool


CUTS = (Cut("both ways", True, True), Cut("one way, there", True, False), Cut("one way, back", False, True))


@pytest.mark.timeout(2400 if LONG else 600)
async def test_whatever_is_slow_or_cut_there_is_one_leader_that_is_heeded_and_no_slot_is_given_twice(
    cluster: Cluster,
) -> None:
    chance = random.Random(SEED)
    async with under_load(cluster, "network", chance) as story:
        await _all_is_slow(cluster, story)
        for number, ends in enumerate(_between_services(cluster, chance)):
            for cut in CUTS if LONG else [CUTS[number % len(CUTS)]]:
                await _is_cut(story, cluster.wires[ends], ends, cut)
        left_s, led_s = await _the_leader_loses_the_bus(cluster, story)
    sums = await add_up(cluster, *story.loads)
    figures = figures_of(story, sums) | {
        "fence s": FENCE_S,
        "old leader left by all gateways after s": left_s,
        "another led after s": led_s,
    }
    holds = holds_of(story, sums) | {
        "one leads in the end": await _leaders(cluster) == 1,
        "the old leader is heeded no longer than the fence": left_s <= FENCE_S,
    }
    assert not tell("network", figures, holds), why(story, sums)


def _between_services(cluster: Cluster, chance: random.Random) -> Sequence[tuple[str, str]]:
    """Engines, to which a cut is a failure of theirs, have a row of their own."""
    every = sorted(cluster.wires)
    if LONG:
        return every
    chance.shuffle(every)
    return sorted({tuple(part.rstrip("-12") for part in ends): ends for ends in every}.values())


async def _all_is_slow(cluster: Cluster, story: Story) -> None:
    wires = [*cluster.wires.values(), *cluster.engine_wires.values()]
    async with story.episode(f"everything {SLOWER_BY_S} s late, each way, for {SLOW_S:.0f} s"):
        for wire in wires:
            wire.slow(SLOWER_BY_S)
        await asyncio.sleep(SLOW_S)
        await asyncio.gather(*(wire.mend() for wire in wires))


async def _is_cut(story: Story, wire: CutWire, ends: tuple[str, str], cut: Cut) -> None:
    async with story.episode(
        f"{ends[0]} to {ends[1]} cut {cut.name}", refusals=NOT_SERVED if LONG else (), calm_s=_CALM_S
    ):
        wire.cut(to_server=cut.to_server, to_client=cut.to_client)
        try:
            await asyncio.sleep(CUT_S)
        finally:
            await wire.mend()


async def _the_leader_loses_the_bus(cluster: Cluster, story: Story) -> tuple[float, float]:
    """It does not know whether another leads, and goes on within the ceilings. Before the fence has passed the gateways have
    found the one that does, and refuse nobody. Seconds from the cut until none was with the old one any more, and until
    another led."""
    old = await cluster.leader()
    wire = cluster.schedulers[old].bus_wire
    async with story.episode("the leader cut off from the bus for longer than the fence"):
        began = time.monotonic()
        wire.cut()
        try:
            new = await cluster.leader(other_than=old)
            led_s = time.monotonic() - began
            while await _sessions(cluster, new) < len(cluster.layout.gateways):
                assert time.monotonic() - began < FENCE_S + 30, "the gateways stay with a leader that lost the bus"
                await asyncio.sleep(0.1)
            left_s = time.monotonic() - began
            await asyncio.sleep(began + FENCE_S + 1 - time.monotonic())
        finally:
            await wire.mend()
        while await _leaders(cluster) != 1:
            await asyncio.sleep(0.1)
    return round(left_s, 2), round(led_s, 2)


async def _leaders(cluster: Cluster) -> int:
    said = [await cluster.reading(place.ops_port, "forebay_scheduler_leads") for place in cluster.schedulers.values()]
    return said.count(1.0)


async def _sessions(cluster: Cluster, scheduler: str) -> int:
    return sum(gateway.connected for gateway in (await cluster.queue(scheduler)).gateways)
