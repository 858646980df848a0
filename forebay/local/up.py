"""A whole Forebay on one machine: what is started, in which order, and that all of it ends.

Each part is a context manager: entered means ready, left means gone. The order below is the order of need."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import aiohttp

from forebay.errors import ForebayError
from forebay.local.announcement import Announcement
from forebay.local.backup.streams import USER as BACKUP_USER
from forebay.local.data_directory import DataDirectory, open_data_directory
from forebay.local.demo_engine import DemoEngine, open_demo_engine
from forebay.local.engine import Engine, EngineKind, discover
from forebay.local.front import Front, expired_on, fingerprint, open_front
from forebay.local.given_servers import demand_database, demand_nats
from forebay.local.layout import LOOPBACK, Layout
from forebay.local.listeners import open_listener
from forebay.local.mtls import UP, Mtls, open_mtls
from forebay.local.nats import Nats, open_nats, public_key
from forebay.local.operator_calls import OperatorCalls, WantedBackend, join
from forebay.local.ports import demand_free
from forebay.local.postgres import open_postgres
from forebay.local.postgres_roles import ensure_roles
from forebay.local.process_list import ProcessList
from forebay.local.secret_files import write_private
from forebay.local.service_secrets import ServiceSecrets, keep_service_secrets
from forebay.local.services import ServiceProcess, run_services
from forebay.local.settings_check import demand_good_settings, without_effect
from forebay.local.settings_file import SettingsFile, read_settings_file
from forebay.local.started import Started, started_file, write_started
from forebay.local.supervised import Supervised
from forebay.local.terminal import Terminal
from forebay.local.upgrade.beside import beside_name
from forebay.local.upgrade.control import serve_control
from forebay.local.upgrade.running import Running
from forebay.local.wiring import Wiring
from forebay.rpc import open_peer

FIRST_ADMIN = "admin"
"""The user that admin makes where there is none."""
DEMO = "demo"
"""The backend that we start ourselves."""

_MODEL_S = 60.0
_STOP_S = 15.0
_LEFTOVERS_S = 35.0
"""How long the parts of an `up` that was killed may take to end by themselves."""
_RENEW_EVERY_S = 12 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for on the command line."""

    data_dir: Path | None = None
    base_port: int = 8090
    listen: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    plain_http: bool = False
    config: Path | None = None
    engine: bool = True
    engine_slots: int = 4
    gateways: int = 1
    gateway_workers: int | None = None
    """None: as the settings file says, or one."""
    schedulers: int = 1
    registries: int = 1
    mtls: bool = False
    """Certificates between all parts."""


