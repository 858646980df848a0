"""Everything that may go wrong at the scheduler's edge goes wrong while load runs; afterwards it all adds up.

The short form has each calamity once. FOREBAY_CHAOS_ROUNDS=5 has all of them five times, in another order each time."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.fakes.cut_wire import Cut
from tests.system.chaos import Load, Takeover, watch_takeover, what_does_not_add_up
from tests.system.cluster import Cluster, cluster_place, open_cluster

ROUNDS = int(os.environ.get("FOREBAY_CHAOS_ROUNDS", "1"))
SEED = int(os.environ.get("FOREBAY_CHAOS_SEED", "7"))
SLOTS = 4
ENGINES = {
    "counted": ("--slots", str(SLOTS), "--tokens-per-s", "30", "--flavour", "llama.cpp"),
    "silent": ("--slots", str(SLOTS), "--tokens-per-s", "30"),
}
CLIENTS = 14  # on eight slots, so that somebody always waits
FIRST_GRANT_WITHIN_S = 10.0  # the target is 3 s, and is measured on its own; a busy machine may not break the gate
_CALM_S = 4.0

log = logging.getLogger(__name__)
pytestmark = pytest.mark.slow


@pytest.fixture
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    place = cluster_place(tmp_path_factory, "chaos")
    async with open_cluster(place, engines=ENGINES, engine_slots=SLOTS) as cluster:
        yield cluster


class Calamities:
    """Each does its harm, and has mended it when it returns."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self.takeovers: dict[str, Takeover] = {}

    def all(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.the_leader_dies,
            self.the_leader_is_stopped_and_wakes_up,
            self.the_leader_loses_the_bus,
            self.the_leader_loses_one_gateway,
            self.a_gateway_dies,
            self.the_bus_is_gone_for_a_while,
            self.a_backend_flaps,
        ]

    async def the_leader_dies(self) -> None:
        old = await self._cluster.leader()
        began = time.monotonic()
        await self._cluster.bury(old)
        try:
            self.takeovers["killed"] = await watch_takeover(self._cluster, old, began)
        finally:
            await self._cluster.revive(old)

    async def the_leader_is_stopped_and_wakes_up(self) -> None:
        old = await self._cluster.leader()
        self._cluster.stop(old)
        try:
            self.takeovers["stopped"] = await watch_takeover(self._cluster, old, time.monotonic())
            await asyncio.sleep(2)
        finally:
            self._cluster.go_on(old)

    async def the_leader_loses_the_bus(self) -> None:
        """It goes on with those who listen to it, within their ceilings; the other one leads beside it."""
        old = await self._cluster.leader()
        wire = self._cluster.schedulers[old].bus_wire
        wire.cut(Cut.BLACKHOLE)
        await self._cluster.leader(other_than=old)
        await asyncio.sleep(3)
        await wire.mend()

    async def the_leader_loses_one_gateway(self) -> None:
        leader = await self._cluster.leader()
        wire = self._cluster.session_wires["gateway-1", leader]
        wire.cut(self._chance.choice(list(Cut)))
        await asyncio.sleep(6)
        await wire.mend()

    async def a_gateway_dies(self) -> None:
        self._cluster.kill(self._chance.choice(self._cluster.layout.gateways))
        await asyncio.sleep(3)

    async def the_bus_is_gone_for_a_while(self) -> None:
        self._cluster.stop("nats")
        await asyncio.sleep(5)
        self._cluster.go_on("nats")

    async def a_backend_flaps(self) -> None:
        engine = self._chance.choice(list(self._cluster.engines.values()))
        for _ in range(3):
            await engine.inject("refuse_connection", seconds=1.0)
            await asyncio.sleep(2)


@pytest.mark.timeout(240 + 150 * ROUNDS)
async def test_whatever_goes_wrong_under_load_everything_adds_up_afterwards(
    cluster: Cluster, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(SEED)
    calamities = Calamities(cluster, chance)
    story: list[str] = []
    async with Load(cluster, CLIENTS, chance, refusing=0.05) as load:
        await asyncio.sleep(_CALM_S)
        assert load.finished, "nothing is served before anything went wrong"
        for _ in range(ROUNDS):
            turn = calamities.all()
            chance.shuffle(turn)
            for calamity in turn:
                began, before = time.monotonic(), load.finished
                await calamity()
                await asyncio.sleep(_CALM_S)
                served = load.finished - before
                story.append(f"{calamity.__name__}: {time.monotonic() - began:.1f} s, {served} answers")
                assert served, f"nothing was served after this: {story}"
    problems = await what_does_not_add_up(cluster, SLOTS, load)
    told = {name: [round(t.lead_s, 2), round(t.grant_s, 2)] for name, t in calamities.takeovers.items()}
    record_property("takeovers", json.dumps(told))
    log.info("\n".join([*story, f"takeovers (lead, first grant): {told}", f"{load.finished} answers", *cluster.said]))
    assert not problems, "\n".join([*problems[:40], f"{len(problems)} in all", *story, *cluster.said])
    for name, takeover in calamities.takeovers.items():
        assert takeover.grant_s <= FIRST_GRANT_WITHIN_S, f"leader {name}: {takeover}"
