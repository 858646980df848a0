"""The gateway as a process of its own, with real NATS: it is killed, and not one row is missing or doubled."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from forebay.bus import Bus
from forebay.nats_bus import open_nats_bus
from forebay.subjects import USAGE_STREAM
from forebay.wire.v1 import usage_pb2
from tests.conftest import NatsServer, free_port
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.forebay.test_tls import write_pair
from tests.gateway.house import OUTCOME, House, ask, eventually, open_house
from tests.gateway.sse_text import events, text_of


@asynccontextmanager
async def gateway_process(
    house: House, nats: NatsServer, *flags: str, **more: object
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`forebay run gateway` with the settings of the house, at `house.url`."""
    settings = house.settings
    chosen: dict[str, object] = {
        name: getattr(settings, name)
        for name in (
            *("token_file", "pepper_file", "snapshot_dir", "snapshot_key_file", "journal_dir"),
            *("admin_address", "registry_address", "scheduler_address", "drain_s"),
        )
    }
    chosen |= {"listen": house.url.partition("//")[2], "ops_listen": f"127.0.0.1:{free_port()}"}
    chosen |= {"nats_url": nats.url, "nats_seed_file": nats.seed_file("gateway-1"), **more}
    sets = [part for name, value in chosen.items() for part in ("--set", f"gateway.{name}={value}")]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "forebay", "run", "gateway", *flags, *sets)
    try:
        await _wait_ready(house, str(chosen["ops_listen"]))
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _wait_ready(house: House, ops: str) -> None:
    told: object = None
    for _ in range(4800):
        try:
            async with house.client.get(f"http://{ops}/readyz") as answer:
                told = await answer.json()
                if answer.status == 200:
                    return
        except aiohttp.ClientError as error:
            told = error
        await asyncio.sleep(0.05)
    raise AssertionError(f"never ready: {told}")


@asynccontextmanager
async def admins_bus(nats: NatsServer) -> AsyncIterator[Bus]:
    async with open_nats_bus(nats.url, "admin", seed_file=nats.seed_file("admin")) as bus:
        await bus.wait_connected()
        await bus.ensure_stream(USAGE_STREAM)
        left_by_others = await bus.consumer(USAGE_STREAM, "ledger")
        while deliveries := await left_by_others.fetch(100, 0.2):
            for delivery in deliveries:
                await delivery.ack()
        yield bus


async def read_rows(bus: Bus, wanted: int) -> list[usage_pb2.UsageRecord]:
    consumer = await bus.consumer(USAGE_STREAM, "ledger")
    rows: list[usage_pb2.UsageRecord] = []
    for _ in range(40):
        for delivery in await consumer.fetch(100, 0.5):
            rows.extend(usage_pb2.UsageBatch.FromString(delivery.payload).records)
            await delivery.ack()
        if len(rows) >= wanted:
            break
    for delivery in await consumer.fetch(100, 0.5):
        rows.extend(usage_pb2.UsageBatch.FromString(delivery.payload).records)
        await delivery.ack()
    return rows


async def _stream(house: House, label: str, begun: asyncio.Event) -> list[Any]:
    text = ""
    async with house.post(ask(stream=True), headers={**house.headers, "x-request-id": label}) as answer:
        async for chunk in answer.content.iter_any():
            text += chunk.decode()
            if "word0" in text:
                begun.set()
    return events(text)


async def test_a_killed_gateway_loses_and_doubles_no_row(tmp_path: Path, nats_server: NatsServer) -> None:
    engine = FakeEngine(slots=4, pace=Pace(tokens_per_s=40, answer_tokens=60))
    async with open_house(tmp_path, engine) as house, admins_bus(nats_server) as bus:
        await house.stop_gateway()
        house.url = f"http://127.0.0.1:{free_port()}"
        async with gateway_process(house, nats_server) as process:
            begun = [asyncio.Event() for _ in range(6)]
            first = await _finish_one(house)
            streams = [asyncio.create_task(_stream(house, f"lost-{n}", begun[n])) for n in range(6)]
            await eventually(lambda: sum(event.is_set() for event in begun) == 4)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            broken = await asyncio.gather(*streams, return_exceptions=True)
            assert all(isinstance(one, aiohttp.ClientError) for one in broken)
            await eventually(lambda: engine.slots.running == 0)
        house.scheduler.held.clear()
        house.scheduler.queue.clear()
        async with gateway_process(house, nats_server):
            second = await _finish_one(house)
            generations = [hello.generation for hello in house.scheduler.hellos]
            assert generations[-1] == generations[0] + 2
            rows = await read_rows(bus, 8)
        # What was stored in the very moment of the kill may be published twice; the ledger knows a row by its id.
        rows = list({row.ledger_id: row for row in rows}.values())
        counted = Counter(row.request_id for row in rows)
        assert counted == {first: 1, second: 1, **{f"lost-{n}": 1 for n in range(6)}}
        lost = [row for row in rows if row.request_id.startswith("lost-")]
        assert {OUTCOME(row.outcome) for row in lost} == {"OUTCOME_GATEWAY_LOST"}
        assert {row.generation for row in lost} == {generations[0] + 1}


async def _finish_one(house: House) -> str:
    async with house.post(ask(max_tokens=2)) as answer:
        assert answer.status == 200
        return str(answer.headers["x-request-id"])


async def test_it_drains_on_sigterm_and_serves_https(tmp_path: Path, nats_server: NatsServer) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_pair(cert, key, "localhost")
    engine = FakeEngine(pace=Pace(tokens_per_s=40, answer_tokens=40))
    async with open_house(tmp_path, engine) as house, admins_bus(nats_server) as bus:
        await house.stop_gateway()
        house.url = f"https://127.0.0.1:{free_port()}"
        begun = asyncio.Event()
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as client,
            gateway_process(house, nats_server, tls_cert=cert, tls_key=key) as process,
        ):
            house.client = client
            streaming = asyncio.create_task(_stream(house, "drained", begun))
            await begun.wait()
            process.terminate()
            assert "word39" in text_of(await streaming)
            assert await asyncio.wait_for(process.wait(), 10) == 0
        rows = await read_rows(bus, 1)
        assert [(row.request_id, OUTCOME(row.outcome)) for row in rows] == [("drained", "OUTCOME_FINISHED")]
