"""JetStream's streams copied from a real server, and put back into another."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from forebay.bus import Consumer
from forebay.errors import Unavailable
from forebay.local.backup.streams import USER, StreamNotCopied, copy_stream, open_streams, put_stream_back
from forebay.local.nats import Nats, open_nats
from forebay.nats_bus import NatsBus, open_nats_bus
from forebay.subjects import LEDGER_CONSUMER, USAGE_STREAM, usage

FindPort = Callable[[], int]
USERS = ("admin", "gateway-1", USER)
STREAM = USAGE_STREAM.name


async def _consumer(bus: NatsBus) -> Consumer:
    await bus.wait_connected()
    await bus.ensure_stream(USAGE_STREAM)
    return await bus.consumer(USAGE_STREAM, LEDGER_CONSUMER)


async def _payloads(consumer: Consumer, count: int) -> list[bytes]:
    found: list[bytes] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            for delivery in await consumer.fetch(count - len(found), 1.0):
                found.append(delivery.payload)
                await delivery.ack()
    return found


async def _append(server: Nats, first: int, last: int) -> None:
    async with open_nats_bus(server.url, "gateway-1", seed_file=server.seed_file("gateway-1")) as bus:
        await bus.wait_connected()
        for number in range(first, last):
            await bus.append(usage("gateway-1"), b"%d " % number + bytes(50_000))


async def test_what_was_acknowledged_stays_so_and_the_rest_is_delivered_elsewhere(
    place: Path, free_port: FindPort
) -> None:
    copied, secrets = place / "copied", place / "secrets"
    async with open_nats(place / "first", secrets=secrets, port=free_port(), users=USERS, log=place / "log") as server:
        async with open_nats_bus(server.url, "admin", seed_file=server.seed_file("admin")) as bus:
            consumer = await _consumer(bus)
            await _append(server, 0, 30)
            assert [int(p.split()[0]) for p in await _payloads(consumer, 10)] == list(range(10))
        async with open_streams(server.url, server.seed_file(USER), None) as connection:
            with copied.open("wb") as file:
                assert await copy_stream(connection, STREAM, file) == 20
            assert await copy_stream(connection, "KV_forebay-scheduler", io.BytesIO()) is None
            with pytest.raises(StreamNotCopied, match="could not be copied"):
                await put_stream_back(connection, STREAM, copied)  # it is there
    async with open_nats(place / "second", secrets=secrets, port=free_port(), users=USERS, log=place / "log") as server:
        async with open_streams(server.url, server.seed_file(USER), None) as connection:
            assert await put_stream_back(connection, STREAM, copied) == 20
        async with open_nats_bus(server.url, "admin", seed_file=server.seed_file("admin")) as bus:
            consumer = await _consumer(bus)
            await _append(server, 30, 32)
            assert [int(p.split()[0]) for p in await _payloads(consumer, 22)] == list(range(10, 32))


async def test_the_user_that_copies_may_do_nothing_else(place: Path, free_port: FindPort) -> None:
    async with open_nats(
        place / "nats", secrets=place / "secrets", port=free_port(), users=USERS, log=place / "log"
    ) as server:
        async with open_streams(server.url, server.seed_file(USER), None) as connection:
            with pytest.raises(StreamNotCopied):  # nobody answers what the server refuses
                await copy_stream(connection, "KV_forebay-leader", io.BytesIO())
        with pytest.raises(Unavailable, match="cannot be asked"):
            async with open_streams(f"nats://127.0.0.1:{free_port()}", server.seed_file(USER), None):
                pytest.fail("it is connected")
