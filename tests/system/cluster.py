"""A Forebay of several schedulers and gateways, part by part: the processes that `forebay up` starts, with wires between
them that can be cut. Everything runs on loopback and ends with the test."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from forebay.local.data_directory import DataDirectory, open_data_directory
from forebay.local.front import open_front
from forebay.local.layout import LOOPBACK, Layout
from forebay.local.nats import open_nats, public_key
from forebay.local.operator_calls import OperatorCalls, join
from forebay.local.postgres import open_postgres
from forebay.local.postgres_roles import ensure_roles
from forebay.local.process import Command
from forebay.local.secret_files import write_private
from forebay.local.service_secrets import keep_service_secrets
from forebay.local.supervised import Supervised
from forebay.local.wiring import Wiring
from forebay.rpc import open_peer
from forebay.wire.v1 import scheduler_pb2, scheduler_pb2_grpc
from tests.fakes.cut_wire import CutWire
from tests.fakes.engine_process import EngineProcess, open_engine_process
from tests.system.installation import free_base_port

READY_S = 90.0
_SECOND_SCHEDULER = 36
"""Its ports, above the base: behind those of the layout."""


@dataclass(frozen=True, slots=True)
class SchedulerPlace:
    name: str
    port: int
    ops_port: int
    bus_wire: CutWire
    """Between it and NATS."""


@dataclass
class Cluster:
    data: DataDirectory
    layout: Layout
    schedulers: dict[str, SchedulerPlace]
    engines: dict[str, EngineProcess]
    parts: dict[str, Supervised]
    session_wires: dict[tuple[str, str], CutWire]
    """By gateway and scheduler."""
    wires: dict[tuple[str, str], CutWire]
    """All there are, by who connects and to whom: `("gateway-1", "nats")`, `("registry", "postgres")`. Those of sessions and
    of schedulers to NATS are always there, the others where the cluster is opened with `is_wired`."""
    engine_wires: dict[str, CutWire]
    """By engine, for all who ask it; only where the cluster is opened with `is_wired`."""
    client: aiohttp.ClientSession
    environ: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """What each part is told because of its place here, before `settings`."""
    admin_key: str = ""
    keys: list[str] = field(default_factory=list)
    """Of several users."""
    said: list[str] = field(default_factory=list)
    """What the supervisor had to say, with the time."""
    _admin_token: Path = Path()

    def gateway_url(self, number: int) -> str:
        name = self.layout.gateways[number % len(self.layout.gateways)]
        return f"http://{LOOPBACK}:{self.layout.gateway(name)}"

    async def reading(self, ops_port: int, metric: str, label: str = "") -> float | None:
        """The sum of a metric over its labels, or over those lines that have `label` (`by="credit"`); None while the process
        does not answer."""
        try:
            async with self.client.get(
                f"http://{LOOPBACK}:{ops_port}/metrics", timeout=aiohttp.ClientTimeout(total=1)
            ) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        lines = [line for line in text.splitlines() if line.partition("{")[0].split()[0] == metric and label in line]
        values = [line.rpartition(" ")[2] for line in lines]
        return sum(map(float, values)) if values else None

    async def leader(self, within_s: float = 15.0, *, other_than: str = "") -> str:
        """The scheduler that says it leads."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            for name, place in self.schedulers.items():
                if name != other_than and await self.reading(place.ops_port, "forebay_scheduler_leads") == 1.0:
                    return name
            await asyncio.sleep(0.02)
        raise AssertionError(f"no scheduler leads within {within_s} s")

    async def queue(self, scheduler: str) -> scheduler_pb2.ShowQueueResponse:
        shown: scheduler_pb2.ShowQueueResponse = await self._ask(
            scheduler, "ShowQueue", scheduler_pb2.ShowQueueRequest()
        )
        return shown

    async def state(self, scheduler: str) -> scheduler_pb2.SchedulerState:
        """What it has counted."""
        dump = await self._ask(scheduler, "Dump", scheduler_pb2.DumpRequest())
        state: scheduler_pb2.SchedulerState = dump.state
        return state

    async def _ask(self, scheduler: str, call: str, question: Any) -> Any:
        async with open_peer(f"{LOOPBACK}:{self.schedulers[scheduler].port}", token_file=self._admin_token) as peer:
            stub: Any = scheduler_pb2_grpc.SchedulerStub(peer.channel)
            return await getattr(stub, call)(question, metadata=peer.metadata, timeout=5)

    def kill(self, part: str) -> None:
        """-9; it is started again by itself."""
        self.parts[part].send(signal.SIGKILL)

    async def bury(self, part: str) -> None:
        """-9, and nobody starts it again until `revive`."""
        self.parts[part].hurry()
        await self.parts[part].stop()

    async def revive(self, part: str) -> None:
        await self.parts[part].start()

    async def exchange(self, part: str, changed: Mapping[str, str | None]) -> None:
        """An orderly end, and a start with other environment variables; None: without that one."""
        supervised = self.parts[part]
        await supervised.stop()
        environ = _without_none({**(supervised.command.environ or os.environ), **changed})
        supervised.command = replace(supervised.command, environ=environ)
        await supervised.start()

    def pid(self, part: str) -> int:
        """Of the process that runs now."""
        pid = self.parts[part].pid
        assert pid is not None, f"{part} is down"
        return pid

    def stop(self, part: str) -> None:
        """Not dead, and silent, until `go_on`."""
        self.parts[part].send(signal.SIGSTOP)

    def go_on(self, part: str) -> None:
        self.parts[part].send(signal.SIGCONT)

    async def cli(self, *words: str) -> Any:
        import json

        def run() -> Any:
            done = subprocess.run(
                [sys.executable, "-m", "forebay", *words, "--json"],
                capture_output=True,
                text=True,
                timeout=60,
                env={
                    **os.environ,
                    "FOREBAY_ADMIN": f"{LOOPBACK}:{self.layout.admin}",
                    "FOREBAY_TOKEN": self.admin_key,
                },
            )
            assert done.returncode == 0, f"forebay {' '.join(words)}: {done.stderr}"
            return json.loads(done.stdout)

        return await asyncio.to_thread(run)


