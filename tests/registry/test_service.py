"""The registry whole: real gRPC, real Postgres, real NATS, fake engines, and an admin that only tells credentials."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest

from forebay import subjects
from forebay.clock import SystemClock
from forebay.errors import AlreadyExists, BadInput, ForebayError, NotAllowed, NotAuthenticated, NotFound, Unavailable
from forebay.local.nats import public_key
from forebay.memory_bus import MemoryBus
from forebay.nats_bus import open_nats_bus
from forebay.nats_rights import render_agents
from forebay.ops import Ops
from forebay.registries import FleetStream, open_registries
from forebay.rpc import Peer, ServiceTokens, open_peer, open_server, render_tokens, translated
from forebay.service import Ground
from forebay.wire.v1 import fleet_pb2
from forebay.wire.v1 import registry_pb2 as wire
from forebay.wire.v1 import types_pb2 as words
from forebay.wire.v1.admin_pb2 import BackendCredential, CredentialsUpdate
from forebay.wire.v1.admin_pb2_grpc import AdminServicer, add_AdminServicer_to_server
from forebay.wire.v1.registry_pb2_grpc import RegistryStub
from forebay.wire.v1.telemetry_pb2 import HostSample, TelemetrySample
from forebay_registry.config import RegistrySettings
from forebay_registry.service import open_registry, service
from tests.conftest import NatsServer, free_port
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour

HEALTHY, UNHEALTHY = wire.BACKEND_HEALTH_HEALTHY, wire.BACKEND_HEALTH_UNHEALTHY
CALLERS = ("gateway", "scheduler", "admin", "up", "registry")


@dataclass
class Place:
    """The files and addresses of one registry, as `forebay up` lays them out."""

    folder: Path
    database_url: str
    listen: str
    admin: str
    nats: NatsServer
    tokens: dict[str, str] = field(default_factory=lambda: {name: secrets.token_hex(16) for name in CALLERS})

    def __post_init__(self) -> None:
        (self.folder / "callers").write_text(render_tokens(self.tokens))
        (self.folder / "token").write_text(self.tokens["registry"])
        (self.folder / "snapshot.key").write_text(secrets.token_hex(32))

    def settings(self, **more: Any) -> RegistrySettings:
        usual: dict[str, Any] = {
            "listen": self.listen,
            "admin_address": self.admin,
            "token_file": self.folder / "token",
            "callers_file": self.folder / "callers",
            "nats_url": self.nats.url,
            "nats_seed_file": self.nats.seed_file("registry"),
            "database_url": self.database_url,
            "snapshot_key_file": self.folder / "snapshot.key",
            "snapshot_dir": self.folder / "snapshots",
            "telemetry_flush_s": 0.1,
            "probe_healthy_s": 0.2,
            "probe_doubt_s": 0.1,
        }
        return RegistrySettings(**{**usual, **more})


@pytest.fixture
def place(tmp_path: Path, registry_database_url: str, nats_server: NatsServer) -> Place:
    return Place(tmp_path, registry_database_url, f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", nats_server)


@asynccontextmanager
async def running(settings: RegistrySettings) -> AsyncIterator[Ops]:
    """A registry in this process."""
    clock = SystemClock()
    ops = Ops("registry")
    async with open_registry(settings, Ground("registry", clock, ops, MemoryBus(clock.now))):
        ops.ready("start")
        yield ops


class Caller:
    def __init__(self, peer: Peer) -> None:
        self._stub = RegistryStub(peer.channel)
        self._metadata = peer.metadata

    async def __call__(self, method: str, request: Any) -> Any:
        with translated():
            return await getattr(self._stub, method)(request, metadata=self._metadata, timeout=60, wait_for_ready=True)

    async def add(self, name: str, url: str, **more: Any) -> wire.AddBackendResponse:
        request = wire.AddBackendRequest(actor="ada", name=name, url=url, **more)
        while True:
            try:
                response: wire.AddBackendResponse = await self("AddBackend", request)
            except Unavailable as error:
                if "does not know the fleet yet" not in str(error):
                    raise
                await asyncio.sleep(0.05)  # it has just started
                continue
            return response

    async def backends(self) -> dict[str, wire.Backend]:
        return {b.name: b for b in (await self("ListBackends", wire.ListBackendsRequest())).backends}

    async def nodes(self) -> dict[str, wire.Node]:
        return {n.name: n for n in (await self("ListNodes", wire.ListNodesRequest())).nodes}

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[FleetWatch]:
        watch = FleetWatch(
            self._stub.WatchFleet(wire.WatchFleetRequest(), metadata=self._metadata, wait_for_ready=True)
        )
        try:
            yield watch
        finally:
            await watch.close()


class FleetWatch:
    """What a gateway does with the stream: a snapshot replaces, a delta changes."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.updates: list[wire.FleetUpdate] = []
        self.fleet: dict[str, wire.Backend] = {}
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for update in self._call:
                self.updates.append(update)
                ids = set(update.removed_backend_ids)
                kept = {} if update.snapshot else {n: b for n, b in self.fleet.items() if b.id not in ids}
                changed = {b.id for b in update.backends}
                self.fleet = {n: b for n, b in kept.items() if b.id not in changed} | {
                    b.name: b for b in update.backends
                }
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise

    async def close(self) -> None:
        self._call.cancel()
        await asyncio.wait([self._reading])

    def health(self, name: str) -> int | None:
        return self.fleet[name].health if name in self.fleet else None


