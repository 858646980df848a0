"""What the bus on NATS promises beyond the contract that it shares with the one in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.nats_bus import open_nats_bus
from tests.real_nats import RealNats


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[RealNats]:
    with RealNats(tmp_path) as server:
        yield server


async def test_a_task_that_is_cancelled_while_it_asks_the_bus_ends_even_when_the_answer_comes_at_that_moment(
    nats: RealNats,
) -> None:
    dice = random.Random(7)
    async with open_nats_bus(nats.url, "test") as bus:
        await bus.wait_connected()
        bucket = await bus.bucket("things")

        async def write_for_ever() -> None:
            while True:
                await bucket.put("key", b"value")

        for _ in range(300):
            task = asyncio.create_task(write_for_ever())
            await asyncio.sleep(dice.uniform(0.001, 0.004))
            task.cancel()
            _, pending = await asyncio.wait([task], timeout=0.5)
            for one in pending:
                one.cancel()
            assert not pending
            assert task.cancelled()
