"""What becomes of requests when an engine of the site dies: clients, a gateway and a scheduler that are real processes, and
engines that answer. Only admin is a double, which has one key for the gateway and is away for the scheduler."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from benchmarks.registry_parts import Part, sets_of
from benchmarks.registry_site import Site, serves
from benchmarks.targets import Target
from forebay.nats_bus import open_nats_bus
from forebay.rpc import open_server
from forebay.subjects import USAGE_STREAM
from forebay.wire.v1 import admin_pb2, types_pb2
from forebay.wire.v1 import registry_pb2 as wire
from tests.conftest import free_port
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.doubles import AdminDouble, add_to

ENGINES, SLOTS = 3, 4
CLIENTS = 6
AFTERWARDS_S = 1.0
"""Longer than the scheduler lets a backend rest that a request could not reach."""
MARKED_S = 0.5
"""For so long it rests; what is not marked by then may get the next request."""
_AT_ONCE = Pace(tokens_per_s=1000, ttft_s=0.0)
"""So that others ask on before the engine that died is marked."""
_PATIENCE_S = 180.0


@dataclass
class Answer:
    status: int
    attempts: int
    backend: str
    asked_at: float


@dataclass
class Requests:
    """Through one gateway, to engines that can be closed."""

    site: Site
    gateway: Part
    scheduler: Part
    url: str
    key: str
    engines: dict[str, FakeEngine] = field(default_factory=dict)
    _added: int = 0

    async def start(self) -> None:
        """One part after the other, until a request is answered."""
        await self.scheduler.start()
        # Ready it is when admin has told a policy, and never here.
        await self.scheduler.answers(self.site.client, "healthz")
        await self.gateway.start()
        await self.gateway.answers(self.site.client, "readyz")
        async with asyncio.timeout(_PATIENCE_S):
            while (await self.ask()).status != 200:
                await asyncio.sleep(0.1)

    async def ask(self) -> Answer:
        asked_at = time.monotonic()
        words = {"role": "user", "content": f"Some words, please: {secrets.token_hex(4)}."}
        async with self.site.client.post(
            f"{self.url}/v1/chat/completions",
            json={"model": "fake-model", "messages": [words], "max_tokens": 1},
            headers={"authorization": f"Bearer {self.key}"},
        ) as answer:
            await answer.read()
            told = answer.headers
        attempts, backend = int(told.get("x-forebay-attempts", 0)), told.get("x-forebay-backend", "")
        return Answer(answer.status, attempts, backend, asked_at)

    async def failed_attempts(self) -> float:
        """Those that another backend took over, by the gateway's own count."""
        return await self.site.reading(self.gateway, "forebay_gateway_attempts_failed_total") or 0.0

    async def add(self) -> None:
        """One more engine, which nobody knows from before: what fell often takes long to come back."""
        self._added += 1
        name, engine = f"answering-{self._added}", FakeEngine(slots=SLOTS, pace=_AT_ONCE)
        self.engines[name] = engine
        await engine.start()
        backend = wire.AddBackendRequest(actor="benchmark", name=name, url=engine.url, slots=SLOTS)
        await self.site.call("AddBackend", backend)

    async def close(self, name: str) -> None:
        """Its port refuses from now on."""
        await self.engines[name].stop()

    async def remove(self, name: str) -> None:
        await self.site.call("RemoveBackend", wire.RemoveBackendRequest(actor="benchmark", name=name))
        await self.engines.pop(name).stop()

    async def end(self) -> None:
        for name in list(self.engines):
            await self.remove(name)

    async def until_serving(self) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not all(name in self.site.watcher.fleet and self.serves(name) for name in self.engines):
                await asyncio.sleep(0.02)

    def serves(self, name: str) -> bool:
        return serves(self.site.watcher.fleet[name])