@asynccontextmanager
async def calling(place: Place, name: str = "admin") -> AsyncIterator[Caller]:
    async with open_peer(place.listen, token=place.tokens[name]) as peer:
        yield Caller(peer)


class CredentialDesk(AdminServicer):
    """As much of admin as the registry calls."""

    def __init__(self) -> None:
        self.updates: asyncio.Queue[CredentialsUpdate] = asyncio.Queue()
        self.known_versions: list[int] = []

    async def WatchCredentials(self, request: Any, context: Any) -> AsyncIterator[CredentialsUpdate]:
        self.known_versions.append(request.known_version)
        while True:
            yield await self.updates.get()

    def WatchPrincipals(self, request: Any, context: Any) -> Any:
        raise AssertionError("the registry has no use for principals")

    def WatchPolicy(self, request: Any, context: Any) -> Any:
        raise AssertionError("the registry has no use for policy")

    def WatchModelRules(self, request: Any, context: Any) -> Any:
        raise AssertionError("the registry has no use for rules of models")

    def tell(self, backend_id: str, bearer: str) -> None:
        credential = BackendCredential(backend_id=backend_id, bearer=bearer)
        self.updates.put_nowait(CredentialsUpdate(version=1, snapshot=True, credentials=[credential]))


@asynccontextmanager
async def admin_of(place: Place) -> AsyncIterator[CredentialDesk]:
    desk = CredentialDesk()
    tokens = ServiceTokens(
        place.folder / "callers", {"/forebay.wire.v1.Admin/WatchCredentials": frozenset({"registry"})}
    )
    async with open_server(place.admin, lambda s: add_AdminServicer_to_server(desk, s), tokens, grace_s=0.1):
        yield desk


async def test_an_added_backend_is_in_everyones_fleet_within_a_second_with_models_and_slots(
    place: Place, eventually: Callable[..., Any]
) -> None:
    async with (
        FakeEngine(flavour=Flavour.LLAMA_CPP, slots=3, context_tokens=2048, models=("m",)) as engine,
        running(place.settings()),
        calling(place) as admin,
        calling(place, "gateway") as gateway,
        calling(place, "scheduler") as scheduler,
        gateway.watching() as one,
        scheduler.watching() as other,
    ):
        await eventually(lambda: one.updates and other.updates)
        assert one.updates[0].snapshot
        assert len(one.updates[0].backends) == 0
        began = asyncio.get_running_loop().time()
        added = await admin.add("local", f"{engine.url}/v1")
        assert added.created
        await eventually(lambda: one.health("local") == other.health("local") == HEALTHY)
        assert asyncio.get_running_loop().time() - began < 10
        local = one.fleet["local"]
        assert (local.id, local.url, local.pool, local.slots) == (added.backend.id, engine.url, "default", 3)
        assert local.kind == words.ENGINE_KIND_LLAMACPP
        assert [(m.name, m.context_length) for m in local.models] == [("m", 2048)]
        assert (local.load.running, local.load.waiting) == (0, 0)
        assert not local.load.HasField("kv_used_fraction"), "what the engine does not tell is absent"
        models = (await admin("ListModels", wire.ListModelsRequest())).models
        assert [(m.name, m.healthy_backends, list(m.backends)) for m in models] == [("m", 1, ["local"])]


