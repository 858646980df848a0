"""A gateway in this process with all that it needs around it: real HTTP, real gRPC, fake engines, a bus in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from forebay.clock import SystemClock
from forebay.keys import ForebayKey
from forebay.memory_bus import MemoryBus
from forebay.ops import Ops
from forebay.rpc import open_server
from forebay.service import Ground
from forebay.subjects import USAGE_STREAM
from forebay.wire.v1 import types_pb2, usage_pb2
from forebay_gateway.config import GatewaySettings
from forebay_gateway.service import serving_gateway
from tests.fakes.engine import FakeEngine
from tests.gateway.doubles import TOKEN, AdminDouble, RegistryDouble, SchedulerDouble, add_to, authorize

PEPPER = b"a pepper for tests"
MODEL = "fake-model"
OUTCOME = types_pb2.Outcome.Name


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Say some words, please."}], **fields}


@dataclass
class House:
    settings: GatewaySettings
    admin: AdminDouble
    registry: RegistryDouble
    scheduler: SchedulerDouble
    bus: MemoryBus
    ops: Ops
    client: aiohttp.ClientSession
    key: ForebayKey
    engine_url: str = ""
    """Of the first engine."""
    url: str = ""
    gateway: AbstractAsyncContextManager[str] | None = None
    rows_read: list[usage_pb2.UsageRecord] = field(default_factory=list)
    servers: dict[str, AsyncExitStack] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    async def start_gateway(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)
        self.ops = Ops("gateway")
        ground = Ground("gateway", SystemClock(), self.ops, self.bus)
        self.gateway = serving_gateway(self.settings, ground)
        self.url = f"http://{await self.gateway.__aenter__()}"
        self.ops.ready("start")

    async def stop_gateway(self) -> None:
        gateway, self.gateway = self.gateway, None
        if gateway is not None:
            await gateway.__aexit__(None, None, None)

    async def wait_ready(self) -> None:
        await eventually(lambda: not self.ops.missing, lambda: f"not ready: {self.ops.missing}")

    async def put(self, backend_id: str, url: str, **changes: Any) -> None:
        """Adds or changes a backend, and waits until the gateway knows it. `changes`: as RegistryDouble.put."""
        self.registry.put(backend_id, url, **changes)
        if self.gateway is not None and "RegistryDouble" in self.servers:
            wanted = self.registry.version
            await eventually(
                lambda: self.metric("forebay_gateway_fleet_version") >= wanted, "the fleet is not heard of"
            )

    async def start_server(self, double: Any) -> str:
        """Gives the address; once more, at the same one."""
        name = type(double).__name__
        address = str(getattr(self.settings, f"{name.removesuffix('Double').lower()}_address"))
        stack = AsyncExitStack()
        listening = open_server(address, lambda server: add_to(server, double), authorize, grace_s=0)
        address = await stack.enter_async_context(listening)
        self.servers[name] = stack
        return address

    async def stop_server(self, double: Any) -> None:
        await self.servers.pop(type(double).__name__).aclose()

    def post(self, body: Any = None, **options: Any) -> Any:
        options.setdefault("headers", self.headers)
        if body is not None:
            options["json"] = body
        return self.client.post(f"{self.url}/v1/chat/completions", **options)

    async def rows(self, wanted: int, wait_s: float = 60.0) -> list[usage_pb2.UsageRecord]:
        """All rows so far, once there are that many; a moment later, for one too many."""
        consumer = await self.bus.consumer(USAGE_STREAM, "ledger")
        deadline = time.monotonic() + wait_s
        while len(self.rows_read) < wanted and time.monotonic() < deadline:
            await self._fetch(consumer, 0.1)
        await self._fetch(consumer, 0.05)
        assert len(self.rows_read) == wanted, self.rows_read
        return self.rows_read

    async def _fetch(self, consumer: Any, wait_s: float) -> None:
        for delivery in await consumer.fetch(100, wait_s):
            self.rows_read.extend(usage_pb2.UsageBatch.FromString(delivery.payload).records)
            await delivery.ack()

    def metric(self, series: str) -> float:
        """The value of one series, such as `forebay_gateway_running`; 0 when it was never counted."""
        for line in self.ops.metrics.exposition().decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name == series:
                return float(value)
        return 0.0


@asynccontextmanager
async def open_house(directory: Path, *engines: FakeEngine, **changes: Any) -> AsyncIterator[House]:
    """`changes`: of settings. Each engine is a backend `b1`, `b2` … with its own number of slots."""
    (directory / "token").write_text(TOKEN)
    (directory / "pepper").write_bytes(PEPPER)
    (directory / "seal").write_bytes(b"a key that seals snapshots")
    bus = MemoryBus(time.time)
    await bus.ensure_stream(USAGE_STREAM)
    async with AsyncExitStack() as stack:
        for engine in engines:
            await stack.enter_async_context(engine)
        admin, registry = AdminDouble(PEPPER), RegistryDouble()
        scheduler = SchedulerDouble({f"b{n}": engine.slots.total for n, engine in enumerate(engines, 1)})
        for number, engine in enumerate(engines, 1):
            is_llama = not engine.traits.cancels_plain
            kind = types_pb2.ENGINE_KIND_LLAMACPP if is_llama else types_pb2.ENGINE_KIND_VLLM
            registry.put(f"b{number}", engine.url, kind=kind, slots=engine.slots.total)
        settings = GatewaySettings(
            listen="127.0.0.1:0",
            token_file=directory / "token",
            pepper_file=directory / "pepper",
            snapshot_dir=directory / "snapshots",
            snapshot_key_file=directory / "seal",
            journal_dir=directory / "journal",
            nats_url="memory:",
            admin_address="127.0.0.1:0",
            registry_address="127.0.0.1:0",
            scheduler_address="127.0.0.1:0",
            drain_s=5.0,
            publish_s=1.0,
        )
        client = await stack.enter_async_context(aiohttp.ClientSession())
        house = House(settings, admin, registry, scheduler, bus, Ops("gateway"), client, admin.add_key())
        house.engine_url = engines[0].url if engines else ""
        addresses: dict[str, Any] = {
            f"{name}_address": await house.start_server(double)
            for name, double in (("admin", admin), ("registry", registry), ("scheduler", scheduler))
        }
        try:
            house.settings = replace(house.settings, **addresses)
            await house.start_gateway(**changes)
            await house.wait_ready()
            yield house
        finally:
            await house.stop_gateway()
            for server in house.servers.values():
                await server.aclose()


async def eventually(
    is_so: Callable[[], object], why: str | Callable[[], str] = "it never came about", within_s: float = 60.0
) -> float:
    """Waits until it is so; gives how long that took."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > within_s:
            raise AssertionError(why if isinstance(why, str) else why())
        await asyncio.sleep(0.002)
    return time.monotonic() - began