class Up:
    """Everything that runs, and the way to hurry its end."""

    def __init__(self, wanted: Wanted, terminal: Terminal) -> None:
        self._wanted = wanted
        self._terminal = terminal
        self._parts: dict[str, Supervised] = {}

    def hurry(self) -> None:
        """Ends all parts now. For a stop that somebody finds too slow."""
        for part in self._parts.values():
            part.hurry()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Ready and announced when entered; drained and gone when left. Raises CannotStart, BadSettings."""
        wanted, terminal = self._wanted, self._terminal
        settings = read_settings_file(wanted.config)
        layout = Layout(wanted.base_port, wanted.gateways, wanted.schedulers, wanted.registries)
        async with AsyncExitStack() as stack:
            data = stack.enter_context(open_data_directory(wanted.data_dir))
            data.connection_file.unlink(missing_ok=True)  # whoever waits for it waits for us
            started_file(data).unlink(missing_ok=True)
            knew_its_key = data.admin_key_file.exists()
            front = self._front(data)
            mtls = open_mtls(data, layout, front, datetime.now(UTC)) if wanted.mtls else None
            secrets = ServiceSecrets(data.secrets)
            has_own_database = not os.environ.get("DATABASE_URL")
            wiring = Wiring(
                layout=layout,
                data=data,
                secrets=secrets,
                front=front,
                nats=None,
                has_own_database=has_own_database,
                node=settings.node,
                gateway_workers=wanted.gateway_workers,
                mtls=mtls,
            )
            demand_good_settings(settings.tables, os.environ, _told(wiring))
            was_killed = data.processes_file.exists()
            await demand_free(self._needed_ports(layout, front), wait_s=_LEFTOVERS_S if was_killed else 0.0)
            await self._demand_given_servers()
            keep_service_secrets(data.secrets)
            terminal.line(f"Forebay's data lies in {data.root}")
            self._warn_of_expiry(front)
            await stack.enter_async_context(ProcessList(data.processes_file, self._parts))

            if has_own_database:
                await self._start_database(stack, data, layout, secrets)
            wiring = replace(wiring, nats=await self._start_nats(stack, data, layout, front, mtls))
            if ignored := without_effect(settings.tables, os.environ, _told(wiring)):
                terminal.line(f"Without effect here, since `forebay up` decides it: {', '.join(ignored)}")
            found = await self._find_engines(layout) if wanted.engine else []
            demo = await self._start_demo(stack, data, layout, secrets) if self._needs_demo(found, settings) else None

            session = await stack.enter_async_context(_open_session())
            with terminal.waiting("Starting the services"):
                listeners = {
                    name: stack.enter_context(open_listener(front.host, layout.gateway(name)))
                    for name in layout.gateways
                }
                processes = self._processes(wiring, settings.drain_s, listeners)
                running = run_services(processes, self._parts, settings.path, session, terminal.line)
                await stack.enter_async_context(running)
                for listener in listeners.values():
                    stack.callback(listener.close)  # before the services stop: then nobody is to wait for one

            admin_key = data.admin_key_file.read_text().strip() if data.admin_key_file.exists() else ""
            door = await stack.enter_async_context(_open_session(front))
            tls = mtls.tls(UP) if mtls else None
            async with open_peer(f"{LOOPBACK}:{layout.admin}", token_file=secrets.token_file("up"), tls=tls) as peer:
                calls = OperatorCalls(peer)
                await self._tell_engines(calls, found, demo, secrets)
                is_node = await self._join_own_node(calls, door, wiring)
                password_url = "" if knew_its_key else await self._password_link(calls)
            if is_node:
                agent = [_process(wiring, "gpu-agent", "gpu-agent", wiring.gpu_agent())]
                running = run_services(agent, self._parts, settings.path, session, terminal.line)
                await stack.enter_async_context(running)
                processes += agent
            expects_model = bool(found or demo or settings.names_engines)
            models = await self._wait_for_models(door, front.near_url(layout.base), admin_key, expects_model)
            if front.is_open or mtls:
                renewing = asyncio.create_task(self._renew_certificates(data, layout), name="renew certificates")
                stack.callback(renewing.cancel)

            write_started(data, _started(wiring, settings))
            replaceable = Running(wiring, tuple(processes), self._parts, settings.path, session, terminal.line)
            await stack.enter_async_context(serve_control(data, replaceable))
            admin_ca = mtls.ca if mtls else None
            announcement = Announcement(
                layout, front, data, models, admin_key, not knew_its_key, password_url, admin_ca
            )
            announcement.write_connection()
            terminal.line(announcement.text())
            yield

    def _front(self, data: DataDirectory) -> Front:
        wanted = self._wanted
        return open_front(
            data,
            listen=wanted.listen,
            tls_cert=wanted.tls_cert,
            tls_key=wanted.tls_key,
            plain_http=wanted.plain_http,
            now=datetime.now(UTC),
        )

    def _warn_of_expiry(self, front: Front) -> None:
        """It starts all the same: some clients look the other way, and a new certificate is taken up while we run."""
        ended = expired_on(front.certificate, datetime.now(UTC)) if front.certificate else None
        if front.certificate and ended:
            self._terminal.line(
                f"The certificate {front.certificate.file} expired on {ended:%Y-%m-%d}: clients will not accept it. "
                "Put a new one in its place; it is read again when it changes."
            )

    async def _demand_given_servers(self) -> None:
        database, nats = os.environ.get("DATABASE_URL"), os.environ.get("NATS_URL")
        if database:
            with self._terminal.waiting("Asking the database of DATABASE_URL"):
                await demand_database(database)
        if nats:
            with self._terminal.waiting("Asking the NATS of NATS_URL"):
                await demand_nats(nats)

    def _needed_ports(self, layout: Layout, front: Front) -> dict[str, tuple[str, int]]:
        ports = {what: (front.host, port) for what, port in layout.open_ports()}
        ports |= {what: (LOOPBACK, port) for what, port in layout.inner_ports()}
        if self._wanted.mtls:
            ports["admin gRPC for operators"] = (LOOPBACK, layout.operators)
        if not os.environ.get("NATS_URL"):
            ports["NATS"] = (front.host if front.is_open else LOOPBACK, layout.nats)
        if not os.environ.get("DATABASE_URL"):
            ports["PostgreSQL"] = (LOOPBACK, layout.postgres)
        if self._wanted.engine:
            ports["demo engine"] = (LOOPBACK, layout.engine)
        return ports

    async def _start_database(
        self, stack: AsyncExitStack, data: DataDirectory, layout: Layout, secrets: ServiceSecrets
    ) -> None:
        with self._terminal.waiting("Starting PostgreSQL"):
            opening = open_postgres(
                data.postgres,
                secrets=data.secrets,
                port=layout.postgres,
                log=data.log("postgres"),
                say=self._terminal.line,
            )
            postgres = await stack.enter_async_context(opening)
            urls = await ensure_roles(postgres.superuser_url, data.secrets)
        write_private(secrets.database_url_file("admin"), urls.admin.encode() + b"\n")
        write_private(secrets.database_url_file("registry"), urls.registry.encode() + b"\n")
        self._parts["postgres"] = postgres.server

    async def _start_nats(
        self, stack: AsyncExitStack, data: DataDirectory, layout: Layout, front: Front, mtls: Mtls | None
    ) -> Nats | None:
        """None when it is not our own."""
        if os.environ.get("NATS_URL"):
            return None
        opening = open_nats(
            data.nats,
            secrets=data.secrets,
            port=layout.nats,
            users=("admin", "registry", "scheduler", BACKUP_USER, *layout.gateways, *map(beside_name, layout.gateways)),
            log=data.log("nats"),
            host=front.host if front.is_open else LOOPBACK,
            tls=mtls.nats if mtls else front.nats_tls,
            say=self._terminal.line,
        )
        nats = await stack.enter_async_context(opening)
        self._parts["nats"] = nats.server
        return nats

    async def _find_engines(self, layout: Layout) -> list[Engine]:
        own = {port for _, port in (*layout.open_ports(), *layout.inner_ports())}
        found = await discover(skip=own | {layout.nats, layout.postgres, layout.engine})
        for engine in found:
            if engine.wants_key:
                self._terminal.line(
                    f"What listens at {engine.url} wants a key. If it is an engine, add it when Forebay runs: "
                    f"forebay backend add NAME {engine.url} --bearer-file FILE"
                )
                continue
            models = ", ".join(engine.models) or "no model yet"
            self._terminal.line(f"Found an engine: {engine.kind} at {engine.url} ({models})")
        return [engine for engine in found if not engine.wants_key]

    def _needs_demo(self, found: list[Engine], settings: SettingsFile) -> bool:
        return self._wanted.engine and not settings.names_engines and not any(engine.models for engine in found)

    async def _start_demo(
        self, stack: AsyncExitStack, data: DataDirectory, layout: Layout, secrets: ServiceSecrets
    ) -> DemoEngine:
        self._terminal.line("No engine was found here, so llama.cpp is started with a small model.")
        opening = open_demo_engine(
            data.model,
            port=layout.engine,
            log=data.log("engine"),
            slots=self._wanted.engine_slots,
            key_file=secrets.engine_key_file,
            terminal=self._terminal,
        )
        demo = await stack.enter_async_context(opening)
        self._parts["engine"] = demo.server
        return demo

    def _processes(
        self, wiring: Wiring, drain_s: float, listeners: Mapping[str, socket.socket]
    ) -> list[ServiceProcess]:
        """In the order of need: they stop from the last to the first, gateways before all others."""
        draining = {"FOREBAY_GATEWAY_DRAIN_S": str(drain_s)}
        schedulers = wiring.layout.schedulers
        # One that stands by lives and is not ready, as long as another leads. That one leads is what gateways wait for.
        page = "readyz" if len(schedulers) == 1 else "healthz"
        return [
            _process(wiring, "admin", "admin", wiring.admin()),
            *(_process(wiring, name, "registry", wiring.registry(name)) for name in wiring.layout.registries),
            *(_process(wiring, name, "scheduler", wiring.scheduler(name), page=page) for name in schedulers),
            *(
                _gateway_process(wiring, name, draining, drain_s + _STOP_S, listeners[name])
                for name in wiring.layout.gateways
            ),
        ]

    async def _tell_engines(
        self,
        calls: OperatorCalls,
        found: list[Engine],
        demo: DemoEngine | None,
        secrets: ServiceSecrets,
    ) -> None:
        wanted = [WantedBackend(f"{e.kind}-{e.url.rpartition(':')[2]}", e.url, e.kind) for e in found]
        if demo is not None:
            key = secrets.engine_key_file.read_text().strip()
            wanted.append(WantedBackend(DEMO, demo.url, EngineKind.LLAMA_CPP, demo.slots, bearer=key))
        else:
            await calls.drop_backend(DEMO)  # of an earlier start
        for backend in wanted:
            try:
                await calls.keep_backend(backend)
            except ForebayError as error:
                self._terminal.line(f"The engine at {backend.url} was not added: {error.message}")

    async def _password_link(self, calls: OperatorCalls) -> str:
        """Empty where there is none: a database that others made may know no such user."""
        try:
            return await calls.password_link(FIRST_ADMIN)
        except ForebayError as error:
            self._terminal.line(f"No link for the first admin's password was made: {error.message}")
            return ""

    async def _join_own_node(self, calls: OperatorCalls, door: aiohttp.ClientSession, wiring: Wiring) -> bool:
        """Whether this machine's own agent will be heard. Without it everything else works."""
        nkey = public_key(wiring.secrets.agent_seed_file)
        joined = wiring.data.nats / "own-node"
        try:
            if not (await calls.knows_node(wiring.node) and _holds(joined, f"{wiring.node} {nkey}\n")):
                token = await calls.invite(wiring.node)
                await join(door, wiring.front.near_url(wiring.layout.admin_http), token, nkey)
            await calls.place_node(wiring.node, LOOPBACK)
        except ForebayError as error:
            self._terminal.line(f"This machine's own agent is not started, as it would not be heard: {error.message}")
            return False
        write_private(joined, f"{wiring.node} {nkey}\n".encode())
        return True

    async def _wait_for_models(
        self, door: aiohttp.ClientSession, gateway: str, admin_key: str, expects_model: bool
    ) -> tuple[str, ...]:
        """What the gateway offers: at least one when an engine is there, if it comes up within a minute."""
        if not expects_model:
            return await _list_models(door, gateway, admin_key)
        until = asyncio.get_running_loop().time() + _MODEL_S
        with self._terminal.waiting("Waiting for the first model"):
            while True:
                models = await _list_models(door, gateway, admin_key)
                if models or not admin_key or asyncio.get_running_loop().time() >= until:
                    return models
                await asyncio.sleep(0.1)

    async def _renew_certificates(self, data: DataDirectory, layout: Layout) -> None:
        """Whoever uses them reads them again when they change."""
        while True:
            await asyncio.sleep(_RENEW_EVERY_S)
            try:
                front = self._front(data)
                self._warn_of_expiry(front)
                if self._wanted.mtls:
                    open_mtls(data, layout, front, datetime.now(UTC))
            except (ForebayError, OSError) as error:
                self._terminal.line(f"The certificates could not be looked after: {error}")