async def test_what_an_engine_calls_the_fleets_models_is_told_and_outlives_the_registry(
    place: Place, eventually: Callable[..., Any]
) -> None:
    async with FakeEngine(models=("meta/llama", "other")) as engine:
        async with running(place.settings()), calling(place) as admin, admin.watching() as watch:
            await admin.add("local", engine.url, model_names={"llama": "meta/llama"})
            await eventually(lambda: watch.health("local") == HEALTHY)
            told = {m.name: m.engine_name for m in watch.fleet["local"].models}
            assert told == {"llama": "meta/llama", "other": ""}
            request = wire.NameModelsRequest(actor="ada", name="local", put={"theirs": "other"}, removed=["llama"])
            changed = (await admin("NameModels", request)).backend
            assert dict(changed.model_names) == {"theirs": "other"}
            await eventually(lambda: [m.name for m in watch.fleet["local"].models] == ["meta/llama", "theirs"])
            models = (await admin("ListModels", wire.ListModelsRequest())).models
            assert [m.name for m in models] == ["meta/llama", "theirs"]
            with pytest.raises(NotFound, match="no name of its own for llama"):
                await admin("NameModels", wire.NameModelsRequest(name="local", removed=["llama"]))
            with pytest.raises(NotFound, match="There is no backend 'nobody'"):
                await admin("NameModels", wire.NameModelsRequest(name="nobody", put={"a": "b"}))
        async with running(place.settings()), calling(place) as admin:
            assert dict((await admin.backends())["local"].model_names) == {"theirs": "other"}


async def test_a_dead_engine_is_told_and_a_removed_one_is_gone(place: Place, eventually: Callable[..., Any]) -> None:
    async with running(place.settings()), calling(place) as admin, admin.watching() as watch:
        async with FakeEngine() as engine:
            await admin.add("local", engine.url)
            await eventually(lambda: watch.health("local") == HEALTHY)
            models = len(watch.fleet["local"].models)
        await eventually(lambda: watch.health("local") == UNHEALTHY)
        assert watch.fleet["local"].health_reason.startswith("Nothing listens at 127.0.0.1:")
        assert len(watch.fleet["local"].models) == models
        removed = await admin("RemoveBackend", wire.RemoveBackendRequest(actor="ada", name="local"))
        assert removed.backend.name == "local"
        await eventually(lambda: not watch.fleet)
        versions = [update.version for update in watch.updates]
        assert versions == sorted(set(versions))
        assert {update.term_us for update in watch.updates} == {watch.updates[0].term_us}
        assert sum(update.snapshot for update in watch.updates) == 1


async def test_wrong_orders_are_refused_in_clear_sentences(place: Place) -> None:
    async with running(place.settings()), calling(place) as admin:
        await admin.add("one", "http://127.0.0.1:1")
        assert not (await admin.add("one", "http://127.0.0.1:1/")).created
        for request, kind, sentence in (
            ({"name": "one", "url": "http://127.0.0.1:2"}, AlreadyExists, "say replace to change it"),
            ({"name": "two", "url": "http://127.0.0.1:1"}, AlreadyExists, "an engine can be registered once"),
            ({"name": "two", "url": "127.0.0.1:2"}, BadInput, "must begin with http://"),
            ({"name": "t w o", "url": "http://x"}, BadInput, "cannot be the name of a backend"),
            ({"name": "two", "url": "http://x", "node": "nowhere"}, NotFound, "There is no node 'nowhere'"),
        ):
            with pytest.raises(kind, match=sentence):
                await admin.add(**request)
        with pytest.raises(NotFound, match=r"There is no backend 'two'\. There are: one\."):
            await admin("RemoveBackend", wire.RemoveBackendRequest(actor="ada", name="two"))
        changed = await admin.add("one", "http://127.0.0.1:3", slots=9, pool="lab", replace=True)
        assert (changed.created, changed.backend.slots, changed.backend.pool) == (False, 9, "lab")
        assert list(await admin.backends()) == ["one"]


