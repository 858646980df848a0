"""Forebay's own processes die, stop and come back in every order, under load with open streams.

The short form kills each once, stops each for ten seconds and has two orders of coming back. FOREBAY_CHAOS_LONG=1 stops each
by itself and has all orders, or as many as FOREBAY_CHAOS_ORDERS says: on a machine with much else to do each takes half a
minute."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import random
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from tests.chaos.episodes import (
    ENGINES,
    SLOTS,
    Story,
    add_up,
    figures_of,
    holds_of,
    kill_and_wait,
    under_load,
    why,
)
from tests.chaos.figures import LONG, tell
from tests.system.cluster import Cluster, cluster_place, open_cluster

SEED = int(os.environ.get("FOREBAY_CHAOS_SEED", "7"))
STOPPED_S = 10.0
CONTROL = ("admin", "registry", "schedulers", "gpu-agent")
"""What is started again in each order. The schedulers count as one here: which of them leads is nobody's choice."""
ORDERS = int(os.environ.get("FOREBAY_CHAOS_ORDERS", str(math.factorial(len(CONTROL)) if LONG else 2)))
_APART_S = 0.7
"""Between two starts."""

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    place = cluster_place(tmp_path_factory, "services")
    async with open_cluster(place, engines=ENGINES, engine_slots=SLOTS, has_agent=True) as cluster:
        yield cluster


@pytest.mark.timeout(3600 if LONG else 600)
async def test_services_die_stop_and_come_back_in_any_order_and_nothing_is_lost(cluster: Cluster) -> None:
    chance = random.Random(SEED)
    async with under_load(cluster, "services", chance) as story:
        await _each_dies(cluster, story)
        await _each_stops(cluster, story)
        await _leader_and_standby_die(cluster, story)
        for order in _orders(chance):
            await _all_die_and_come_back(cluster, story, order)
        await _everything_dies(cluster, story)
    sums = await add_up(cluster, *story.loads)
    broken = tell("services", figures_of(story, sums) | {"orders": ORDERS}, holds_of(story, sums))
    assert not broken, why(story, sums)


async def _each_dies(cluster: Cluster, story: Story) -> None:
    leader = await cluster.leader()
    for part in (leader, *(name for name in cluster.schedulers if name != leader), "registry", "admin", "gpu-agent"):
        async with story.episode(f"{_role(part, leader)} killed"):
            await kill_and_wait(cluster, part)
    for number, gateway in enumerate(cluster.layout.gateways):
        async with story.episode("a gateway killed", gateways_hit=[number]):
            await kill_and_wait(cluster, gateway)


async def _each_stops(cluster: Cluster, story: Story) -> None:
    """Ten seconds of silence break nobody's stream, not even the stopped gateway's own."""
    leader, gateway = await cluster.leader(), cluster.layout.gateways[0]
    each = [(leader,), *((part,) for part in ("registry", "admin", "gpu-agent", *cluster.layout.gateways))]
    for parts in each if LONG else [(leader, "registry"), (gateway, "admin", "gpu-agent")]:
        async with story.episode(
            f"{' and '.join(_role(part, leader) for part in parts)} stopped for {STOPPED_S:.0f} s"
        ):
            for part in parts:
                cluster.stop(part)
            try:
                await asyncio.sleep(STOPPED_S)
            finally:
                for part in parts:
                    cluster.go_on(part)


async def _leader_and_standby_die(cluster: Cluster, story: Story) -> None:
    async with story.episode("leader and standby killed at once"):
        await kill_and_wait(cluster, *cluster.schedulers)
        await cluster.leader()


def _orders(chance: random.Random) -> list[tuple[str, ...]]:
    orders = list(itertools.permutations(CONTROL))
    chance.shuffle(orders)
    return orders[:ORDERS]


async def _all_die_and_come_back(cluster: Cluster, story: Story, order: Sequence[str]) -> None:
    """All of the control plane, and one gateway with it; the other one goes on within its ceilings."""
    gateway = cluster.layout.gateways[-1]
    number = len(cluster.layout.gateways) - 1
    starts = [[*cluster.schedulers] if part == "schedulers" else [part] for part in order]
    starts.insert(len(story.episodes) % (len(order) + 1), [gateway])
    async with story.episode(f"all killed, back as {', '.join(order)}", gateways_hit=[number]):
        await asyncio.gather(*(cluster.bury(part) for parts in starts for part in parts))
        await asyncio.sleep(_APART_S)
        coming = []
        for parts in starts:
            coming += [asyncio.create_task(cluster.revive(part)) for part in parts]
            await asyncio.sleep(_APART_S)
        await asyncio.gather(*coming)
        await cluster.leader()


async def _everything_dies(cluster: Cluster, story: Story) -> None:
    """As if a host had gone, with all gateways."""
    every = [part for part in cluster.parts if part not in ("nats", "postgres")]
    async with story.episode("every process killed at once", gateways_hit=range(len(cluster.layout.gateways))):
        await kill_and_wait(cluster, *every)


def _role(part: str, leader: str) -> str:
    if part.startswith("scheduler"):
        return "the leader" if part == leader else "the standby"
    return part
