"""Real Ollama fakes, and the jobs of a registry that knows them; what the rest of a registry does is done by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from forebay.clock import SystemClock
from forebay_registry.backend import BackendId, EngineKind, Model, NodeId
from forebay_registry.engines.probe import Target as Address
from forebay_registry.fleet.fleet import View
from forebay_registry.library.choosing import Choice
from forebay_registry.library.job import Action, Job, JobId
from forebay_registry.library.order import Order
from forebay_registry.library.runner import JobRunner
from forebay_registry.library.store import Pin
from forebay_registry.library.work import Work
from forebay_registry.links import open_session
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_library import Library
from tests.registry.library.views import NODE, view

GB = 10**9


class MemoryStore:
    """As LibraryStore, and gone with the test."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, Job] = {}
        self.held: list[Pin] = []

    async def add(self, job: Job) -> None:
        assert job.id not in self.jobs
        self.jobs[job.id] = job

    async def save(self, job: Job) -> None:
        assert job.id in self.jobs
        for target in job.targets:  # what no text in Postgres may have
            for text in (target.status, target.error, target.note):
                text.encode()
                assert "\0" not in text
        self.jobs[job.id] = job

    async def remove(self, job_id: JobId) -> None:
        self.jobs.pop(job_id, None)

    async def unfinished(self) -> tuple[Job, ...]:
        return tuple(job for job in self.jobs.values() if job.ended_at is None)

    async def newest(self, limit: int) -> tuple[Job, ...]:
        return tuple(sorted(self.jobs.values(), key=lambda job: -job.created_at)[:limit])

    async def get(self, job_id: JobId) -> Job | None:
        return self.jobs.get(job_id)

    async def forget(self, before: float) -> int:
        return 0


@dataclass
class Fleet:
    """Backends as a registry would see them if it looked at them now."""

    engines: dict[str, FakeEngine]
    kind: EngineKind = EngineKind.OLLAMA
    node_ids: dict[str, NodeId] = field(default_factory=lambda: {"gpu-box": NODE})
    more: dict[str, Any] = field(default_factory=dict)
    bearer: str | None = None
    is_one_node: bool = False
    looks: list[BackendId] = field(default_factory=list)

    def views(self) -> tuple[View, ...]:
        return tuple(
            view(
                name,
                *(Model(m, loaded=m in engine.library.resident) for m in sorted(engine.library.models)),
                **{"url": engine.url, "node_id": self._node_of(name), "kind": self.kind, **self.more},
            )
            for name, engine in self.engines.items()
        )

    def _node_of(self, name: str) -> NodeId:
        return NODE if self.is_one_node or name == "a" else NodeId(f"no-{name}")

    def address_of(self, backend_id: BackendId) -> Address | None:
        engine = self.engines.get(backend_id.removeprefix("be-"))
        return Address(engine.url, self.kind, self.bearer) if engine is not None else None

    def look_now(self, backend_id: BackendId) -> None:
        self.looks.append(backend_id)


@dataclass
class Yard:
    fleet: Fleet
    store: MemoryStore
    work: Work
    runner: JobRunner
    free: dict[NodeId, int]

    async def order(self, action: Action, model: str, *backends: str, **more: Any) -> Job:
        on = Choice(backends=backends) if backends else Choice(everywhere=True)
        job, _ = await self.runner.start(Order("ada", action, model, on, **more))
        return job

    async def done(self, job: Job) -> Job:
        """As it is in the end, read as somebody who follows it does."""
        async with asyncio.timeout(20):
            async for told in self.runner.follow(job.id):
                job = told
        return job

    async def after(self, action: Action, model: str, *backends: str, **more: Any) -> Job:
        return await self.done(await self.order(action, model, *backends, **more))

    @asynccontextmanager
    async def acting(self) -> AsyncIterator[None]:
        """While this registry acts."""
        running = asyncio.create_task(self.runner.run())
        try:
            async with asyncio.timeout(30):
                while self.runner._tasks is None:
                    await asyncio.sleep(0.001)
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def build(session: aiohttp.ClientSession, fleet: Fleet, **more: Any) -> Yard:
    free: dict[NodeId, int] = {}
    clock, store = SystemClock(), MemoryStore()
    work = Work(
        session,
        clock,
        **{
            "pulls_per_node": 2,
            "reserve_bytes": 10 * GB,
            "free_bytes": free.get,
            "node_name": lambda node_id: "gpu-box",
            **more,
        },
    )
    runner = JobRunner(fleet, work, store, clock, rest=lambda attempts: 0.01 if attempts < 3 else None)
    return Yard(fleet, store, work, runner, free)


@asynccontextmanager
async def open_yard(
    *names: str, shared: Library | None = None, flavour: Flavour = Flavour.OLLAMA, **engine: Any
) -> AsyncIterator[Yard]:
    """Ollama engines of these names, each with `tiny` and a node of its own, or on one node with a folder they share."""
    kinds = {Flavour.VLLM: EngineKind.VLLM, Flavour.SGLANG: EngineKind.SGLANG}
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        engines = {
            name: await stack.enter_async_context(
                FakeEngine(flavour=flavour, library=shared or Library(("tiny",)), **engine)
            )
            for name in names
        }
        fleet = Fleet(engines, kinds.get(flavour, EngineKind.OLLAMA), bearer=engine.get("api_key"))
        fleet.is_one_node = shared is not None
        yard = build(session, fleet)
        await stack.enter_async_context(yard.acting())
        yield yard


def fresh(yard: Yard, session: aiohttp.ClientSession) -> Yard:
    """The same place after a restart of the registry: only what was stored is left."""
    again = build(session, yard.fleet)
    return replace(again, store=yard.store, runner=JobRunner(yard.fleet, again.work, yard.store, SystemClock()))