async def test_each_method_is_for_those_who_need_it(place: Place) -> None:
    async with running(place.settings()):
        for name, may_watch in (("gateway", True), ("scheduler", True), ("admin", True), ("up", False)):
            async with calling(place, name) as caller, open_peer(place.listen, token=place.tokens[name]) as peer:
                stream: Any = RegistryStub(peer.channel).WatchFleet(wire.WatchFleetRequest(), metadata=peer.metadata)
                if may_watch:
                    assert (await stream.read()).snapshot
                else:
                    with pytest.raises(NotAllowed), translated():
                        await stream.read()
                stream.cancel()
                if name != "admin":
                    with pytest.raises(NotAllowed):
                        await caller.backends()
        async with open_peer(place.listen) as nobody:
            with pytest.raises(NotAuthenticated):
                await Caller(nobody).backends()
        async with open_peer(place.listen, token="guess") as stranger:
            with pytest.raises(NotAuthenticated):
                await Caller(stranger).backends()


async def test_a_restart_begins_a_new_term_with_what_was_known_and_without_a_dip(
    place: Place, eventually: Callable[..., Any]
) -> None:
    async with FakeEngine(models=("m",)) as engine:
        async with running(place.settings()), calling(place) as admin, admin.watching() as watch:
            await admin.add("local", engine.url, slots=2)
            await eventually(lambda: watch.health("local") == HEALTHY)
            before = watch.fleet["local"]
            term = watch.updates[0].term_us
        async with running(place.settings()), calling(place, "gateway") as gateway, gateway.watching() as watch:
            await eventually(lambda: watch.updates)
            first = watch.updates[0]
            assert first.snapshot
            assert first.term_us > term
            assert [(b.id, b.health, b.slots) for b in first.backends] == [(before.id, HEALTHY, 2)]


async def test_with_a_dead_engine_the_first_snapshot_waits_no_longer_than_it_should(
    place: Place, eventually: Callable[..., Any]
) -> None:
    async with running(place.settings()), calling(place) as admin:
        await admin.add("hung", "http://127.0.0.1:1")
    settings = place.settings(settle_s=0.3)
    async with running(settings), calling(place, "gateway") as gateway, gateway.watching() as watch:
        await eventually(lambda: watch.updates)
        assert watch.updates[0].backends[0].health != HEALTHY


async def test_the_credential_comes_from_admin_reaches_the_engine_and_is_never_told(
    place: Place, eventually: Callable[..., Any]
) -> None:
    async with FakeEngine(flavour=Flavour.VLLM, api_key="engine-secret") as engine:
        async with running(place.settings()), calling(place) as admin, admin.watching() as watch:
            added = await admin.add("paid", engine.url)
            await eventually(lambda: watch.health("paid") == UNHEALTHY)
            assert "does not accept the credential" in watch.fleet["paid"].health_reason
            assert not watch.fleet["paid"].has_credential
            async with admin_of(place) as desk:
                desk.tell(added.backend.id, "engine-secret")
                await eventually(lambda: watch.health("paid") == HEALTHY)
                assert watch.fleet["paid"].has_credential
            assert all(b"engine-secret" not in update.SerializeToString() for update in watch.updates)
            await eventually(lambda: (place.folder / "snapshots" / "registry-credentials.snapshot").exists())

        # Admin is away now, and stays so: the sealed snapshot serves.
        async with running(place.settings()), calling(place) as admin, admin.watching() as watch:
            await eventually(lambda: watch.health("paid") == HEALTHY)
        for file in (place.folder / "snapshots").iterdir():
            assert b"engine-secret" not in file.read_bytes()
            assert file.stat().st_mode & 0o077 == 0


async def test_a_withdrawn_credential_is_not_used_any_more(place: Place, eventually: Callable[..., Any]) -> None:
    async with (
        FakeEngine(flavour=Flavour.VLLM, api_key="engine-secret") as engine,
        admin_of(place) as desk,
        running(place.settings()),
        calling(place) as admin,
        admin.watching() as watch,
    ):
        added = await admin.add("paid", engine.url)
        desk.tell(added.backend.id, "engine-secret")
        await eventually(lambda: watch.health("paid") == HEALTHY)
        desk.updates.put_nowait(CredentialsUpdate(version=2, removed_backend_ids=[added.backend.id]))
        await eventually(lambda: watch.health("paid") == UNHEALTHY)
        assert not watch.fleet["paid"].has_credential


