"""What gateways do when they have not heard of a leader for longer than the fence: one refuses, one serves and counts.

Both keep to the slots inside the fence. Past it a gateway that refuses starts nothing, so the slots hold for ever; one that
serves may overlap with whoever was given its slots, and each of its starts is counted."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.system.chaos import MODEL, Load, what_does_not_add_up
from tests.system.cluster import Cluster, cluster_place, open_cluster
from tests.system.installation import Streamed, ask, stream

SEED = int(os.environ.get("FOREBAY_CHAOS_SEED", "7"))
SLOTS = 4
ENGINES = {
    "counted": ("--slots", str(SLOTS), "--tokens-per-s", "30", "--flavour", "llama.cpp"),
    "silent": ("--slots", str(SLOTS), "--tokens-per-s", "30"),
}
FENCE_S = 6.0
_LATE_S = 1.5
"""From a death until the gateways' fences have passed, beyond the fence itself: less than this, on a busy machine too."""
_GIVEN_UP_S = FENCE_S + 5.0
"""The fence and the scheduler's margin: then what a silent gateway held goes to others, once it runs no more."""
_QUARANTINE_S = 10.0
REFUSES, SERVES = 0, 1

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    scheduler = {"FOREBAY_SCHEDULER_FENCE_S": str(FENCE_S)}
    async with open_cluster(
        cluster_place(tmp_path_factory, "isolation"),
        engines=ENGINES,
        engine_slots=SLOTS,
        settings={
            "scheduler-1": scheduler,
            "scheduler-2": scheduler,
            "gateway-1": {"FOREBAY_GATEWAY_ISOLATION": "refuse"},
            "gateway-2": {"FOREBAY_GATEWAY_ISOLATION": "serve"},
        },
    ) as cluster:
        yield cluster


async def _ask(cluster: Cluster, gateway: int, request_id: str, tokens: int = 10) -> Streamed:
    body = ask("Go on.", model=MODEL, max_tokens=tokens, stream_options={"include_usage": True})
    return await stream(cluster.client, cluster.gateway_url(gateway), cluster.keys[0], body, request_id)


async def _past_fence(cluster: Cluster, gateway: int) -> int:
    name = cluster.layout.gateways[gateway]
    return round(await cluster.reading(cluster.layout.ops(name), "forebay_gateway_starts_past_fence_total") or 0)


async def _engine_requests(cluster: Cluster) -> list[dict[str, Any]]:
    seen = [await engine.seen() for engine in cluster.engines.values()]
    return [request for one in seen for request in one["requests"]]


async def _reached_engines(cluster: Cluster, prefix: str) -> int:
    return sum(
        request["headers"].get("x-request-id", "").startswith(prefix) for request in await _engine_requests(cluster)
    )


async def _peaks(cluster: Cluster) -> dict[str, int]:
    return {name: (await engine.seen())["peak_width"] for name, engine in cluster.engines.items()}


async def _begin_anew(cluster: Cluster) -> None:
    """Both gateways have a leader and their ceilings, and the engines have forgotten what they saw."""
    for gateway in (REFUSES, SERVES):
        async with asyncio.timeout(30):
            while not await _starts_within_the_fence(cluster, gateway):
                await asyncio.sleep(0.2)
    for engine in cluster.engines.values():
        await engine.reset()


async def _starts_within_the_fence(cluster: Cluster, gateway: int) -> bool:
    before = await _past_fence(cluster, gateway)
    warm = await _ask(cluster, gateway, f"warm-{time.monotonic()}")
    return warm.status == 200 and await _past_fence(cluster, gateway) == before


@pytest.mark.timeout(200)
async def test_without_a_leader_one_refuses_past_the_fence_and_the_other_counts_what_it_starts(
    cluster: Cluster,
) -> None:
    await _begin_anew(cluster)
    counted = [await _past_fence(cluster, gateway) for gateway in (REFUSES, SERVES)]
    died_at = time.monotonic()
    await asyncio.gather(*(cluster.bury(name) for name in cluster.schedulers))
    try:
        within = await asyncio.gather(*(_ask(cluster, n % 2, f"within-{n}") for n in range(6)))
        assert [result.status for result in within] == [200] * 6
        assert time.monotonic() - died_at < FENCE_S, "this machine is too slow to tell"
        assert [await _past_fence(cluster, gateway) for gateway in (REFUSES, SERVES)] == counted

        await asyncio.sleep(died_at + FENCE_S + _LATE_S - time.monotonic())
        refused = await asyncio.gather(*(_ask(cluster, REFUSES, f"refused-{n}") for n in range(4)))
        assert [result.status for result in refused] == [503] * 4
        assert {(result.error or {}).get("code") for result in refused} == {"no_scheduler"}
        assert not await _reached_engines(cluster, "refused-"), "nothing is started"

        served = await asyncio.gather(*(_ask(cluster, SERVES, f"served-{n}") for n in range(20)))
        assert all(result.is_done for result in served), "it goes on within its ceilings"
        now = [await _past_fence(cluster, gateway) for gateway in (REFUSES, SERVES)]
        assert now == [counted[REFUSES], counted[SERVES] + await _reached_engines(cluster, "served-")]
        assert max((await _peaks(cluster)).values()) <= SLOTS, "nobody was given its slots: it keeps to its ceilings"
    finally:
        await asyncio.gather(*(cluster.revive(name) for name in cluster.schedulers))
    await _begin_anew(cluster)  # what began before the new leader was heard of counted, too
    led = [await _past_fence(cluster, gateway) for gateway in (REFUSES, SERVES)]
    again = await asyncio.gather(*(_ask(cluster, n % 2, f"led-{n}") for n in range(6)))
    assert [result.status for result in again] == [200] * 6
    assert [await _past_fence(cluster, gateway) for gateway in (REFUSES, SERVES)] == led
    assert led[REFUSES] == counted[REFUSES]


