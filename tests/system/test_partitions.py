"""Slots lent ahead, while the network is cut or processes stop and die: engines never get more than they take, and all that
was lent comes back. Without these, credits must not be on by default.

Light load makes the gateways use what they are lent. In that state something goes wrong, and heavy load comes at once: what
is lent cannot be called back everywhere, while whoever leads wants every slot for those who wait."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.cut_wire import Cut
from tests.system.chaos import Load, what_does_not_add_up
from tests.system.cluster import Cluster, cluster_place, open_cluster

ROUNDS = int(os.environ.get("FOREBAY_CHAOS_ROUNDS", "1"))
SEED = int(os.environ.get("FOREBAY_CHAOS_SEED", "7"))
SLOTS = 4
ENGINES = {
    "counted": ("--slots", str(SLOTS), "--tokens-per-s", "30", "--flavour", "llama.cpp"),
    "silent": ("--slots", str(SLOTS), "--tokens-per-s", "30"),
}
_CALM_S = 4.0

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

Harm = Callable[[Cluster, random.Random], AbstractAsyncContextManager[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with open_cluster(
        cluster_place(tmp_path_factory, "partitions"), engines=ENGINES, engine_slots=SLOTS
    ) as cluster:
        yield cluster


@asynccontextmanager
async def the_leader_is_cut_off_from_one_gateway(cluster: Cluster, chance: random.Random) -> AsyncIterator[None]:
    wire = cluster.session_wires[chance.choice(cluster.layout.gateways), await cluster.leader()]
    wire.cut(chance.choice(list(Cut)))
    try:
        yield
    finally:
        await wire.mend()


@asynccontextmanager
async def one_gateway_hears_nothing_and_is_heard(cluster: Cluster, chance: random.Random) -> AsyncIterator[None]:
    """What it begins is told, and recalls do not reach it."""
    wire = cluster.session_wires[chance.choice(cluster.layout.gateways), await cluster.leader()]
    wire.cut(to_server=False)
    try:
        yield
    finally:
        await wire.mend()


@asynccontextmanager
async def one_gateway_hears_and_is_not_heard(cluster: Cluster, chance: random.Random) -> AsyncIterator[None]:
    wire = cluster.session_wires[chance.choice(cluster.layout.gateways), await cluster.leader()]
    wire.cut(to_client=False)
    try:
        yield
    finally:
        await wire.mend()


@asynccontextmanager
async def the_leader_is_cut_off_from_the_bus(cluster: Cluster, chance: random.Random) -> AsyncIterator[None]:
    """Another leads beside it; the gateways stay with the old one."""
    old = await cluster.leader()
    wire = cluster.schedulers[old].bus_wire
    wire.cut()
    try:
        await cluster.leader(other_than=old)
        yield
    finally:
        await wire.mend()


@asynccontextmanager
async def each_gateway_has_a_leader_of_its_own(cluster: Cluster, chance: random.Random) -> AsyncIterator[None]:
    """The old one, without the bus, keeps one gateway and what it lent to it; the new one has the other."""
    old = await cluster.leader()
    bus, session = (
        cluster.schedulers[old].bus_wire,
        cluster.session_wires[chance.choice(cluster.layout.gateways), old],
    )
    bus.cut()
    session.cut(chance.choice(list(Cut)))
    try:
        await cluster.leader(other_than=old)
        yield
    finally:
        await session.mend()
        await bus.mend()


@asynccontextmanager
async def the_leader_is_stopped(cluster: Cluster, chance: random.Random) -> AsyncIterator[None]:
    """It wakes up to gateways that have left it, and to what they had said before."""
    old = await cluster.leader()
    cluster.stop(old)
    try:
        await cluster.leader(other_than=old)
        yield
    finally:
        cluster.go_on(old)


@asynccontextmanager
async def the_leader_dies(cluster: Cluster, chance: random.Random) -> AsyncIterator[None]:
    old = await cluster.leader()
    await cluster.bury(old)
    try:
        yield
    finally:
        await cluster.revive(old)


@asynccontextmanager
async def a_gateway_is_stopped(cluster: Cluster, chance: random.Random) -> AsyncIterator[None]:
    gateway = chance.choice(cluster.layout.gateways)
    cluster.stop(gateway)
    try:
        yield
    finally:
        cluster.go_on(gateway)


@asynccontextmanager
async def a_gateway_dies(cluster: Cluster, chance: random.Random) -> AsyncIterator[None]:
    gateway = chance.choice(cluster.layout.gateways)
    await cluster.bury(gateway)
    try:
        yield
    finally:
        await cluster.revive(gateway)


@pytest.mark.parametrize(
    "harm",
    [
        the_leader_is_cut_off_from_one_gateway,
        one_gateway_hears_nothing_and_is_heard,
        one_gateway_hears_and_is_not_heard,
        the_leader_is_cut_off_from_the_bus,
        each_gateway_has_a_leader_of_its_own,
        the_leader_is_stopped,
        the_leader_dies,
        a_gateway_is_stopped,
        a_gateway_dies,
    ],
    ids=lambda harm: harm.__name__,
)
@pytest.mark.timeout(200 + 60 * ROUNDS)
async def test_what_is_lent_never_exceeds_the_slots_and_comes_back(cluster: Cluster, harm: Harm) -> None:
    chance = random.Random(f"{SEED} {harm.__name__}")
    for engine in cluster.engines.values():
        await engine.reset()
    async with Load(
        cluster, 4, chance, name=f"light-{harm.__name__}", pause_s=0.3, most_tokens=15, leaving=0.02
    ) as light:
        loads = [light]
        await _use_credits(cluster)
        for number in range(ROUNDS):
            async with AsyncExitStack() as asking:
                async with harm(cluster, chance):
                    await asyncio.sleep(chance.uniform(0, 0.6))
                    heavy = await asking.enter_async_context(
                        Load(cluster, 12, chance, name=f"heavy-{number}-{harm.__name__}")
                    )
                    loads.append(heavy)
                    await asyncio.sleep(chance.uniform(4, 8))
                    assert heavy.finished, "nothing is served meanwhile"
                await asyncio.sleep(_CALM_S)
            await _use_credits(cluster)
    problems = await what_does_not_add_up(cluster, SLOTS, *loads)
    log.info("%s: %s answers", harm.__name__, [load.finished for load in loads])
    assert not problems, "\n".join([*problems[:40], f"{len(problems)} in all"])
    await _until_nothing_is_lent(cluster)


async def _use_credits(cluster: Cluster, within_s: float = 20.0) -> None:
    """Until each gateway has begun requests on what it was lent, here and now, and something is out."""
    before = await _credit_starts(cluster)
    async with asyncio.timeout(within_s):
        while True:
            now = await _credit_starts(cluster)
            if all(now[gateway] >= before[gateway] + 3 for gateway in now) and await _lent(cluster):
                return
            await asyncio.sleep(0.1)


async def _credit_starts(cluster: Cluster) -> dict[str, float]:
    return {
        gateway: await cluster.reading(
            cluster.layout.ops(gateway), "forebay_gateway_starts_unasked_total", 'by="credit"'
        )
        or 0.0
        for gateway in cluster.layout.gateways
    }


async def _lent(cluster: Cluster) -> int:
    return sum(one.lent for one in (await cluster.queue(await cluster.leader())).held)


async def _until_nothing_is_lent(cluster: Cluster, within_s: float = 15.0) -> None:
    """What nobody uses runs out and is returned, and every slot is free again."""
    left: list[Any] = []
    for _ in range(round(within_s / 0.5)):
        shown = await cluster.queue(await cluster.leader())
        left = [one for one in shown.held if one.held or one.lent or one.quarantined]
        if not left:
            return
        await asyncio.sleep(0.5)
    raise AssertionError(f"still held or lent: {left}")