@asynccontextmanager
async def open_cluster(
    place: Path,
    *,
    gateways: int = 2,
    users: int = 3,
    engines: Mapping[str, Sequence[str]],
    engine_slots: int,
    settings: Mapping[str, Mapping[str, str | None]] = MappingProxyType({}),
    has_agent: bool = False,
    is_wired: bool = False,
    stop_s: float = 10.0,
) -> AsyncIterator[Cluster]:
    """Two schedulers, of which the first leads; `engines`: arguments of fake engines by name; `settings`: environment
    variables by part (None: without that one); `has_agent`: this machine is a node with an agent, `gpu-agent`; `is_wired`:
    whatever a part connects to is reached over a wire of its own, and each engine over one; `stop_s`: how long a part may
    take to drain. Ready when entered."""
    layout = Layout(free_base_port(), gateways)
    async with AsyncExitStack() as stack:
        data = stack.enter_context(open_data_directory(place))
        secrets = keep_service_secrets(data.secrets)
        client = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        front = open_front(data, listen=None, tls_cert=None, tls_key=None, plain_http=False, now=datetime.now(UTC))
        postgres = await stack.enter_async_context(
            open_postgres(data.postgres, secrets=data.secrets, port=layout.postgres, log=data.log("postgres"))
        )
        urls = await ensure_roles(postgres.superuser_url, data.secrets)
        write_private(secrets.database_url_file("admin"), urls.admin.encode() + b"\n")
        write_private(secrets.database_url_file("registry"), urls.registry.encode() + b"\n")
        nats = await stack.enter_async_context(
            open_nats(
                data.nats,
                secrets=data.secrets,
                port=layout.nats,
                users=("admin", "registry", "scheduler", *layout.gateways),
                log=data.log("nats"),
            )
        )
        wiring = Wiring(
            layout=layout, data=data, secrets=secrets, front=front, nats=nats, has_own_database=True, node="chaos"
        )
        running = {
            name: await stack.enter_async_context(open_engine_process(*arguments))
            for name, arguments in engines.items()
        }
        wires: dict[tuple[str, str], CutWire] = {}
        engine_wires = {
            name: await stack.enter_async_context(CutWire(urlsplit(engine.url).port or 0))
            for name, engine in (running.items() if is_wired else ())
        }
        urls_of_engines = {name: engine.url for name, engine in running.items()}
        urls_of_engines |= {name: f"http://{LOOPBACK}:{wire.port}" for name, wire in engine_wires.items()}
        config = data.root / "forebay.toml"
        config.write_text(
            "".join(
                f'[[registry.backends]]\nname = "{name}"\nurl = "{url}"\nkind = "{_kind(engines[name])}"\n'
                f"slots = {engine_slots}\n"
                for name, url in urls_of_engines.items()
            )
        )
        schedulers: dict[str, SchedulerPlace] = {}
        for number, (port, ops_port) in enumerate(
            (
                (layout.scheduler(), layout.ops("scheduler")),
                (layout.base + _SECOND_SCHEDULER, layout.base + _SECOND_SCHEDULER + 1),
            ),
            1,
        ):
            wire = await stack.enter_async_context(CutWire(layout.nats))
            schedulers[f"scheduler-{number}"] = SchedulerPlace(f"scheduler-{number}", port, ops_port, wire)
        session_wires = {
            (gateway, name): await stack.enter_async_context(CutWire(there.port))
            for gateway in layout.gateways
            for name, there in schedulers.items()
        }
        wires |= session_wires | {(name, "nats"): there.bus_wire for name, there in schedulers.items()}
        cluster = Cluster(
            data,
            layout,
            schedulers,
            running,
            {"nats": nats.server, "postgres": postgres.server},
            session_wires,
            wires,
            engine_wires,
            client,
            _admin_token=secrets.token_file("admin"),
        )

        servers = {
            layout.nats: "nats",
            layout.postgres: "postgres",
            layout.admin: "admin",
            layout.admin_http: "admin-http",
            layout.registry(): "registry",
            **{there.port: name for name, there in schedulers.items()},
        }

        async def over_wires(part: str, environ: Mapping[str, str]) -> dict[str, str]:
            return {
                name: value if name.endswith("LISTEN") else await over_wires_to(part, value)
                for name, value in environ.items()
            }

        async def over_wires_to(part: str, value: str) -> str:
            file = Path(value)
            if value.endswith(".database_url"):
                changed = file.with_name(f"{part}.wired")
                write_private(changed, (await over_wires_to(part, file.read_text().strip())).encode())
                return str(changed)
            for port, server in servers.items():
                address = rf"{LOOPBACK}:{port}\b"
                if re.search(address, value):
                    wire = wires.get((part, server))
                    if wire is None:
                        wire = wires[part, server] = await stack.enter_async_context(CutWire(port))
                    value = re.sub(address, f"{LOOPBACK}:{wire.port}", value)
            return value

        async def start(
            part: str, service: str, environ: Mapping[str, str], ops_port: int, page: str = "readyz"
        ) -> None:
            if is_wired:
                environ = await over_wires(part, environ)
            cluster.environ[part] = environ
            command = Command(
                name=part,
                argv=(sys.executable, "-P", "-m", "forebay", "run", service, "--config", str(config)),
                log=data.log(part),
                environ=_without_none({"MALLOC_ARENA_MAX": "2", **os.environ, **environ, **settings.get(part, {})}),
                grace_s=stop_s,
                ready_within_s=READY_S,
            )
            supervised = Supervised(command, _answers(client, ops_port, page), lambda line: _note(cluster, line))
            stack.push_async_callback(_end, supervised)
            await supervised.start()
            cluster.parts[part] = supervised

        await start("admin", "admin", wiring.admin(), layout.ops("admin"))
        await start("registry", "registry", wiring.registry(), layout.ops("registry"))
        for name, there in schedulers.items():
            environ = {
                **wiring.scheduler(),
                "FOREBAY_SCHEDULER_LISTEN": f"{LOOPBACK}:{there.port}",
                "FOREBAY_SCHEDULER_OPS_LISTEN": f"{LOOPBACK}:{there.ops_port}",
                "FOREBAY_SCHEDULER_SNAPSHOT_DIR": str(data.snapshots / name),
                "FOREBAY_SCHEDULER_NATS_URL": f"nats://{LOOPBACK}:{there.bus_wire.port}",
            }
            await start(
                name, "scheduler", environ, there.ops_port, "healthz"
            )  # one that stands by lives and is not ready
            await cluster.leader()
        for gateway in layout.gateways:
            addresses = ",".join(f"{LOOPBACK}:{session_wires[gateway, name].port}" for name in schedulers)
            environ = {**wiring.gateway(gateway), "FOREBAY_GATEWAY_SCHEDULER_ADDRESS": addresses}
            await start(gateway, "gateway", environ, layout.ops(gateway))
        if has_agent:
            await _join(wiring, client, secrets.token_file("up"))
            await start("gpu-agent", "gpu-agent", wiring.gpu_agent(), layout.ops("gpu-agent"), "healthz")
        cluster.admin_key = data.admin_key_file.read_text().strip()
        for number in range(users):
            await cluster.cli("user", "add", f"user-{number}")
            made = await cluster.cli("key", "create", "--user", f"user-{number}", "--name", "chaos")
            cluster.keys.append(made["secret"])
        await _serves(cluster)
        yield cluster