async def test_each_time_admin_returns_all_credentials_are_asked_for_anew(
    place: Place, eventually: Callable[..., Any]
) -> None:
    async with (
        FakeEngine(flavour=Flavour.VLLM, api_key="new-secret") as engine,
        running(place.settings()) as ops,
        calling(place) as admin,
        admin.watching() as watch,
    ):

        def is_following() -> bool:
            return "forebay_registry_credentials_following 1.0" in ops.metrics.exposition().decode()

        added = await admin.add("paid", engine.url)
        assert not is_following()
        async with admin_of(place) as desk:
            desk.tell(added.backend.id, "old-secret")
            await eventually(is_following)
        await eventually(lambda: not is_following())
        assert watch.fleet["paid"].has_credential, "the last known stays"
        assert not ops.missing
        async with admin_of(place) as desk:
            desk.tell(added.backend.id, "new-secret")
            await eventually(lambda: watch.health("paid") == HEALTHY)
            assert is_following()
            assert desk.known_versions == [0], "no version is compared across a restore of admin's database"


async def test_backends_of_the_configuration_are_there_at_every_start(
    place: Place, eventually: Callable[..., Any]
) -> None:
    async with FakeEngine(flavour=Flavour.VLLM) as engine:
        table = {"name": "own", "url": engine.url}
        odd = {"name": "odd", "url": "http://169.254.169.254"}
        pools = ({"name": "lab", "hosts": ["lab.example.com"]},)
        for slots, version in ((2, 1), (5, 2), (5, 2)):
            settings = place.settings(backends=({**table, "slots": slots}, odd), pools=pools)
            async with running(settings), calling(place) as admin, admin.watching() as watch:
                await eventually(lambda: watch.health("own") == HEALTHY)
                await eventually(lambda expected=slots: watch.fleet["own"].slots == expected)
                assert list(await admin.backends()) == ["own"], "what cannot be is left out and told in the log"
                told = [update.pools for update in watch.updates if update.pools_changed]
                assert [pool.name for pool in told[-1]] == ["lab"]
                wanted = await admin("ReadFleet", fleet_pb2.ReadFleetRequest())
                assert wanted.version == version
                assert list(wanted.declared) == ["backends.own", "backends.odd", "pools.lab"]


async def test_samples_of_an_enrolled_node_are_listed_and_kept_and_a_stranger_is_not_heard(
    place: Place, eventually: Callable[..., Any]
) -> None:
    seeds = {node: place.folder / f"{node}.nk" for node in ("gpu-1", "gpu-2")}
    place.nats.agents_file.write_text(render_agents((node, public_key(seed)) for node, seed in seeds.items()))
    async with AsyncExitStack() as stack:
        ops = await stack.enter_async_context(running(place.settings()))
        admin = await stack.enter_async_context(calling(place))
        enrolled = (await admin("EnrolNode", wire.EnrolNodeRequest(actor="ada", name="gpu-1"))).node
        again = (await admin("EnrolNode", wire.EnrolNodeRequest(actor="bob", name="gpu-1"))).node
        assert again.id == enrolled.id
        assert not enrolled.HasField("heard_at_us")
        agents = {
            node: await stack.enter_async_context(open_nats_bus(place.nats.url, node, seed_file=seed))
            for node, seed in seeds.items()
        }
        for agent in agents.values():
            await asyncio.wait_for(agent.wait_connected(), 10)

        sequence = 0
        async with asyncio.timeout(10):
            while not (await admin.nodes())["gpu-1"].samples:
                sequence += 1
                for node, agent in agents.items():
                    sample = TelemetrySample(
                        node=node, sequence=sequence, agent_started_us=7, host=HostSample(cpu_count=64)
                    )
                    await agent.publish(subjects.telemetry(node), sample.SerializeToString())
                await asyncio.sleep(0.05)
        heard = (await admin.nodes())["gpu-1"]
        assert heard.last_sample.host.cpu_count == 64
        assert heard.heard_at_us > enrolled.enrolled_at_us
        lost = TelemetrySample(node="gpu-1", sequence=sequence + 5, agent_started_us=7)
        await agents["gpu-1"].publish(subjects.telemetry("gpu-1"), lost.SerializeToString())
        async with asyncio.timeout(30):
            while (await admin.nodes())["gpu-1"].samples_lost != 4:
                await asyncio.sleep(0.02)
        assert list(await admin.nodes()) == ["gpu-1"]
        text = ops.metrics.exposition().decode()
        assert 'forebay_registry_samples_dropped_total{reason="not_enrolled"}' in text
        assert "forebay_registry_samples_lost_total 4.0" in text

    connection = await asyncpg.connect(place.database_url)
    assert await connection.fetchval("SELECT sequence FROM registry.last_samples") == sequence + 5
    told = await connection.fetch(
        "SELECT name, sum(samples[2]) AS samples FROM registry.history_minutes "
        "JOIN registry.history_series ON id = series_id WHERE kind = 'node' GROUP BY name"
    )
    # The last of them may have been heard after the registry knew its tables, and the first before it.
    assert [row["name"] for row in told] == ["gpu-1"]
    assert 1 <= told[0]["samples"] <= sequence + 1, "what it was in the middle of is written when it stops"
    await connection.close()


