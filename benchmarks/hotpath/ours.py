"""Forebay as it is run: PostgreSQL, NATS, admin, registry and scheduler on the cores behind, and gateways that come and go
on the core of the system that is measured. A gateway alone is charged for its work; what is behind it is told apart."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp

from benchmarks.hotpath.loads import NotMeasured, System
from benchmarks.hotpath.machine import Cores
from forebay.local.certificates import ServerCertificate, open_authority, server_certificate
from forebay.local.data_directory import DataDirectory, open_data_directory
from forebay.local.front import open_front
from forebay.local.layout import LOOPBACK, Layout
from forebay.local.nats import open_nats
from forebay.local.postgres import open_postgres
from forebay.local.postgres_roles import ensure_roles
from forebay.local.process import Command
from forebay.local.secret_files import write_private
from forebay.local.service_secrets import keep_service_secrets
from forebay.local.supervised import Supervised
from forebay.local.wiring import Wiring
from tests.system.installation import free_base_port

ROOT = Path(__file__).parents[2]
SLOTS = 40_000
"""Of the engine: never what holds a load back."""
OTHER_MODEL = "mock-anthropic"
"""Of the second engine, which speaks Anthropic's words."""
_READY_S = 90.0
_PLENTY = 1_000_000_000
"""A limit that is counted and never reached, each minute."""

Ready = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class EngineAt:
    """An engine that speaks OpenAI's dialect."""

    name: str
    url: str
    slots: int = SLOTS


@dataclass
class Ours:
    """All that is behind gateways. `open_gateway` starts one."""

    wiring: Wiring
    cores: Cores
    config: Path
    parts: dict[str, Supervised]
    certificate: ServerCertificate
    client: aiohttp.ClientSession
    limited_key: str = ""
    """Its user has limits in requests and tokens and a budget, so large that they are counted and never reached."""
    free_key: str = ""
    """Of a user without limits."""
    gateway_python: str = sys.executable
    """Gateways are run by it; it must have what they need, at any version."""
    _free_names: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def open_gateway(self, name: str, environ: Mapping[str, str], *, tls: bool = False) -> AsyncIterator[System]:
        """Ready when entered. `environ` goes over what `forebay up` says. The key is the limited one. Raises NotMeasured."""
        part = self._free_names.pop(0)
        layout = self.wiring.layout
        told = {**self.wiring.gateway(part), **compiled("forebay_gateway", self.gateway_python), **environ}
        if tls:
            told |= {
                "FOREBAY_GATEWAY_TLS_CERT": str(self.certificate.certificate_file),
                "FOREBAY_GATEWAY_TLS_KEY": str(self.certificate.key_file),
            }
        prefix = self.cores.pinned(self.cores.system)
        gateway = self._part(part, "gateway", told, prefix=prefix, python=self.gateway_python)
        try:
            await gateway.start()
            port = layout.gateway(part)
            await self._serves(f"{'https' if tls else 'http'}://{LOOPBACK}:{port}")
            assert gateway.pid is not None
            yield System(name, port, (gateway.pid,), self.limited_key, tls)
        finally:
            await gateway.stop()
            self._free_names.append(part)

    def pids_behind(self) -> tuple[int, ...]:
        return tuple(part.pid for part in self.parts.values() if part.pid is not None)

    async def cli(self, *words: str) -> Any:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "forebay", *words, "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                **os.environ,
                "FOREBAY_ADMIN": f"{LOOPBACK}:{self.wiring.layout.admin}",
                "FOREBAY_TOKEN": self.wiring.data.admin_key_file.read_text().strip(),
            },
        )
        told, said = await process.communicate()
        if process.returncode:
            raise NotMeasured(f"forebay {' '.join(words)}: {said.decode()}")
        return json.loads(told)

    async def make_keys(self) -> None:
        await asyncio.gather(*(self.cli("user", "add", user) for user in ("limited", "free")))
        plenty = [part for what in ("requests", "tokens") for part in (f"--{what}-per-minute", str(_PLENTY))]
        budget = ("--tokens", str(1000 * _PLENTY), "--period", "month")
        limited, free, *_ = await asyncio.gather(
            *(self.cli("key", "create", "--user", user, "--name", "bench") for user in ("limited", "free")),
            self.cli("quota", "set", "--user", "limited", *plenty, "--concurrency", str(SLOTS)),
            self.cli("quota", "budget", "add", "--user", "limited", *budget),
        )
        self.limited_key, self.free_key = limited["secret"], free["secret"]

    async def start(self, part: str, service: str, environ: Mapping[str, str]) -> None:
        self.parts[part] = self._part(part, service, environ)
        await self.parts[part].start()

    def _part(
        self,
        part: str,
        service: str,
        environ: Mapping[str, str],
        prefix: tuple[str, ...] = (),
        python: str = sys.executable,
    ) -> Supervised:
        command = Command(
            name=part,
            argv=(*prefix, python, "-P", "-m", "forebay", "run", service, "--config", str(self.config)),
            log=self.wiring.data.log(part),
            environ={"MALLOC_ARENA_MAX": "2", **os.environ, **environ},
            ready_within_s=_READY_S,
        )
        return Supervised(command, self._answers(self.wiring.layout.ops(part)), lambda line: None)

    def _answers(self, ops_port: int) -> Ready:
        async def ready() -> bool:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with self.client.get(f"http://{LOOPBACK}:{ops_port}/readyz") as answer:
                    return answer.status == 200
            return False

        return ready

    async def _serves(self, url: str) -> None:
        """Until both keys get an answer, so that nothing is asked for the first time when it is measured."""
        until = asyncio.get_running_loop().time() + _READY_S
        for key in (self.limited_key, self.free_key):
            body = {"model": "mock", "max_tokens": 4, "messages": [{"role": "user", "content": "Go on."}]}
            while True:
                with suppress(aiohttp.ClientError, TimeoutError, OSError):
                    async with self.client.post(
                        f"{url}/v1/chat/completions",
                        json=body,
                        headers={"authorization": f"Bearer {key}"},
                        ssl=False,
                    ) as answer:
                        said = await answer.text()
                        if answer.status == 200:
                            break
                if asyncio.get_running_loop().time() > until:
                    raise NotMeasured(f"no answer from {url}: {said[:300]}")
                await asyncio.sleep(0.1)


