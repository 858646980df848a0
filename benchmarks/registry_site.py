"""A registry, or two, before a simulated fleet: real PostgreSQL, real NATS, real processes, and a table in which every write
of theirs notes whose it was and who led."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import grpc
import grpc.aio

from benchmarks.registry_parts import Part, RegistryProcess, sets_of
from forebay.local.nats import Nats, open_nats, public_key
from forebay.local.postgres import open_postgres
from forebay.nats_rights import render_agents
from forebay.registries import FleetStream, Registries, open_registries
from forebay.rpc import render_tokens
from forebay.wire.v1 import fleet_pb2
from forebay.wire.v1 import registry_pb2 as wire
from forebay.wire.v1.registry_pb2_grpc import RegistryStub
from tests.conftest import free_port
from tests.fakes.cut_wire import CutWire
from tests.fakes.fleet_simulator import address_of

MORTALS = 8
_AT_ONCE = 4
"""Nodes that are enrolled at the same time."""
_PATIENCE_S = 180.0
_NOTES = """
    CREATE TABLE public.writes (who text, holder text, epoch bigint, at timestamptz);
    CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO public.writes SELECT session_user, holder, epoch, clock_timestamp() FROM registry.leadership;
        RETURN NULL;
    END $$;
"""


class Watcher:
    """What a scheduler hears, and when."""

    def __init__(self, registries: Registries) -> None:
        self._stream = FleetStream(registries.peers)
        self.fleet: dict[str, wire.Backend] = {}
        self.epoch = 0
        self.updates = 0
        self.heard: dict[tuple[str, int], float] = {}
        """(backend, its slots) → when that was first heard."""
        self.dipped: set[str] = set()
        """Names of backends that were told to serve no more since `note_dips`."""
        self._notes_dips = False

    def note_dips(self) -> None:
        self.dipped.clear()
        self._notes_dips = True

    async def run(self) -> None:
        while True:
            try:
                async for update in self._stream.watch():
                    self._apply(update)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)

    def _apply(self, update: wire.FleetUpdate) -> None:
        now = time.monotonic()
        self.epoch, self.updates = update.epoch, self.updates + 1
        names = {backend.id: name for name, backend in self.fleet.items()}
        for gone in update.removed_backend_ids:
            self.fleet.pop(names.get(gone, ""), None)
        if update.snapshot:
            gone_names = self.fleet.keys() - {backend.name for backend in update.backends}
            for name in gone_names:
                del self.fleet[name]
            if self._notes_dips:
                self.dipped |= gone_names
        for backend in update.backends:
            before = self.fleet.get(backend.name)
            if self._notes_dips and before is not None and serves(before) and not serves(backend):
                self.dipped.add(backend.name)
            self.fleet[backend.name] = backend
            self.heard.setdefault((backend.name, backend.slots), now)


def serves(backend: wire.Backend) -> bool:
    return backend.health in (
        wire.BACKEND_HEALTH_HEALTHY,
        wire.BACKEND_HEALTH_DEGRADED,
        wire.BACKEND_HEALTH_SATURATED,
    )


@dataclass
class Site:
    work: Path
    admin_url: str
    nats: Nats
    registries: Registries
    pair: dict[str, RegistryProcess]
    mortal_ports: list[int]
    engines: int
    nodes: int
    client: aiohttp.ClientSession
    watcher: Watcher
    simulator: asyncio.subprocess.Process
    engines_port: int
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def tell_simulator(self, **command: Any) -> Any:
        async with self._asking:
            assert self.simulator.stdin is not None
            assert self.simulator.stdout is not None
            self.simulator.stdin.write(json.dumps(command).encode() + b"\n")
            return json.loads(await self.simulator.stdout.readline())

    async def looks(self) -> dict[int, int]:
        """Looks at engines, by the second."""
        return {int(second): count for second, count in (await self.tell_simulator(do="looks"))["by_second"].items()}

    async def call(self, method: str, request: Any) -> Any:
        """Once more while nobody leads, which on a busy machine may be so for a moment."""
        stub: Any = RegistryStub(self.registries.leading.channel)
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return await getattr(stub, method)(request, metadata=self.registries.leading.metadata, timeout=30)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > until:
                    raise
                await asyncio.sleep(0.1)

    async def want(self) -> None:
        """The whole fleet, at once; its agents before, since the first looks at all engines leave time for little else."""
        numbers = iter(range(self.nodes))

        async def enrol() -> None:
            for node in numbers:
                await self.call("EnrolNode", wire.EnrolNodeRequest(actor="benchmark", name=f"node-{node:03}"))

        await asyncio.gather(*(enrol() for _ in range(_AT_ONCE)))
        wanted = fleet_pb2.FleetSpec()
        for number in range(self.engines - MORTALS):
            on = f"node-{number % self.nodes:03}"
            wanted.backends.add(
                name=f"engine-{number:04}", url=address_of(number, self.engines_port), kind="vllm", slots=8, node=on
            )
        for number, mortal_port in enumerate(self.mortal_ports):
            wanted.backends.add(name=f"mortal-{number}", url=f"http://127.0.0.1:{mortal_port}", kind="vllm", slots=8)
        answer = await self.call("ChangeFleet", fleet_pb2.ChangeFleetRequest(actor="benchmark", wanted=wanted))
        assert not answer.problems, answer.problems

    async def until_serving(self) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while len(self.watcher.fleet) < self.engines or not all(serves(b) for b in self.watcher.fleet.values()):
                await asyncio.sleep(0.1)

    async def note_writes(self) -> None:
        connection = await asyncpg.connect(self.admin_url)
        try:
            await connection.execute(_NOTES)
            tables = await connection.fetch(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'registry' AND tablename NOT IN"
                " ('leadership', 'schema_version')"
            )
            for row in tables:
                await connection.execute(
                    f"CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON registry.{row['tablename']}"
                    " FOR EACH STATEMENT EXECUTE FUNCTION public.note()"
                )
        finally:
            await connection.close()

    async def writes(self) -> tuple[int, int, int]:
        """All writes, those of one that did not lead, and how many epochs wrote."""
        connection = await asyncpg.connect(self.admin_url)
        try:
            holders = {f"registry_{name}": one.listen for name, one in self.pair.items()}
            rows = await connection.fetch("SELECT who, holder, count(*) AS many FROM public.writes GROUP BY 1, 2")
            epochs = await connection.fetchval("SELECT count(DISTINCT epoch) FROM public.writes")
        finally:
            await connection.close()
        foreign = sum(row["many"] for row in rows if holders.get(row["who"]) not in (None, row["holder"]))
        return sum(row["many"] for row in rows), foreign, epochs

    async def leader(self, within_s: float = 60.0, *, other_than: str = "") -> RegistryProcess:
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            for name, one in self.pair.items():
                if name != other_than and await self.reading(one, 'forebay_registry_standing{is="leading"}') == 1.0:
                    return one
            await asyncio.sleep(0.05)
        raise AssertionError(f"no registry leads within {within_s} s")

    async def until_one_stands_by(self) -> None:
        """And the other leads, by what each says of itself."""
        async with asyncio.timeout(_PATIENCE_S):
            while await self._standings() != {"leading", "standby"}:
                await asyncio.sleep(0.05)

    async def _standings(self) -> set[str]:
        return {
            standing
            for one in self.pair.values()
            for standing in ("leading", "standby", "adrift", "waiting")
            if await self.reading(one, f'forebay_registry_standing{{is="{standing}"}}') == 1.0
        }

    async def reading(self, one: Part, metric: str) -> float | None:
        try:
            async with self.client.get(f"http://{one.ops}/metrics", timeout=aiohttp.ClientTimeout(total=1)) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(metric)]
        return sum(map(float, values)) if values else None


@asynccontextmanager
async def open_site(work: Path, *, engines: int, nodes: int) -> AsyncIterator[Site]:
    """PostgreSQL, NATS and the simulator run; the registries `one` and `two` can be started."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        postgres = await enter(
            open_postgres(work / "postgres", secrets=work / "secrets", port=free_port(), log=work / "postgres.log")
        )
        nats = await enter(
            open_nats(
                work / "nats",
                secrets=work / "secrets",
                port=free_port(),
                users=("admin", "registry", "scheduler", "gateway-1"),
                log=work / "nats.log",
            )
        )
        tokens = {name: secrets.token_hex(16) for name in ("admin", "registry", "scheduler", "gateway")}
        (work / "callers").write_text(render_tokens(tokens))
        for name, token in tokens.items():
            (work / f"{name}.token").write_text(token)
        (work / "snapshot.key").write_text(secrets.token_hex(32))
        pair = {name: await _place(name, work, postgres.superuser_url, nats, stack) for name in ("one", "two")}
        addresses = ",".join(one.listen for one in pair.values())
        registries = await enter(
            open_registries(addresses, token_file=work / "admin.token", setting="registry_address")
        )
        port, mortal_ports = free_port(), [free_port() for _ in range(MORTALS)]
        simulator = await _simulate(work, nats, port, mortal_ports, engines=engines - MORTALS, nodes=nodes)
        stack.push_async_callback(_end, simulator)
        client = await enter(aiohttp.ClientSession())
        watcher = Watcher(registries)
        watching = asyncio.create_task(watcher.run())
        stack.callback(watching.cancel)
        yield Site(
            work=work,
            admin_url=postgres.superuser_url,
            nats=nats,
            registries=registries,
            pair=pair,
            mortal_ports=mortal_ports,
            engines=engines,
            nodes=nodes,
            client=client,
            watcher=watcher,
            simulator=simulator,
            engines_port=port,
        )


