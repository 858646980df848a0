"""A whole admin for tests: the real service on a real database."""

from __future__ import annotations

import os
import socket
import sysconfig
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import create_async_engine

import forebay.database
import forebay_admin.recordings.hooks
import forebay_admin.service
from forebay.clock import SystemClock
from forebay.database import open_database
from forebay.local.postgres import Postgres
from forebay.memory_bus import MemoryBus
from forebay.ops import Ops
from forebay.rpc import ServiceTokens, open_server, render_tokens
from forebay.service import Ground
from forebay.wire.v1 import library_pb2_grpc, registry_pb2_grpc, scheduler_pb2_grpc
from forebay.wire.v1.alerts_pb2_grpc import add_AlertsServicer_to_server
from forebay.wire.v1.commands_pb2_grpc import add_NodeCommandsServicer_to_server
from forebay.wire.v1.discovery_pb2_grpc import add_DiscoveryServicer_to_server
from forebay.wire.v1.lifecycle_pb2_grpc import add_LifecycleServicer_to_server
from forebay.wire.v1.status_pb2_grpc import add_StandingServicer_to_server
from forebay_admin.config import AdminSettings
from forebay_admin.fleet.agent_wheel import build_wheel
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.recordings.recording_store import RecordingStore
from forebay_admin.service import MIGRATIONS, open_admin
from forebay_admin.tables import SCHEMA
from tests.admin.fake_library import FakeLibrary
from tests.admin.replica import TOKENS, FakeRegistry, FakeScheduler, Running, Site, Start
from tests.conftest import BackgroundLoop, Migrated, database_like


@pytest.fixture(scope="session")
def admin_template(postgres_server: Postgres, migrated: Migrated, _background: BackgroundLoop) -> str:
    """The name of a database with admin's tables, and the partitions of these days as admin makes them: for hundreds of
    admins they are made once, and copied."""
    name = f"like_admin_today_{os.getpid()}"
    _background.run(_make_days(postgres_server.superuser_url, name, migrated("admin", MIGRATIONS)))
    return name


async def _make_days(superuser_url: str, name: str, empty: str) -> None:
    connection = await asyncpg.connect(superuser_url)
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {empty} STRATEGY FILE_COPY")
    finally:
        await connection.close()
    async with open_database(f"{superuser_url.rpartition('/')[0]}/{name}", SCHEMA) as database:
        for store in (LedgerStore(database), RecordingStore(database)):
            await store.prepare_days(datetime.now(UTC).date())


@pytest.fixture
async def admin_database_url(postgres_server: Postgres, migrated: Migrated) -> AsyncIterator[str]:
    """The address of a database of this test's own, with admin's tables in it."""
    async with database_like(postgres_server, migrated("admin", MIGRATIONS)) as url:
        yield url


@pytest.fixture(scope="session", autouse=True)
def _read_once() -> Iterator[None]:
    """What is the same for each of hundreds of admins: the wheel that an invited node installs, what is installed here, the
    migrations, and what SQLAlchemy makes of each query."""
    compiled: dict[Any, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forebay_admin.service, "build_wheel", cache(build_wheel))
        patch.setattr(forebay_admin.recordings.hooks, "entry_points", cache(entry_points))
        read = cache(lambda: ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS / "versions")]))
        patch.setattr(
            forebay.database,
            "ScriptDirectory",
            lambda place, **more: read() if place == str(MIGRATIONS) else ScriptDirectory(place, **more),
        )
        patch.setattr(
            forebay.database,
            "create_async_engine",
            lambda *of, **more: create_async_engine(*of, **more, execution_options={"compiled_cache": compiled}),
        )
        # What is compiled is kept by dialect, of which each engine has its own; all of them speak with one server.
        patch.setattr(PGDialect_asyncpg, "__eq__", lambda one, other: type(one) is type(other))
        patch.setattr(PGDialect_asyncpg, "__hash__", lambda one: hash(type(one)))
        yield


@pytest.fixture
async def site(tmp_path: Path, postgres_server: Postgres, admin_template: str) -> AsyncIterator[Site]:
    async with database_like(postgres_server, admin_template) as url, open_site(tmp_path, url) as opened:
        yield opened


