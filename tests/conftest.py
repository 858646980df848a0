"""What many tests stand on: one real PostgreSQL and one real NATS for the whole run, started as `forebay up` starts them,
and the rule that a test which does not run must name the device or privilege that is missing."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
import ssl
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import certifi
import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from forebay.collector import calm
from forebay.database import open_database
from forebay.local.nats import Nats, open_nats
from forebay.local.postgres import Postgres, open_postgres
from forebay.uncollected import uncollected

T = TypeVar("T")

_HERE = Path(__file__).parent

# The same examples each time, and as many as fit into a run before every change; no deadline, since a busy machine is no
# fault. FOREBAY_THOROUGH=20 searches twenty times as far, elsewhere each time.
_times = int(os.environ.get("FOREBAY_THOROUGH", "1"))
settings.register_profile("forebay", max_examples=30 * _times, derandomize=_times == 1, deadline=None, print_blob=True)
settings.load_profile("forebay")

_EXCUSES = (
    "needs a GPU",
    "needs a container engine",
    "needs network namespaces",
    "needs root",
    "needs AVX2",
    "needs PyTorch's CPU build",
    "needs Prometheus",
    "needs Debian's packages",
)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class BackgroundLoop:
    """An event loop on a thread: a server that lasts for the whole run cannot live on the loop of one test."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