@asynccontextmanager
async def _open_session(front: Front | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """For calls to our own parts. Through a door with a certificate, that certificate and no other is accepted."""
    own = aiohttp.Fingerprint(fingerprint(front.certificate)) if front and front.certificate else True
    connector = aiohttp.TCPConnector(ssl=own)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


def _started(wiring: Wiring, settings: SettingsFile) -> Started:
    nats, shown = wiring.nats, wiring.mtls.tls(UP) if wiring.mtls else None
    return Started(
        pid=os.getpid(),
        version=version("forebay"),
        python=sys.executable,
        config=str(settings.path.absolute()) if settings.path else None,
        nats_url=nats.url if nats else None,
        nats_ca_file=str(nats.ca_file) if nats and nats.ca_file else None,
        nats_cert_file=str(shown.cert) if shown else None,
        nats_key_file=str(shown.key) if shown else None,
        has_own_database=wiring.has_own_database,
    )


def _told(wiring: Wiring) -> list[tuple[str, Mapping[str, str]]]:
    gateways = [("gateway", wiring.gateway(name)) for name in wiring.layout.gateways]
    return [
        ("admin", wiring.admin()),
        ("registry", wiring.registry()),
        ("scheduler", wiring.scheduler()),
        *gateways,
        ("gpu-agent", wiring.gpu_agent()),
    ]


def _process(
    wiring: Wiring,
    part: str,
    service: str,
    environ: Mapping[str, str],
    stop_s: float = _STOP_S,
    page: str = "readyz",
) -> ServiceProcess:
    return ServiceProcess(part, service, environ, wiring.layout.ops(part), wiring.data.log(part), stop_s, page)


def _gateway_process(
    wiring: Wiring, name: str, draining: Mapping[str, str], stop_s: float, listener: socket.socket
) -> ServiceProcess:
    number = listener.fileno()
    environ = {**wiring.gateway(name), **draining, "FOREBAY_GATEWAY_LISTEN_DESCRIPTOR": str(number)}
    return replace(_process(wiring, name, "gateway", environ, stop_s), descriptors=(number,))


async def _list_models(door: aiohttp.ClientSession, gateway: str, admin_key: str) -> tuple[str, ...]:
    try:
        async with door.get(f"{gateway}/v1/models", headers={"authorization": f"Bearer {admin_key}"}) as response:
            if response.status != 200:
                return ()
            listed = await response.json()
            return tuple(model["id"] for model in listed["data"])
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
        return ()


def _holds(file: Path, text: str) -> bool:
    return file.exists() and file.read_text() == text