@asynccontextmanager
async def open_site(tmp_path: Path, admin_database_url: str) -> AsyncIterator[Site]:
    """What an admin needs around it: files, a database, a registry and two schedulers that are no real ones."""
    (tmp_path / "callers").write_text(render_tokens(TOKENS))
    (tmp_path / "admin.token").write_text(TOKENS["admin"])
    (tmp_path / "pepper").write_text("p" * 64)
    (tmp_path / "seal").write_text("s" * 64)
    registry = FakeRegistry()
    library = FakeLibrary(registry.known)
    authorize = ServiceTokens(
        tmp_path / "callers",
        {
            "/forebay.wire.v1.Registry/*": frozenset({"admin", "gateway", "scheduler"}),
            "/forebay.wire.v1.ModelLibrary/*": frozenset({"admin"}),
            "/forebay.wire.v1.Discovery/*": frozenset({"admin"}),
            "/forebay.wire.v1.Lifecycle/*": frozenset({"admin"}),
            "/forebay.wire.v1.NodeCommands/*": frozenset({"admin"}),
            "/forebay.wire.v1.Alerts/*": frozenset({"admin"}),
            "/forebay.wire.v1.Standing/*": frozenset({"admin"}),
        },
    )

    def add(server: grpc.aio.Server) -> None:
        registry_pb2_grpc.add_RegistryServicer_to_server(registry, server)
        library_pb2_grpc.add_ModelLibraryServicer_to_server(library, server)
        add_DiscoveryServicer_to_server(registry.nodes, server)
        add_LifecycleServicer_to_server(registry.lifecycle, server)
        add_NodeCommandsServicer_to_server(registry.nodes, server)
        add_AlertsServicer_to_server(registry.alerts, server)
        add_StandingServicer_to_server(registry.alerts, server)

    schedulers = [FakeScheduler(), FakeScheduler()]
    registry.lifecycle.schedulers = schedulers
    may_ask = ServiceTokens(tmp_path / "callers", {"/forebay.wire.v1.Scheduler/*": frozenset({"admin"})})

    def scheduling(one: FakeScheduler) -> AbstractAsyncContextManager[str]:
        return open_server(
            "127.0.0.1:0",
            lambda server: scheduler_pb2_grpc.add_SchedulerServicer_to_server(one, server),
            may_ask,
            grace_s=0.1,
        )

    async with (
        open_server("127.0.0.1:0", add, authorize, grace_s=0.1) as registry_address,
        scheduling(schedulers[0]) as first,
        scheduling(schedulers[1]) as second,
    ):
        settings = AdminSettings(
            listen="127.0.0.1:0",
            http_listen="127.0.0.1:0",
            registry_address=registry_address,
            scheduler_address=first,
            token_file=tmp_path / "admin.token",
            callers_file=tmp_path / "callers",
            nats_url="memory:",
            database_url=admin_database_url,
            pepper_file=tmp_path / "pepper",
            seal_key_file=tmp_path / "seal",
            bootstrap_key_file=tmp_path / "keys" / "admin.key",
            agents_file=tmp_path / "agents.conf",
            password_hash_mib=1,
        )
        yield Site(tmp_path, admin_database_url, registry, settings, schedulers, [first, second], library=library)


@pytest.fixture
def start(site: Site, free_port: Callable[[], int]) -> Start:
    """`async with start() as admin:`, as often as replicas are wanted; keyword arguments are settings."""
    return starting(site, free_port)


def starting(site: Site, free_port: Callable[[], int]) -> Start:
    @asynccontextmanager
    async def started(*, wait: bool = True, **changed: Any) -> AsyncIterator[Running]:
        settings = replace(
            site.settings,
            **{"listen": f"127.0.0.1:{free_port()}", "http_listen": f"127.0.0.1:{free_port()}", **changed},
        )
        clock = SystemClock()
        ground = Ground("admin", clock, Ops("admin"), MemoryBus(clock.now))
        async with open_admin(settings, ground):
            running = Running(site, ground, settings.listen, settings.http_listen)
            try:
                if wait:
                    await running.ready()
                yield running
            finally:
                for peer in reversed(running.peers):
                    await peer.__aexit__(None, None, None)

    return started


@pytest.fixture
async def admin(start: Start) -> AsyncIterator[Running]:
    async with start() as running:
        yield running


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    def port() -> int:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            number: int = one.getsockname()[1]
            return number

    return port


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an agent gets from a package index, borrowed from our own environment: all of it but Forebay itself."""
    place = tmp_path_factory.mktemp("libraries")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("forebay", "__editable__", "_forebay", "pip")) and path.suffix != ".pth":
            (place / path.name).symlink_to(path)
    return place