def cluster_place(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    place = tmp_path_factory.mktemp(name)
    for folder in (place, place.parent):
        folder.chmod(0o711)  # the database's user passes through
    return place / "data"


async def _end(part: Supervised) -> None:
    """Whatever state a test left it in."""
    part.send(signal.SIGCONT)
    await part.stop()


async def _join(wiring: Wiring, client: aiohttp.ClientSession, token_file: Path) -> None:
    """As `forebay up` makes its own machine a node."""
    async with open_peer(f"{LOOPBACK}:{wiring.layout.admin}", token_file=token_file) as peer:
        token = await OperatorCalls(peer).invite(wiring.node)
    admin_url = f"http://{LOOPBACK}:{wiring.layout.admin_http}"
    await join(client, admin_url, token, public_key(wiring.secrets.agent_seed_file))


def _without_none(environ: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if value is not None}


def _kind(arguments: Sequence[str]) -> str:
    return "llamacpp" if "llama.cpp" in arguments else "openai"


def _note(cluster: Cluster, line: str) -> None:
    cluster.said.append(f"{time.monotonic():.2f} {line}")


def _answers(client: aiohttp.ClientSession, ops_port: int, page: str) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        try:
            async with client.get(
                f"http://{LOOPBACK}:{ops_port}/{page}", timeout=aiohttp.ClientTimeout(total=2)
            ) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    return ready


async def _serves(cluster: Cluster) -> None:
    """Until every gateway knows a model."""
    until = time.monotonic() + READY_S
    for number in range(len(cluster.layout.gateways)):
        for key in cluster.keys:
            while True:
                url = f"{cluster.gateway_url(number)}/v1/models"
                async with cluster.client.get(url, headers={"authorization": f"Bearer {key}"}) as answer:
                    if answer.status == 200 and (await answer.json())["data"]:
                        break
                assert time.monotonic() < until, "no model was offered in time"
                await asyncio.sleep(0.1)
