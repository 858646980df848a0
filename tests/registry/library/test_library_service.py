"""The library inside a whole registry: gRPC, Postgres, probes and engines, all of them real but for the engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import BadInput, NotAllowed, NotFound, NotPossible, Unavailable
from forebay.rpc import open_peer, translated
from forebay.wire.v1 import library_pb2 as wire
from forebay.wire.v1 import telemetry_pb2
from forebay.wire.v1.library_pb2_grpc import ModelLibraryStub
from forebay_registry.library.opening import free_bytes
from forebay_registry.nodes.samples import Hearing, Sample
from tests.conftest import NatsServer, free_port
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_library import Layer, Library
from tests.registry.test_service import Caller, Place, calling, running

ALL = wire.BackendChoice(all=True)
PULL, PRELOAD, DELETE = wire.MODEL_ACTION_PULL, wire.MODEL_ACTION_PRELOAD, wire.MODEL_ACTION_DELETE
DONE, FAILED = wire.MODEL_JOB_STATE_DONE, wire.MODEL_JOB_STATE_FAILED


@pytest.fixture
def place(tmp_path: Path, registry_database_url: str, nats_server: NatsServer) -> Place:
    return Place(tmp_path, registry_database_url, f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", nats_server)


class Librarian:
    def __init__(self, stub: Any, metadata: Any) -> None:
        self._stub, self._metadata = stub, metadata

    async def __call__(self, method: str, request: Any) -> Any:
        with translated():
            return await getattr(self._stub, method)(request, metadata=self._metadata, timeout=10, wait_for_ready=True)

    async def order(self, action: Any, model: str, on: wire.BackendChoice = ALL) -> wire.ModelJob:
        """As soon as the registry leads."""
        request = wire.StartModelJobRequest(actor="ada", action=action, model=model, on=on)
        async with asyncio.timeout(30):
            while True:
                with suppress(Unavailable):
                    job: wire.ModelJob = (await self("StartModelJob", request)).job
                    return job
                await asyncio.sleep(0.1)

    async def done(self, job: wire.ModelJob) -> wire.ModelJob:
        async with asyncio.timeout(20):
            async for told in self._stub.FollowModelJob(
                wire.FollowModelJobRequest(id=job.id), metadata=self._metadata, wait_for_ready=True
            ):
                job = told
        return job


@asynccontextmanager
async def asking(place: Place, name: str = "admin") -> AsyncIterator[Librarian]:
    async with open_peer(place.listen, token=place.tokens[name]) as peer:
        yield Librarian(ModelLibraryStub(peer.channel), peer.metadata)


async def models(admin: Caller, name: str) -> list[str]:
    return [m.name for m in (await admin.backends())[name].models]


async def test_a_pulled_model_is_in_the_fleet_within_a_second_and_a_deleted_one_is_gone(place: Place) -> None:
    async with (
        FakeEngine(flavour=Flavour.OLLAMA, library=Library(("tiny",))) as engine,
        running(place.settings(probe_healthy_s=30.0, upkeep_s=0.2)),
        calling(place) as admin,
        asking(place) as library,
        admin.watching() as watch,
    ):
        await admin.add("one", engine.url)

        async def until_fleet_has(*names: str) -> float:
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with asyncio.timeout(10):
                while "one" not in watch.fleet or [m.name for m in watch.fleet["one"].models] != [*names]:
                    await asyncio.sleep(0.01)
            return loop.time() - began

        await until_fleet_has("tiny:latest")
        job = await library.done(await library.order(PULL, "llama"))
        assert (job.state, job.targets[0].total_bytes, job.actor) == (DONE, 1060, "ada")
        assert await until_fleet_has("llama:latest", "tiny:latest") < 1.0
        assert (await library.done(await library.order(DELETE, "llama"))).state == DONE
        assert await until_fleet_has("tiny:latest") < 1.0
        jobs = (await library("ListModelJobs", wire.ListModelJobsRequest())).jobs
        assert [(j.action, j.state) for j in jobs] == [(DELETE, DONE), (PULL, DONE)]

        on = wire.BackendChoice(backends=["one"])
        pinned = await library("PinModel", wire.PinModelRequest(actor="ada", model="tiny", on=on))
        assert [(p.backend, p.pinned_by) for p in pinned.after] == [("one", "ada")]
        async with asyncio.timeout(10):
            while engine.library.resident.get("tiny") != -1:
                await asyncio.sleep(0.01)
        described = (await library("DescribeModel", wire.DescribeModelRequest(model="tiny:latest"))).models
        assert [(d.backend, d.quantization, list(d.capabilities)) for d in described] == [
            ("one", "Q4_K_M", ["completion", "embedding"])
        ]
        for request, kind in (
            (wire.StartModelJobRequest(action=PULL, model="a/../b", on=ALL), BadInput),
            (wire.StartModelJobRequest(model="m", on=ALL), BadInput),
            (wire.StartModelJobRequest(action=PULL, model="m"), BadInput),
            (wire.StartModelJobRequest(action=PULL, model="m", on=wire.BackendChoice(backends=["x"])), NotFound),
            (wire.StartModelJobRequest(action=PRELOAD, model="m", on=on, source="a/b"), NotPossible),
        ):
            with pytest.raises(kind):
                await library("StartModelJob", request)
        with pytest.raises(NotFound):
            await library("CancelModelJob", wire.CancelModelJobRequest(id="mj-none"))
    async with running(place.settings()), asking(place, "gateway") as gateway:
        with pytest.raises(NotAllowed):
            await gateway("ListModelJobs", wire.ListModelJobsRequest())


async def test_what_a_pool_requires_is_pulled_and_what_is_pinned_is_loaded_again_by_itself(
    place: Place, eventually: Callable[..., Any]
) -> None:
    pools = ({"name": "default", "required_models": ["llama", "nosuch"]},)
    shelf = Library(("tiny",))
    shelf.missing.add("nosuch")
    shelf.layers = (Layer(500),)
    async with (
        FakeEngine(flavour=Flavour.OLLAMA, library=shelf) as engine,
        FakeEngine(flavour=Flavour.VLLM, models=("base",)) as other,
        running(place.settings(pools=pools, upkeep_s=0.1)),
        calling(place) as admin,
        asking(place) as library,
    ):
        await admin.add("one", engine.url)
        await admin.add("two", other.url)
        await eventually(lambda: "llama" in shelf.models)
        told: dict[str, list[str]] = {}

        async def look() -> None:
            nonlocal told
            told = {name: list(b.missing_models) for name, b in (await admin.backends()).items()}

        async with asyncio.timeout(10):
            while told != {"one": ["nosuch"], "two": ["llama", "nosuch"]}:
                await look()
                await asyncio.sleep(0.02)
        jobs = (await library("ListModelJobs", wire.ListModelJobsRequest())).jobs
        assert sorted((j.model, j.actor, j.state, [t.backend for t in j.targets]) for j in jobs) == [
            ("llama", "registry", DONE, ["one"]),
            ("nosuch", "registry", FAILED, ["one"]),
        ], "each was ordered once: one came, and the other rests"

        on = wire.BackendChoice(backends=["one"])
        await library("PinModel", wire.PinModelRequest(actor="ada", model="llama", on=on))
        await eventually(lambda: shelf.resident.get("llama") == -1)
        await eventually(lambda: len([1 for j in shelf.asked if j[0] == "/api/pull"]) == 2)
        shelf.resident.clear()
        await eventually(lambda: shelf.resident.get("llama") == -1)
        pins = (await library("ListModelPins", wire.ListModelPinsRequest())).pins
        assert [(p.backend, p.model) for p in pins] == [("one", "llama")]
        await library("PinModel", wire.PinModelRequest(actor="ada", model="llama", on=on, undo=True))
        await eventually(lambda: shelf.resident.get("llama") == "5m")
        with pytest.raises(NotFound, match="is not pinned there"):
            await library("PinModel", wire.PinModelRequest(actor="ada", model="llama", on=on, undo=True))


async def test_a_restart_of_the_registry_ends_no_pull(place: Place, eventually: Callable[..., Any]) -> None:
    shelf = Library(("tiny",))
    shelf.layers, shelf.pieces, shelf.every_s = (Layer(10_000),), 1000, 0.01
    async with FakeEngine(flavour=Flavour.OLLAMA, library=shelf) as engine:
        async with running(place.settings()), calling(place) as admin, asking(place) as library:
            await admin.add("one", engine.url)
            async with asyncio.timeout(10):
                while await models(admin, "one") != ["tiny:latest"]:
                    await asyncio.sleep(0.02)
            job = await library.order(PULL, "llama")
            await eventually(lambda: shelf.fetched_bytes > 100)
        shelf.every_s = 0.00001
        async with running(place.settings()), asking(place) as library:
            await eventually(lambda: "llama" in shelf.models)
            last = await library.done(job)
            assert (last.state, last.actor, last.targets[0].completed_bytes) == (DONE, "ada", 10_000)
    assert shelf.fetched_bytes == 10_000


def test_the_room_on_a_disk_is_known_from_a_fresh_sample_only() -> None:
    told = telemetry_pb2.TelemetrySample(host=telemetry_pb2.HostSample(disk_total_bytes=100, disk_free_bytes=40))
    sample = Sample("n", 1, 1, 1, told.SerializeToString())
    assert free_bytes(Hearing(sample, heard_at=1000.0), 1030.0) == 40
    assert free_bytes(Hearing(sample, heard_at=1000.0), 1100.0) is None
    assert free_bytes(Hearing(), 1000.0) is None
    told.host.disks.add(path="/models", total_bytes=1000, free_bytes=300)
    roomy = Sample("n", 1, 1, 1, told.SerializeToString())
    assert free_bytes(Hearing(roomy, heard_at=1000.0), 1000.0) == 300
    untold = Sample("n", 1, 1, 1, telemetry_pb2.TelemetrySample().SerializeToString())
    assert free_bytes(Hearing(untold, heard_at=1000.0), 1000.0) is None, "absent is not zero"