@pytest.mark.timeout(200)
async def test_without_the_bus_the_fence_passes_too(cluster: Cluster) -> None:
    """The leader is there and grants within the ceilings; nobody can know whether another leads."""
    await _begin_anew(cluster)
    before = await _past_fence(cluster, SERVES)
    cluster.stop("nats")
    try:
        await asyncio.sleep(FENCE_S + _LATE_S)
        refused = [await _ask(cluster, REFUSES, f"no-bus-refused-{n}") for n in range(3)]
        assert [(result.status, (result.error or {}).get("code")) for result in refused] == [(503, "no_scheduler")] * 3
        assert not await _reached_engines(cluster, "no-bus-refused-")
        served = await asyncio.gather(*(_ask(cluster, SERVES, f"no-bus-served-{n}") for n in range(12)))
        assert all(result.is_done for result in served)
        assert await _past_fence(cluster, SERVES) == before + 12
        assert max((await _peaks(cluster)).values()) <= SLOTS
    finally:
        cluster.go_on("nats")
    await _begin_anew(cluster)


@pytest.mark.parametrize("how", ["cut off", "stopped"])
@pytest.mark.parametrize("mode", ["refuse", "serve"])
@pytest.mark.timeout(300)
async def test_whoever_is_away_for_longer_than_the_fence_loses_its_slots(cluster: Cluster, mode: str, how: str) -> None:
    """Its slots go to the other one, under load on both. One that refuses starts nothing on what is not its own any more."""
    await _begin_anew(cluster)
    away = REFUSES if mode == "refuse" else SERVES
    name, other = cluster.layout.gateways[away], 1 - away
    chance = random.Random(f"{SEED} {mode} {how}")
    before = await _past_fence(cluster, away)
    label = f"{mode}-{how.replace(' ', '-')}"
    light = Load(cluster, 6, chance, name=f"away-{label}", pause_s=0.2, most_tokens=20, gateways=(away,))
    heavy = Load(cluster, 14, chance, name=f"there-{label}", gateways=(other,))
    async with light:
        await asyncio.sleep(3)
        async with heavy:
            left_at = time.monotonic()
            _leave(cluster, name, how)
            try:
                await asyncio.sleep(left_at + FENCE_S - 0.5 - time.monotonic())
                assert max((await _peaks(cluster)).values()) <= SLOTS, "inside the fence"
                await _until_all_is_used(cluster, left_at + _GIVEN_UP_S + _QUARANTINE_S + 5)
                await asyncio.sleep(3)
            finally:
                await _return(cluster, name, how)
            await asyncio.sleep(6)
    overlaps = await _past_fence(cluster, away) - before
    if mode == "refuse":
        assert overlaps == 0
    elif how == "cut off":
        assert overlaps > 0
    problems = await what_does_not_add_up(cluster, SLOTS, light, heavy, is_overlap_allowed=overlaps > 0)
    assert not problems, "\n".join([*problems[:40], f"{len(problems)} in all"])


def _leave(cluster: Cluster, gateway: str, how: str) -> None:
    if how == "stopped":
        cluster.stop(gateway)
        return
    for scheduler in cluster.schedulers:
        cluster.session_wires[gateway, scheduler].cut()


async def _return(cluster: Cluster, gateway: str, how: str) -> None:
    if how == "stopped":
        cluster.go_on(gateway)
        return
    for scheduler in cluster.schedulers:
        await cluster.session_wires[gateway, scheduler].mend()


async def _until_all_is_used(cluster: Cluster, until: float) -> None:
    """By the one that is there, as the scheduler counts."""
    held: dict[str, int] = {}
    while time.monotonic() < until:
        shown = await cluster.queue(await cluster.leader())
        held = {one.backend_id: one.held - one.lent for one in shown.held}
        if len(held) == len(ENGINES) and min(held.values()) >= SLOTS and not any(o.quarantined for o in shown.held):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the slots of the one that is away were not given to the other: {held}")