async def test_a_registry_that_starts_before_postgres_is_not_ready_and_says_what_it_waits_for(place: Place) -> None:
    url = f"postgresql://forebay:x@127.0.0.1:{free_port()}/forebay"
    async with running(place.settings(database_url=url)) as ops, calling(place) as admin:
        async with asyncio.timeout(30):
            while "Postgres cannot be reached" not in ops.missing.get("the wanted fleet", ""):
                await asyncio.sleep(0.02)
        assert ops.answer("/readyz")[0] == 503
        with pytest.raises(Unavailable, match="does not know the fleet yet"):
            await admin.backends()
        async with admin.watching() as watch:
            await asyncio.sleep(0.1)
            assert watch.updates == [], "an empty fleet would tell watchers that everything is gone"


async def test_a_registry_without_nats_or_admin_is_ready_all_the_same(
    place: Place, eventually: Callable[..., Any]
) -> None:
    settings = place.settings(nats_url=f"nats://127.0.0.1:{free_port()}")
    async with running(settings) as ops, calling(place) as admin:
        await eventually(lambda: not ops.missing)
        await admin.add("one", "http://127.0.0.1:1")
        text = ops.metrics.exposition().decode()
        assert "forebay_registry_bus_connected 0.0" in text
        assert "forebay_registry_postgres_in_step 1.0" in text


