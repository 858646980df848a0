"""The scheduler as a service on loopback: a registry and an admin that say what a test wants, and gateways that ask."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from forebay.clock import SystemClock
from forebay.ledger_id import new_ledger_id
from forebay.memory_bus import MemoryBus
from forebay.ops import Ops
from forebay.rpc import open_peer, open_server, render_tokens
from forebay.service import Ground
from forebay.subjects import USAGE_STREAM
from forebay.wire.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
    types_pb2,
)
from forebay_scheduler.config import SchedulerSettings
from forebay_scheduler.service import serving_scheduler

TOKENS = {name: f"token-of-{name}" for name in ("gateway", "scheduler", "admin", "registry")}


async def eventually(is_so: Callable[[], bool | Awaitable[bool]], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while True:
            so = is_so()
            if so if isinstance(so, bool) else await so:
                return
            await asyncio.sleep(0.01)


class _Told:
    """Updates for whoever watches, all of them again for each new watcher."""

    def __init__(self) -> None:
        self.updates: list[Any] = []
        self._changed = asyncio.Event()

    def tell(self, update: Any) -> None:
        self.updates.append(update)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def follow(self) -> AsyncIterator[Any]:
        for index in itertools.count():
            while index >= len(self.updates):
                await self._changed.wait()
            yield self.updates[index]


class RegistryDouble(registry_pb2_grpc.RegistryServicer):
    def __init__(self) -> None:
        self._told = _Told()
        self._version = 0

    def tell(self, *backends: registry_pb2.Backend, snapshot: bool = False, removed: tuple[str, ...] = ()) -> None:
        self._version += 1
        self._told.tell(
            registry_pb2.FleetUpdate(
                version=self._version, snapshot=snapshot, backends=backends, removed_backend_ids=removed
            )
        )

    def WatchFleet(self, request: Any, context: Any) -> AsyncIterator[registry_pb2.FleetUpdate]:
        return self._told.follow()


class AdminDouble(admin_pb2_grpc.AdminServicer):
    def __init__(self) -> None:
        self._told = _Told()

    def tell(self, update: admin_pb2.PolicyUpdate) -> None:
        self._told.tell(update)

    def begin_with(self, *users: admin_pb2.UserPolicy) -> None:
        """Its first word to whoever watches from now on: who has heard it knows these users."""
        self._told.updates = [admin_pb2.PolicyUpdate(version=1, snapshot=True, users=users)]

    def WatchPolicy(self, request: Any, context: Any) -> AsyncIterator[admin_pb2.PolicyUpdate]:
        return self._told.follow()


class GatewayDouble:
    """One session: says what a test wants, and keeps all that it is told."""

    def __init__(self, call: Any, name: str, generation: int) -> None:
        self.call = call
        self.name, self.generation = name, generation
        self.frames: list[scheduler_pb2.SchedulerFrame] = []
        self.grants: dict[bytes, scheduler_pb2.Grant] = {}
        self.rejects: dict[bytes, scheduler_pb2.Reject] = {}
        self.revokes: dict[bytes, str] = {}
        self.cutoffs: dict[bytes, str] = {}
        self.credits: list[scheduler_pb2.Credit] = []
        self.settled: set[bytes] = set()
        self.ceilings: dict[str, int] = {}
        self.is_over = False
        self.error: grpc.aio.AioRpcError | None = None
        self._seq = 0
        self._running: dict[bytes, tuple[str, int]] = {}
        """Backend and slots of what it was granted and has not ended."""
        self._writing = asyncio.Lock()

    async def hello(self, **truth: Any) -> None:
        for held in truth.get("held", ()):
            self._running[held.request.ledger_id] = held.backend_id, held.request.width
        hello = scheduler_pb2.Hello(gateway=self.name, generation=self.generation, **truth)
        await self.say(hello=hello)

    async def say(self, **parts: Any) -> None:
        for over in (*parts.get("settles", ()), *parts.get("cancels", ()), *parts.get("nacks", ())):
            self._running.pop(over.ledger_id, None)
        read = self.frames[-1].seq if self.frames else 0
        async with self._writing:
            self._seq += 1
            await self.call.write(scheduler_pb2.GatewayFrame(seq=self._seq, ack_seq=read, **parts))

    def _acks(self, frame: scheduler_pb2.SchedulerFrame) -> list[scheduler_pb2.CeilingAck]:
        acks = []
        for told in frame.ceilings:
            self.ceilings[told.backend_id] = told.slots
            held = sum(slots for backend, slots in self._running.values() if backend == told.backend_id)
            acks.append(scheduler_pb2.CeilingAck(backend_id=told.backend_id, version=told.version, held=held))
        return acks

    async def submit(self, user: str = "alice", count: int = 1, **fields: Any) -> list[bytes]:
        asked = [submit(user, **fields) for _ in range(count)]
        await self.say(submits=asked)
        return [one.ledger_id for one in asked]

    async def granted(self, *ledger_ids: bytes) -> list[scheduler_pb2.Grant]:
        await eventually(lambda: all(ledger_id in self.grants for ledger_id in ledger_ids))
        return [self.grants[ledger_id] for ledger_id in ledger_ids]

    def settle_of(self, ledger_id: bytes) -> scheduler_pb2.Settle:
        grant = self.grants[ledger_id]
        return scheduler_pb2.Settle(
            ledger_id=ledger_id,
            lease=grant.lease,
            epoch=self.frames[-1].epoch,
            backend_id=grant.backend_id,
            outcome=types_pb2.OUTCOME_FINISHED,
        )

    def held(self, ledger_id: bytes, **fields: Any) -> scheduler_pb2.Held:
        grant = self.grants[ledger_id]
        return scheduler_pb2.Held(
            request=submit(ledger_id=ledger_id, **fields),
            backend_id=grant.backend_id,
            lease=grant.lease,
            epoch=self.frames[-1].epoch,
            attempt=grant.attempt,
        )

    def acknowledged(self) -> list[scheduler_pb2.Ceiling]:
        """For its next Hello."""
        return [scheduler_pb2.Ceiling(backend_id=of, slots=slots) for of, slots in self.ceilings.items()]

    async def read(self) -> None:
        try:
            async for frame in self.call:
                self.frames.append(frame)
                if acks := self._acks(frame):
                    await self.say(ceiling_acks=acks)
                self._running.update({g.ledger_id: (g.backend_id, g.width) for g in frame.grants})
                self.grants.update({grant.ledger_id: grant for grant in frame.grants})
                self.rejects.update({reject.ledger_id: reject for reject in frame.rejects})
                self.cutoffs.update({cutoff.ledger_id: cutoff.reason for cutoff in frame.cutoffs})
                self.credits.extend(frame.credits)
                self.revokes.update({revoke.ledger_id: revoke.reason for revoke in frame.revokes})
                self.settled.update(frame.settled)
        except grpc.aio.AioRpcError as error:
            self.error = error
        finally:
            self.is_over = True


def submit(user: str = "alice", **fields: Any) -> scheduler_pb2.Submit:
    given = {"ledger_id": new_ledger_id(1.0), "model": "m", "user_id": user, "width": 1, **fields}
    return scheduler_pb2.Submit(**given)


def backend(name: str, slots: int = 1, **fields: Any) -> registry_pb2.Backend:
    given = {
        "pool": "default",
        "enabled": True,
        "health": registry_pb2.BACKEND_HEALTH_HEALTHY,
        "models": [registry_pb2.BackendModel(name="m")],
        **fields,
    }
    return registry_pb2.Backend(id=name, name=name, slots=slots, **given)


class House:
    """Everything around a scheduler, which can be started more than once."""

    def __init__(self, place: Path, registry_address: str, admin_address: str) -> None:
        self.clock = SystemClock()
        self.bus = MemoryBus(self.clock.now)
        self.registry = RegistryDouble()  # type: ignore[abstract]  # the scheduler calls nothing else of it
        self.admin = AdminDouble()  # type: ignore[abstract]
        self._place = place
        self.registry_address = registry_address
        self.admin_address = admin_address
        self.ops = Ops("scheduler")

    def settings(self, **changes: Any) -> SchedulerSettings:
        for name, text in {"token": TOKENS["scheduler"], "callers": render_tokens(TOKENS), "key": "k" * 32}.items():
            (self._place / name).write_text(text)
        given = {
            "listen": "127.0.0.1:0",
            "registry_address": self.registry_address,
            "admin_address": self.admin_address,
            "token_file": self._place / "token",
            "callers_file": self._place / "callers",
            "nats_url": "memory:",
            "snapshot_dir": self._place / "snapshots",
            "snapshot_key_file": self._place / "key",
            "heartbeat_s": 0.1,
            **changes,
        }
        return SchedulerSettings(**given)

    @asynccontextmanager
    async def scheduler(self, **changes: Any) -> AsyncIterator[str]:
        self.ops = Ops("scheduler")
        ground = Ground("scheduler", self.clock, self.ops, self.bus)
        async with serving_scheduler(self.settings(**changes), ground) as address:
            yield address

    @asynccontextmanager
    async def gateway(
        self, address: str, name: str = "g1", generation: int = 1, *, token: str = "gateway", **truth: Any
    ) -> AsyncIterator[GatewayDouble]:
        """A session that has said Hello; leaving breaks it off."""
        async with open_peer(address, token=TOKENS.get(token, token)) as peer:
            stub: Any = scheduler_pb2_grpc.SchedulerStub(peer.channel)
            gateway = GatewayDouble(stub.Session(metadata=peer.metadata), name, generation)
            reading = asyncio.create_task(gateway.read())
            try:
                with suppress(
                    grpc.aio.AioRpcError
                ):  # refused before all was written: the reading side keeps the reason
                    await gateway.hello(**truth)
                await eventually(lambda: bool(gateway.frames) or gateway.is_over)
                yield gateway
            finally:
                gateway.call.cancel()
                reading.cancel()
                await asyncio.wait([reading])

    @asynccontextmanager
    async def gateway_outliving_its_scheduler(self) -> AsyncIterator[GatewayDouble]:
        async with AsyncExitStack() as stack:
            scheduler = self.scheduler()
            address = await scheduler.__aenter__()
            gateway = await stack.enter_async_context(self.gateway(address))
            await scheduler.__aexit__(None, None, None)
            await eventually(lambda: gateway.is_over)
            yield gateway

    async def show(self, address: str) -> scheduler_pb2.ShowQueueResponse:
        async with open_peer(address, token=TOKENS["admin"]) as peer:
            stub: Any = scheduler_pb2_grpc.SchedulerStub(peer.channel)
            shown: scheduler_pb2.ShowQueueResponse = await stub.ShowQueue(
                scheduler_pb2.ShowQueueRequest(), metadata=peer.metadata, timeout=30
            )
            return shown


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        built = House(tmp_path, "", "")
        built.registry_address = await stack.enter_async_context(
            open_server(
                "127.0.0.1:0",
                lambda server: registry_pb2_grpc.add_RegistryServicer_to_server(built.registry, server),
                lambda method, bearer: "scheduler",
                grace_s=0,
            )
        )
        built.admin_address = await stack.enter_async_context(
            open_server(
                "127.0.0.1:0",
                lambda server: admin_pb2_grpc.add_AdminServicer_to_server(built.admin, server),
                lambda method, bearer: "scheduler",
                grace_s=0,
            )
        )
        await built.bus.ensure_stream(USAGE_STREAM)
        built.admin.tell(admin_pb2.PolicyUpdate(version=1, snapshot=True))
        yield built


@pytest.fixture
def make_backend() -> Callable[..., registry_pb2.Backend]:
    return backend


@pytest.fixture
def make_submit() -> Callable[..., scheduler_pb2.Submit]:
    return submit


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    return eventually