@asynccontextmanager
async def open_requests(site: Site) -> AsyncIterator[Requests]:
    """The engines are in the fleet until left; the processes can be started."""
    pepper = secrets.token_bytes(16)
    (site.work / "pepper").write_bytes(pepper)
    admin = AdminDouble(pepper)
    key = admin.add_key(role=admin_pb2.ROLE_ADMIN, band_cap=types_pb2.BAND_INTERACTIVE)
    async with AsyncExitStack() as stack:
        async with open_nats_bus(site.nats.url, "admin", seed_file=site.nats.seed_file("admin")) as bus:
            await bus.wait_connected()
            await bus.ensure_stream(USAGE_STREAM)
        address = await stack.enter_async_context(
            open_server(
                "127.0.0.1:0", lambda server: add_to(server, admin), lambda method, bearer: "gateway", grace_s=0
            )
        )
        scheduler_at, listen = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        scheduler = _part(site, "scheduler", "scheduler", admin_address="127.0.0.1:9", listen=scheduler_at)
        gateway = _part(
            site,
            "gateway",
            "gateway-1",
            admin_address=address,
            listen=listen,
            scheduler_address=scheduler_at,
            pepper_file=site.work / "pepper",
            journal_dir=site.work / "journal",
        )
        for part in (scheduler, gateway):
            stack.push_async_callback(part.end)
        requests = Requests(site, gateway, scheduler, f"http://{listen}", str(key))
        stack.push_async_callback(requests.end)
        for _ in range(ENGINES):
            await requests.add()
        yield requests


async def deaths_while_asked(requests: Requests, *, times: int) -> list[Target]:
    """An engine's port refuses, a request fails there, and others ask on."""
    await requests.start()
    again, failed, answered = 0.0, 0, 0
    marked: list[float] = []
    while len(marked) < times:
        await requests.until_serving()
        name = (await requests.ask()).backend  # the likeliest to get the next one
        before = await requests.failed_attempts()
        await requests.close(name)
        while (first := await requests.ask()).attempts < 2 and requests.serves(name):
            pass
        if first.attempts < 2:  # a look was there before any request
            await _replace(requests, name)
            continue
        statuses, marked_at = await _ask_on(requests, name)
        marked.append(marked_at - first.asked_at)
        again += await requests.failed_attempts() - before - 1
        failed += (first.status != 200) + statuses.total() - statuses[200]
        answered += statuses.total()
        await _replace(requests, name)
    how = (
        f"to an engine whose port refuses, after the first that failed there: {CLIENTS} clients, a gateway, a scheduler and "
        f"this registry, until it is marked and {AFTERWARDS_S:g} s longer; {times} deaths, {answered} requests"
    )
    return [
        Target("dead_backend_attempts_after_first", again, 0, "at most", "", how),
        Target("dead_backend_requests_failed", failed, 0, "at most", "", "requests that a client lost by it, then"),
        Target(
            "dead_backend_marked_after_request_s",
            max(marked),
            MARKED_S,
            "at most",
            "s",
            f"from the beginning of the request that failed there until watchers know, the longest of {times}",
        ),
    ]


async def _replace(requests: Requests, name: str) -> None:
    await requests.remove(name)
    await requests.add()


async def _ask_on(requests: Requests, dead: str) -> tuple[Counter[int], float]:
    """How many requests got which status until it was marked and a little longer; and when it was."""
    statuses: Counter[int] = Counter()
    is_over = asyncio.Event()

    async def client() -> None:
        while not is_over.is_set():
            statuses[(await requests.ask()).status] += 1

    async with asyncio.timeout(_PATIENCE_S), asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(client())
        while requests.serves(dead):
            await asyncio.sleep(0.005)
        marked_at = time.monotonic()
        await asyncio.sleep(AFTERWARDS_S)
        is_over.set()
    return statuses, marked_at


def _part(site: Site, service: str, user: str, **settings: object) -> Part:
    ops = f"127.0.0.1:{free_port()}"
    settings |= {
        "ops_listen": ops,
        "registry_address": ",".join(one.listen for one in site.pair.values()),
        "token_file": site.work / f"{service}.token",
        "nats_url": site.nats.url,
        "nats_seed_file": site.nats.seed_file(user),
        "snapshot_key_file": site.work / "snapshot.key",
        "snapshot_dir": site.work / f"snapshots-{user}",
    }
    if service == "scheduler":
        settings["callers_file"] = site.work / "callers"
    return Part(service=service, sets=sets_of(service, settings), ops=ops, log=site.work / f"{service}.log")