@asynccontextmanager
async def open_ours(
    place: Path,
    cores: Cores,
    engines: Sequence[EngineAt],
    other_engine_port: int | None = None,
    *,
    scheduler: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Ours]:
    """`place` must be open to PostgreSQL's user; `scheduler`: environment variables of its own. Everything that is started
    here is on the cores behind."""
    os.sched_setaffinity(0, cores.behind)
    layout = Layout(free_base_port(), gateway_count=8)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        data = stack.enter_context(open_data_directory(place))
        secrets = keep_service_secrets(data.secrets)
        now = datetime.now(UTC)
        front = open_front(data, listen=None, tls_cert=None, tls_key=None, plain_http=False, now=now)
        postgres = await enter(
            open_postgres(data.postgres, secrets=data.secrets, port=layout.postgres, log=data.log("postgres"))
        )
        urls = await ensure_roles(postgres.superuser_url, data.secrets)
        write_private(secrets.database_url_file("admin"), urls.admin.encode() + b"\n")
        write_private(secrets.database_url_file("registry"), urls.registry.encode() + b"\n")
        users = ("admin", "registry", "scheduler", *layout.gateways)
        nats = await enter(
            open_nats(data.nats, secrets=data.secrets, port=layout.nats, users=users, log=data.log("nats"))
        )
        wiring = Wiring(
            layout=layout, data=data, secrets=secrets, front=front, nats=nats, has_own_database=True, node="bench"
        )
        ours = Ours(
            wiring=wiring,
            cores=cores,
            config=_settings(data, engines),
            parts={"postgres": postgres.server, "nats": nats.server},
            certificate=server_certificate(
                open_authority(data.secrets, now), data.secrets, "bench", [LOOPBACK, "localhost"], now
            ),
            client=await enter(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))),
            _free_names=list(layout.gateways),
        )
        stack.push_async_callback(_stop, ours)
        await asyncio.gather(
            ours.start("admin", "admin", wiring.admin()),
            ours.start("registry", "registry", wiring.registry()),
            ours.start("scheduler", "scheduler", {**wiring.scheduler(), **compiled("forebay_scheduler"), **scheduler}),
        )
        await ours.make_keys()
        if other_engine_port is not None:
            await _add_other_engine(ours, place, other_engine_port)
        yield ours


def mock_engine(port: int, slots: int = SLOTS) -> list[EngineAt]:
    """The only one."""
    return [EngineAt("mock", f"http://{LOOPBACK}:{port}", slots)]


def _settings(data: DataDirectory, engines: Sequence[EngineAt]) -> Path:
    config = data.root / "forebay.toml"
    config.write_text(
        "".join(
            f'[[registry.backends]]\nname = "{one.name}"\nurl = "{one.url}"\nkind = "openai"\nslots = {one.slots}\n'
            for one in engines
        )
    )
    return config


async def _add_other_engine(ours: Ours, place: Path, port: int) -> None:
    credential = place / "other.key"
    write_private(credential, b"sk-ant-bench\n")
    url = f"http://{LOOPBACK}:{port}"
    words = ("--kind", "anthropic", "--slots", "10000", "--bearer-file", str(credential))
    await ours.cli("backend", "add", "other", url, *words)


async def _stop(ours: Ours) -> None:
    for name in ("scheduler", "registry", "admin"):
        if name in ours.parts:
            await ours.parts[name].stop()


def form_of_gateways(python: str = sys.executable) -> str:
    """How the gateways that this Python runs are measured: "compiled" or "interpreted"."""
    looked = subprocess.run(
        [python, "-P", "-c", "import forebay_gateway.relay as relay; print(relay.__file__)"],
        env={**os.environ, **compiled("forebay_gateway", python)},
        capture_output=True,
        text=True,
        check=True,
    )
    return "interpreted" if looked.stdout.strip().endswith(".py") else "compiled"


def compiled(package: str, python: str = sys.executable) -> dict[str, str]:
    """A service as native code, which is what is shipped, where `make core` has built it of these sources; as environment
    variables. A PYTHONPATH that was given goes before it: what is looked for is another tree then. Another Python than this
    one runs what is installed with it."""
    if python != sys.executable:
        return {}
    built = ROOT / "build" / "core"
    if not (built / package).exists():
        return {}
    if subprocess.run(["make", "-q", "build/core/.stamp"], cwd=ROOT, capture_output=True, check=False).returncode:
        return {}
    # Only that package: everything else that lies there may be older than the tree.
    alone = ROOT / "build" / "hotpath" / package
    alone.mkdir(parents=True, exist_ok=True)
    for one in (built / package, *built.glob(f"{package}__mypyc*.so")):
        link = alone / one.name
        if not link.is_symlink():
            link.symlink_to(one)
    return {"PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(alone))))}