async def _place(name: str, work: Path, superuser_url: str, nats: Nats, stack: AsyncExitStack) -> RegistryProcess:
    # A role of its own, by which the database tells who wrote.
    password = secrets.token_hex(8)
    connection = await asyncpg.connect(superuser_url)
    try:
        await connection.execute(f"CREATE ROLE registry_{name} SUPERUSER LOGIN PASSWORD '{password}'")
    finally:
        await connection.close()
    host = superuser_url.rpartition("@")[2]
    server_port = int(host.partition(":")[2].partition("/")[0])
    cut_wire = await stack.enter_async_context(CutWire(server_port))
    listen, ops = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    database = host.partition("/")[2]
    settings = {
        "listen": listen,
        "ops_listen": ops,
        "admin_address": "127.0.0.1:9",
        "token_file": work / "registry.token",
        "callers_file": work / "callers",
        "nats_url": nats.url,
        "nats_seed_file": nats.seed_file("registry"),
        "database_url": f"postgresql://registry_{name}:{password}@127.0.0.1:{cut_wire.port}/{database}",
        "snapshot_key_file": work / "snapshot.key",
        "snapshot_dir": work / f"snapshots-{name}",
    }
    sets = sets_of("registry", settings)
    one = RegistryProcess(
        service="registry",
        sets=sets,
        ops=ops,
        log=work / f"registry-{name}.log",
        name=name,
        listen=listen,
        wire=cut_wire,
    )
    stack.push_async_callback(one.end)
    return one


async def _simulate(
    work: Path, nats: Nats, port: int, mortal_ports: list[int], *, engines: int, nodes: int
) -> asyncio.subprocess.Process:
    seed = work / "agents.nk"
    # One connection for all of them, which may therefore speak for each.
    rights = render_agents([("all", public_key(seed))])
    nats.agents_file.write_text(rights.replace("forebay.telemetry.all", "forebay.telemetry.*"))
    await asyncio.sleep(1.0)  # the server looks for that file now and then
    options = {
        "--engines": engines,
        "--port": port,
        "--nodes": nodes,
        "--nats": nats.url,
        "--seed": seed,
        "--user": "all",
    }
    words = [str(part) for option in options.items() for part in option]
    simulator = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.fleet_simulator", *words, "--mortal-ports", *map(str, mortal_ports)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    assert simulator.stdout is not None
    await simulator.stdout.readline()
    return simulator


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
