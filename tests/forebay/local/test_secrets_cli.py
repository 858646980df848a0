"""`forebay secrets make`: each part gets what it reads, what is kept stays, and real servers take what was written."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest
from click.testing import CliRunner, Result

from forebay.errors import BadInput, Unavailable
from forebay.local.deployment_secrets import Deployment, make_secrets
from forebay.local.nats import _find_server
from forebay.local.postgres import Postgres, open_postgres
from forebay.local.postgres_binaries import find_binaries
from forebay.local.secrets_cli import secrets
from forebay.nats_bus import open_nats_bus
from forebay.nats_rights import render_agents
from forebay.rpc import ServiceTokens
from forebay.subjects import LEADER_BUCKET, USAGE_STREAM

FindPort = Callable[[], int]
T = TypeVar("T")


def make(*words: str) -> Result:
    return CliRunner().invoke(secrets, ["make", *words])


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_each_part_gets_a_folder_with_what_it_reads(tmp_path: Path) -> None:
    done = make(str(tmp_path / "s"), "--gateways", "2", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["folder"] == str(tmp_path / "s")
    assert told["parts"] == {
        "admin": ["callers", "database_url", "nats.seed", "pepper", "seal.key", "token"],
        "backup": ["nats.seed"],
        "gateway-1": ["nats.seed", "pepper", "snapshot.key", "token"],
        "gateway-2": ["nats.seed", "pepper", "snapshot.key", "token"],
        "nats": ["accounts.conf", "nats.conf"],
        "postgres": ["password", "roles.sql"],
        "registry": ["callers", "command.key", "database_url", "nats.seed", "snapshot.key", "token"],
        "scheduler": ["callers", "nats.seed", "snapshot.key", "token"],
    }
    for part, files in told["parts"].items():
        help_line = next(line for line in make("--help").output.splitlines() if line.strip().startswith(f"{part[:7]}"))
        assert all(file in help_line for file in files), part


def test_files_are_their_owner_s_alone(tmp_path: Path) -> None:
    make(str(tmp_path / "s"))
    for path in (tmp_path / "s", *(tmp_path / "s").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_second_time_nothing_changes_and_more_gateways_only_add(tmp_path: Path) -> None:
    make_secrets(tmp_path, Deployment())
    before = everything(tmp_path)
    make_secrets(tmp_path, Deployment())
    assert everything(tmp_path) == before
    make_secrets(tmp_path, Deployment(gateways=("gateway-1", "gateway-2")))
    after = everything(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"nats/accounts.conf"}
    assert {name.split("/")[0] for name in set(after) - set(before)} == {"gateway-2", "kept"}


def test_a_secret_whose_original_was_removed_is_another_one_for_all_who_read_it(tmp_path: Path) -> None:
    make_secrets(tmp_path, Deployment())
    before = everything(tmp_path)
    (tmp_path / "kept" / "pepper").unlink()
    make_secrets(tmp_path, Deployment())
    after = everything(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {
        "kept/pepper",
        "admin/pepper",
        "gateway-1/pepper",
    }
    assert after["admin/pepper"] == after["gateway-1/pepper"]


def test_servers_know_the_tokens_of_services_and_nobody_else(tmp_path: Path) -> None:
    make_secrets(tmp_path, Deployment())
    for callers in ("admin", "registry", "scheduler"):
        known = ServiceTokens(tmp_path / callers / "callers", {"/x/y": frozenset({"gateway", "scheduler"})})
        assert known("/x/y", (tmp_path / "gateway-1" / "token").read_text().strip()) == "gateway"
        assert known("/x/y", (tmp_path / "scheduler" / "token").read_text().strip()) == "scheduler"
        names = {line.split()[0] for line in (tmp_path / callers / "callers").read_text().splitlines()}
        assert names == {"admin", "gateway", "registry", "scheduler"}


@pytest.mark.parametrize(
    "deployment",
    [
        {"gateways": ("admin",)},
        {"gateways": ("gateway-1", "gateway-1")},
        {"gateways": ("a b",)},
        {"gateways": ()},
        {"nats_servers": ("one", "one")},
        {"nats_servers": ()},
    ],
)
def test_names_that_cannot_be_are_refused(deployment: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(BadInput):
        Deployment(**deployment)  # type: ignore[arg-type]


def test_who_is_not_root_is_told_that_files_cannot_be_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)
    done = make(str(tmp_path / "s"), "--owner", "10001")
    assert "run this as root, or without --owner" in str(done.exception)
    assert "not a number of a user" in make(str(tmp_path / "s"), "--owner", "forebay").output


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: files are given to another user")
def test_files_can_be_given_to_the_user_of_containers(tmp_path: Path) -> None:
    assert make(str(tmp_path / "s"), "--owner", "10001:10002").exit_code == 0
    for path in (tmp_path / "s", *(tmp_path / "s").rglob("*")):
        assert (path.stat().st_uid, path.stat().st_gid) == (10001, 10002)


async def test_postgresql_takes_the_roles_twice_and_lets_each_service_into_its_own_schema(
    place: Path, free_port: FindPort
) -> None:
    port = free_port()
    make_secrets(place / "s", Deployment(postgres=f"127.0.0.1:{port}", postgres_options="application_name=test"))
    async with open_postgres(place / "pg", secrets=place / "pg-secrets", port=port, log=place / "pg.log") as server:
        for _ in range(2):
            await _psql(server, place / "s" / "postgres" / "roles.sql")
        for owner, other in (("admin", "registry"), ("registry", "admin")):
            url = (place / "s" / owner / "database_url").read_text().strip()
            assert urlsplit(url).query == "application_name=test"
            connection = await asyncpg.connect(url)
            try:
                await connection.execute("CREATE TABLE IF NOT EXISTS mine (x int)")
                assert await connection.fetchval("SELECT current_schema()") == owner
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(f"CREATE TABLE {other}.theirs (x int)")
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute("CREATE TABLE public.everybodys (x int)")
            finally:
                await connection.close()


async def _psql(server: Postgres, script: Path) -> None:
    parts = urlsplit(server.superuser_url)
    process = await asyncio.create_subprocess_exec(
        str((await find_binaries()).folder / "bin" / "psql"),
        *("-X", "-q", "-h", parts.hostname or "", "-p", str(parts.port), "-U", parts.username or "", "-d", "postgres"),
        *("-f", str(script)),
        env={**os.environ, "PGPASSWORD": parts.password or ""},
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 0, told.decode()


async def test_three_servers_of_nats_agree_and_go_on_when_one_is_killed(place: Path, free_port: FindPort) -> None:
    make_secrets(place / "s", Deployment())
    clients = {f"nats-{number}": free_port() for number in (1, 2, 3)}
    routes = {name: free_port() for name in clients}
    url = ",".join(f"nats://127.0.0.1:{port}" for port in clients.values())
    servers = {name: await _start(place, name, clients, routes) for name in clients}
    try:
        async with (
            open_nats_bus(url, "scheduler", seed_file=place / "s" / "scheduler" / "nats.seed", replicas=3) as scheduler,
            open_nats_bus(url, "admin", seed_file=place / "s" / "admin" / "nats.seed", replicas=3) as admin,
            open_nats_bus(url, "gateway-1", seed_file=place / "s" / "gateway-1" / "nats.seed") as gateway,
        ):
            await _until(lambda: admin.ensure_stream(USAGE_STREAM))
            bucket = await _until(lambda: scheduler.bucket(LEADER_BUCKET))
            await _until(lambda: gateway.append("forebay.usage.gateway-1", b"one"))
            first = await _until(lambda: bucket.update("leader", b"me", 0))

            servers["nats-2"].kill()
            await servers["nats-2"].wait()
            await _until(lambda: gateway.append("forebay.usage.gateway-1", b"two"))
            assert await _until(lambda: bucket.update("leader", b"me again", first)) > first

            taken: set[bytes] = set()
            consumer = await _until(lambda: admin.consumer(USAGE_STREAM, "ledger"))
            async with asyncio.timeout(30):
                while taken < {b"one", b"two"}:
                    for delivery in await _until(lambda: consumer.fetch(10, 1.0)):
                        taken.add(delivery.payload)
                        await delivery.ack()
    finally:
        for server in servers.values():
            if server.returncode is None:
                server.kill()
            await server.wait()


async def _start(place: Path, name: str, clients: dict[str, int], routes: dict[str, int]) -> asyncio.subprocess.Process:
    """As in a container, but for ports: three cannot have the same on one machine."""
    folder = place / name
    folder.mkdir()
    text = (place / "s" / "nats" / "nats.conf").read_text()
    for other, port in routes.items():
        text = text.replace(f"@{other}:6222", f"@127.0.0.1:{port}")
    text = text.replace("port: 6222", f'listen: "127.0.0.1:{routes[name]}"')
    text = text.replace("port: 4222", f'listen: "127.0.0.1:{clients[name]}"').replace("http_port: 8222\n", "")
    text = text.replace('"/data"', json.dumps(str(folder / "data")))
    (folder / "nats.conf").write_text(text)
    (folder / "accounts.conf").write_bytes((place / "s" / "nats" / "accounts.conf").read_bytes())
    (folder / "agents.conf").write_text(render_agents([]))
    with (folder / "log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *(_find_server(), "-c", str(folder / "nats.conf")),
            env={**os.environ, "NATS_NAME": name},
            stdout=log,
            stderr=log,
        )


async def _until(call: Callable[[], Awaitable[T]], within_s: float = 60.0) -> T:
    """What the first call gives that the cluster answers: a leader is elected within seconds."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.1)