class Gate:
    """A way to Postgres that a test closes and opens."""

    def __init__(self, url: str) -> None:
        host, _, port = url.rpartition("@")[2].partition("/")[0].partition(":")
        self._to = host, int(port)
        self.port = free_port()
        self.url = url.replace(f"{host}:{port}", f"127.0.0.1:{self.port}")
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._open:
            writer.transport.abort()
        if self._pumps:
            await asyncio.wait(self._pumps)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection(*self._to)
        self._open |= {writer, upstream}
        for source, sink in ((reader, upstream), (upstream_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(65536):
                sink.write(chunk)
                await sink.drain()
        except ConnectionError:
            return
        finally:
            self._open.discard(sink)
            sink.transport.abort()


@pytest.fixture
async def gate(place: Place) -> AsyncIterator[Gate]:
    gate = Gate(place.database_url)
    await gate.open()
    yield gate
    await gate.close()


async def test_while_postgres_is_away_the_fleet_goes_on_from_memory_and_changes_are_unavailable(
    place: Place, gate: Gate, eventually: Callable[..., Any]
) -> None:
    settings = place.settings(database_url=gate.url, reload_s=0.3)
    async with running(settings) as ops, calling(place) as admin, admin.watching() as watch:
        async with FakeEngine() as engine:
            await admin.add("local", engine.url)
            await eventually(lambda: watch.health("local") == HEALTHY)
            await gate.close()
            with pytest.raises(Unavailable, match="Postgres"):
                await admin.add("other", "http://127.0.0.1:1")
            with pytest.raises(Unavailable):
                await admin("EnrolNode", wire.EnrolNodeRequest(actor="ada", name="gpu-1"))
            assert list(await admin.backends()) == ["local"]
        await eventually(lambda: watch.health("local") == UNHEALTHY)
        async with admin.watching() as late:
            await eventually(lambda: late.health("local") == UNHEALTHY)
        assert ops.answer("/readyz")[0] == 200
        await eventually(lambda: "postgres_in_step 0.0" in ops.metrics.exposition().decode())

        await gate.open()
        async with asyncio.timeout(10):
            while True:
                try:
                    await admin.add("other", "http://127.0.0.1:1")
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
        await eventually(lambda: "other" in watch.fleet)


async def test_with_postgres_away_at_the_start_the_last_fleet_is_started_from_and_corrected_later(
    place: Place, gate: Gate, eventually: Callable[..., Any]
) -> None:
    settings = place.settings(database_url=gate.url, reload_s=0.3)
    async with FakeEngine() as engine:
        async with running(settings), calling(place) as admin:
            await admin.add("local", engine.url, slots=3)
            await admin.add("old", "http://127.0.0.1:1")
            await asyncio.sleep(0.6)
        await gate.close()
        connection = await asyncpg.connect(place.database_url)
        await connection.execute("DELETE FROM registry.backends WHERE name = 'old'")
        await connection.close()

        async with running(settings) as ops, calling(place) as admin, admin.watching() as watch:
            await eventually(lambda: watch.health("local") == HEALTHY)
            assert set(watch.fleet) == {"local", "old"}
            assert watch.fleet["local"].slots == 3
            assert not ops.missing
            with pytest.raises(Unavailable, match="from its last snapshot; changes wait"):
                await admin.add("other", "http://127.0.0.1:2")
            await gate.open()
            await eventually(lambda: set(watch.fleet) == {"local"})
            await admin.add("other", "http://127.0.0.1:2")


async def test_of_two_registries_one_acts_and_the_other_takes_over_without_a_dip(
    place: Place, eventually: Callable[..., Any]
) -> None:
    second = replace(place, folder=place.folder, listen=f"127.0.0.1:{free_port()}")
    (place.folder / "admin.token").write_text(place.tokens["admin"])
    async with (
        FakeEngine(models=("m",), slots=2) as engine,
        AsyncExitStack() as first,
        open_registries(
            f"{place.listen}, {second.listen}", token_file=place.folder / "admin.token", setting="test"
        ) as both,
    ):
        await first.enter_async_context(running(place.settings()))
        admin = Caller(both.leading)
        added = (await admin.add("local", engine.url, slots=2)).backend
        async with running(second.settings()) as ops, calling(second) as other, other.watching() as watch:
            await eventually(lambda: watch.updates and watch.updates[0].stands_by)
            assert (watch.updates[0].leader, watch.fleet) == (place.listen, {})
            with pytest.raises(Unavailable, match=f"This registry stands by; {place.listen} leads"):
                await other.backends()
            assert not ops.missing, "one that stands by is ready to"
            heard: list[wire.FleetUpdate] = []
            listening = asyncio.create_task(_collect(FleetStream(both.peers), heard))
            await eventually(lambda: heard and heard[-1].backends and heard[-1].backends[0].health == HEALTHY)
            epoch = heard[-1].epoch
            await first.aclose()
            await eventually(lambda: heard[-1].epoch > epoch)
            told = [b for update in heard for b in update.backends]
            assert {b.id for b in told} == {added.id}
            healths = [b.health for b in told]
            assert set(healths[healths.index(HEALTHY) :]) == {HEALTHY}, "nothing dips because the registry changes"
            assert (await admin.add("other", "http://127.0.0.1:1")).created
            await eventually(lambda: {"local", "other"} == set(watch.fleet))
            listening.cancel()
            await asyncio.wait([listening])


async def _collect(stream: FleetStream, heard: list[wire.FleetUpdate]) -> None:
    """As `forebay.follow` does."""
    while True:
        try:
            async for update in stream.watch():
                heard.append(update)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.05)


async def test_a_port_in_use_is_one_clear_sentence(place: Place) -> None:
    async with running(place.settings()):
        with pytest.raises(ForebayError, match="cannot be opened; is another Forebay running"):
            async with running(place.settings()):
                pass


def test_the_service_can_be_found() -> None:
    assert (service.name, service.settings, service.open) == ("registry", RegistrySettings, open_registry)