def _entered(background: BackgroundLoop, opened: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enters on the background loop, in a task of its own, and leaves in that same task."""
    entered: asyncio.Future[T] = asyncio.run_coroutine_threadsafe(_future(), background.loop).result(5)
    leave = asyncio.run_coroutine_threadsafe(_event(), background.loop).result(5)

    async def hold() -> None:
        try:
            async with opened as value:
                entered.set_result(value)
                await leave.wait()
        except BaseException as error:
            if not entered.done():
                entered.set_exception(error)
                return
            raise

    holding = asyncio.run_coroutine_threadsafe(hold(), background.loop)
    yield background.run(_wait(entered))
    background.loop.call_soon_threadsafe(leave.set)
    holding.result(60)


async def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


async def _event() -> asyncio.Event:
    return asyncio.Event()


async def _wait(future: asyncio.Future[T]) -> T:
    return await future


@pytest.fixture(scope="session")
def _background() -> Iterator[BackgroundLoop]:
    background = BackgroundLoop()
    yield background
    background.close()


@pytest.fixture(scope="session", autouse=True)
def _one_trust() -> Iterator[None]:
    """The makers' client libraries read all the web's certificates for each new client. That costs more than most tests, and
    here nobody shows them one."""
    make = ssl.create_default_context
    read = cache(lambda file: make(cafile=file))
    web = [{"cafile": file} for file in (certifi.where(), os.environ.get("SSL_CERT_FILE"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ssl,
            "create_default_context",
            lambda *of, **more: read(more["cafile"]) if not of and more in web else make(*of, **more),
        )
        yield


_MEMORY = Path("/dev/shm")  # a folder in memory where there is one; in a container it may have 64 MB
_MEMORY_BYTES = 2 << 30


@pytest.fixture(scope="session")
def _place() -> Iterator[Path]:
    """A folder that the unprivileged user, whom Postgres needs when we are root, can enter; pytest's own is not. In memory
    where there is room: making and dropping hundreds of databases is mostly files."""
    has_room = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES
    if has_room:
        _clear_away_left_places()
    place = Path(tempfile.mkdtemp(prefix=f"forebay-tests-{os.getpid()}-", dir=_MEMORY if has_room else None))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def _clear_away_left_places() -> None:
    """Those of runs that were killed: nobody else gives that memory back."""
    for left in _MEMORY.glob("forebay-tests-*-*"):
        if not Path(f"/proc/{left.name.split('-')[2]}").exists():
            shutil.rmtree(left, ignore_errors=True)


_NOTHING_IS_KEPT = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}
"""These databases need not outlive the machine, and none lives long enough to be swept."""


@pytest.fixture(scope="session")
def postgres_server(_background: BackgroundLoop, _place: Path) -> Iterator[Postgres]:
    opened = open_postgres(
        _place / "postgres",
        secrets=_place / "secrets",
        port=free_port(),
        log=_place / "postgres.log",
        changed=_NOTHING_IS_KEPT,
    )
    yield from _entered(_background, opened)


_numbers = itertools.count(1)


@pytest.fixture
async def postgres_url(postgres_server: Postgres) -> AsyncIterator[str]:
    """The address of a database of this test's own, empty, with the superuser's rights."""
    async with database_like(postgres_server, "template1") as url:
        yield url


@asynccontextmanager
async def database_like(server: Postgres, template: str) -> AsyncIterator[str]:
    """The address of a database that begins as a copy of that one."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    connection = await asyncpg.connect(server.superuser_url)
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        yield f"{server.superuser_url.rpartition('/')[0]}/{name}"
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


Migrated = Callable[[str, Path], str]


@pytest.fixture(scope="session")
def migrated(postgres_server: Postgres, _background: BackgroundLoop) -> Migrated:
    """Gives the name of a database with the tables of a schema, made once: to copy it costs a tenth of making them."""

    @cache
    def make(schema: str, migrations: Path) -> str:
        name = f"like_{schema}_{os.getpid()}"
        _background.run(_make_migrated(postgres_server.superuser_url, name, schema, migrations))
        return name

    return make


async def _make_migrated(superuser_url: str, name: str, schema: str, migrations: Path) -> None:
    connection = await asyncpg.connect(superuser_url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    async with open_database(f"{superuser_url.rpartition('/')[0]}/{name}", schema) as database:
        await database.prepare(migrations)


@dataclass(frozen=True)
class NatsServer:
    """NATS as `forebay up` runs it: nkey users with their rights."""

    url: str
    seed_file: Callable[[str], Path]
    agents_file: Path


@pytest.fixture(scope="session")
def nats_server(_background: BackgroundLoop, _place: Path) -> Iterator[NatsServer]:
    """Users: admin, registry, scheduler, gateway-1, gateway-2."""
    opened = open_nats(
        _place / "nats",
        secrets=_place / "secrets",
        port=free_port(),
        users=("admin", "registry", "scheduler", "gateway-1", "gateway-2"),
        log=_place / "nats.log",
    )
    for nats in _entered(_background, opened):
        yield _told(nats)


def _told(nats: Nats) -> NatsServer:
    return NatsServer(nats.url, nats.seed_file, nats.agents_file)


class _ByPlace(LoadScopeScheduling):  # type: ignore[misc]
    """For several workers: the tests that start whole systems share one, and all tests of another file stay together, with
    what that file has set up."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = nodeid.partition("::")[0]
        return "tests/system" if file.startswith("tests/system/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _ByPlace(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Each of several workers begins to read the tests in another folder: what one has compiled, the others find. At the
    first run, where nothing is compiled yet, all would else compile the same file at the same time."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw").removeprefix("gw")
    if worker and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        left_out = {Path(path).resolve() for path in config.getoption("ignore") or ()}
        folders = sorted(path for path in _HERE.iterdir() if next(path.glob("**/test_*.py"), None))
        folders = [path for path in folders if path not in left_out]
        first = int(worker) * len(folders) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        config.args = [str(path) for path in folders[first:] + folders[:first]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that start whole systems go first: they take longest, and mostly wait."""
    items.sort(key=lambda item: ("tests/system" not in item.path.as_posix(), item.path.as_posix()))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What importing and collecting make stays until the end. The garbage collector need not look through it while it is
    made, nor again and again afterwards, which costs a long run minutes."""
    with uncollected():
        done = yield
    calm()
    return done


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for reason in _unexcused(terminalreporter):
        terminalreporter.write_line(f"A skip that names no missing device or privilege: {reason}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In the gate, a skipped test is a failure unless it names what this machine lacks."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("FOREBAY_STRICT_SKIPS") and reporter is not None and _unexcused(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _unexcused(reporter: Any) -> list[str]:
    reasons = [
        str(report.longrepr[2]) for report in reporter.stats.get("skipped", ()) if isinstance(report.longrepr, tuple)
    ]
    return [reason for reason in reasons if not reason.removeprefix("Skipped: ").startswith(_EXCUSES)]
