"""NATS and PostgreSQL restart, go away, run out of disk and get slow, under load with open streams. Inference goes on in
both ways of isolation, and all records arrive afterwards.

The short form keeps each away for 15 s, FOREBAY_CHAOS_LONG=1 for a minute; both are within the fence, past which gateways do
as their `isolation` says: tests/system/test_isolation.py."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from tests.chaos.episodes import ENGINES, SLOTS, Story, add_up, figures_of, holds_of, kill_and_wait, under_load, why
from tests.chaos.figures import LONG, tell
from tests.system.cluster import Cluster, cluster_place, open_cluster

SEED = int(os.environ.get("FOREBAY_CHAOS_SEED", "7"))
GONE_S = 60.0 if LONG else 15.0
FULL_S = 60.0 if LONG else 8.0
SLOW_S = 30.0 if LONG else 6.0
SLOWER_BY_S = 0.25
_MIB = 1 << 20
_NOTHING = bytes(_MIB)
_NO_ROOM = b"no space left on device"
_NOTICED_WITHIN_S = 60.0
_ROOM = {"nats": 192 * _MIB, "postgres": 512 * _MIB}
"""Of the two file systems that are filled."""

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory in which NATS and PostgreSQL have small file systems of their own."""
    place = cluster_place(tmp_path_factory, "stores")
    mounted: list[Path] = []
    try:
        for name, size in _ROOM.items():
            folder = place / name
            folder.mkdir(parents=True, mode=0o711)
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "forebay-chaos", str(folder)],
                capture_output=True,
                text=True,
            )
            if done.returncode != 0:
                pytest.skip(f"needs root, and the right to mount a file system: {done.stderr.strip()}")
            mounted.append(folder)
        yield place
    finally:
        for folder in mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(place: Path) -> AsyncIterator[Cluster]:
    settings = {
        "gateway-1": {"FOREBAY_GATEWAY_ISOLATION": "refuse"},
        "gateway-2": {"FOREBAY_GATEWAY_ISOLATION": "serve"},
    }
    async with open_cluster(
        place, engines=ENGINES, engine_slots=SLOTS, has_agent=True, is_wired=True, settings=settings
    ) as cluster:
        yield cluster


@pytest.mark.timeout(1200 if LONG else 600)
async def test_inference_goes_on_without_the_stores_and_all_records_arrive_afterwards(cluster: Cluster) -> None:
    async with under_load(cluster, "stores", random.Random(SEED)) as story:
        await _restarts(cluster, story)
        for part in ("nats", "postgres"):
            await _is_gone(cluster, story, part)
            await _runs_out_of_disk(cluster, story, part)
        await _postgres_is_slow(cluster, story)
    sums = await add_up(cluster, *story.loads)
    broken = tell("stores", figures_of(story, sums), holds_of(story, sums))
    assert not broken, why(story, sums)


async def _restarts(cluster: Cluster, story: Story) -> None:
    async with story.episode("NATS restarted"):
        await cluster.exchange("nats", {})
    async with story.episode("NATS killed"):
        await kill_and_wait(cluster, "nats")
    async with story.episode("PostgreSQL killed"):
        await kill_and_wait(cluster, "postgres")


async def _is_gone(cluster: Cluster, story: Story, part: str) -> None:
    async with story.episode(f"{part} gone for {GONE_S:.0f} s"):
        await cluster.bury(part)
        try:
            await asyncio.sleep(GONE_S)
        finally:
            await cluster.revive(part)


async def _runs_out_of_disk(cluster: Cluster, story: Story, part: str) -> None:
    ballast = cluster.data.root / part / "ballast"
    async with story.episode(f"disk full under {part} for {FULL_S:.0f} s"):
        try:
            until = time.monotonic() + FULL_S
            while time.monotonic() < until or not _has_noticed(cluster, part):
                assert time.monotonic() < until + _NOTICED_WITHIN_S, f"{part} did not notice that its disk was full"
                _fill(ballast)  # again: its owner may have freed something
                await asyncio.sleep(0.25)
        finally:
            ballast.unlink()


def _has_noticed(cluster: Cluster, part: str) -> bool:
    return _NO_ROOM in cluster.data.log(part).read_bytes().lower()


async def _postgres_is_slow(cluster: Cluster, story: Story) -> None:
    wires = [cluster.wires[part, "postgres"] for part in ("admin", "registry")]
    async with story.episode(f"PostgreSQL answers {2 * SLOWER_BY_S:.1f} s late for {SLOW_S:.0f} s"):
        for wire in wires:
            wire.slow(SLOWER_BY_S)
        await asyncio.sleep(SLOW_S)
        for wire in wires:
            await wire.mend()
    async with story.episode(f"PostgreSQL says nothing for {SLOW_S:.0f} s"):
        for wire in wires:
            wire.cut()
        await asyncio.sleep(SLOW_S)
        for wire in wires:
            await wire.mend()


def _fill(ballast: Path) -> None:
    """Until its file system has no byte left."""
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while file.write(_NOTHING):
            pass
