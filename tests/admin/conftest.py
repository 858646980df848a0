"""A whole admin for tests: the real service on a real database."""

from __future__ import annotations

import socket
import sysconfig
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

import forebay_admin.service
from forebay.clock import SystemClock
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
from forebay_admin.service import MIGRATIONS, open_admin
from tests.admin.fake_library import FakeLibrary
from tests.admin.replica import TOKENS, FakeRegistry, FakeScheduler, Running, Site, Start
from tests.conftest import Migrated, database_like


@pytest.fixture
async def admin_database_url(postgres_server: Postgres, migrated: Migrated) -> AsyncIterator[str]:
    """The address of a database of this test's own, with admin's tables in it."""
    async with database_like(postgres_server, migrated("admin", MIGRATIONS)) as url:
        yield url


@pytest.fixture(scope="session", autouse=True)
def _one_wheel() -> Iterator[None]:
    """What an invited node installs is the same bytes each time: for hundreds of admins it is cut out once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forebay_admin.service, "build_wheel", cache(build_wheel))
        yield


@pytest.fixture
async def site(tmp_path: Path, admin_database_url: str) -> AsyncIterator[Site]:
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
