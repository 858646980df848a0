"""`forebay up --mtls`: every inner port asks for a certificate, requests are answered, and all certificates and their
authority are replaced while a stream runs."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import nats.errors
import pytest
from nats.aio.client import Client

from forebay.internal_tls import PeerTls, client_context
from forebay.rpc import open_peer
from forebay.wire.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
)
from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation, ask, eventually, start_up, stream
from tests.system.next_version import NEXT, make_next_version

_PORTS = {"admin": 2, "scheduler": 3, "registry": 4}
_OPERATORS = 19
_UNAVAILABLE = 6


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, fake_engine: FakeEngineProcess) -> Iterator[Installation]:
    running = start_up(tmp_path_factory.mktemp("mtls") / "data", "--mtls", "--no-engine")
    try:
        cli(running, "backend", "add", "fake", fake_engine.url)
        yield running
    finally:
        running.stop()


def cli(installation: Installation, *words: str) -> Any:
    """As an operator on this machine types it: everything that is needed stands in connection.json."""
    done = run_cli(installation, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def has_row(installation: Installation, request_id: str) -> bool:
    """Not yet, as long as admin comes up."""
    done = run_cli(installation, "usage", "--rows")
    assert done.returncode in (0, _UNAVAILABLE), done.stderr
    return done.returncode == 0 and any(row["request_id"] == request_id for row in json.loads(done.stdout))


def run_cli(installation: Installation, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FOREBAY_")}
    return subprocess.run(
        [sys.executable, "-m", "forebay", *words, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment, "FOREBAY_DATA_DIR": str(installation.data_dir)},
    )


def pki(installation: Installation) -> Path:
    return installation.data_dir / "secrets" / "pki"


def tls_of(installation: Installation, part: str) -> PeerTls:
    place = pki(installation) / part
    return PeerTls(place / "ca.crt", place / "tls.crt", place / "tls.key")


def token_of(installation: Installation, part: str) -> str:
    return (installation.data_dir / "secrets" / "tokens" / f"{part}.token").read_text().strip()


async def code(address: str, service: str, token: str, tls: PeerTls | None) -> grpc.StatusCode:
    """Of one call."""
    async with open_peer(address, token=token, tls=tls) as peer:
        calls: dict[str, tuple[Any, Any]] = {
            "admin": (admin_pb2_grpc.OperatorStub(peer.channel).ListKeys, admin_pb2.ListKeysRequest()),
            "scheduler": (scheduler_pb2_grpc.SchedulerStub(peer.channel).ShowQueue, scheduler_pb2.ShowQueueRequest()),
            "registry": (registry_pb2_grpc.RegistryStub(peer.channel).ListBackends, registry_pb2.ListBackendsRequest()),
        }
        call, request = calls[service]
        try:
            await call(request, metadata=peer.metadata, timeout=30)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


async def answered(installation: Installation, client: aiohttp.ClientSession, request_id: str) -> None:
    result = await stream(
        client, installation.gateway, installation.key, ask("hello", model="fake-model", max_tokens=3), request_id
    )
    assert (result.status, result.is_done, result.error) == (200, True, None)


@pytest.fixture
async def client(secured: Installation) -> Any:
    async with aiohttp.ClientSession() as session:
        async with asyncio.timeout(90):
            while True:
                async with session.get(f"{secured.gateway}/v1/models", headers=secured.headers) as response:
                    if (await response.json()).get("data"):
                        break
                await asyncio.sleep(0.1)
        yield session


async def test_a_request_is_answered(secured: Installation, client: aiohttp.ClientSession) -> None:
    await answered(secured, client, "mtls-1")
    await eventually(
        lambda: any(row["request_id"] == "mtls-1" for row in cli(secured, "usage", "--rows")), 60, "no ledger row came"
    )


@pytest.mark.parametrize("service", list(_PORTS))
async def test_an_inner_grpc_port_wants_a_certificate_of_the_caller_whose_token_it_is(
    secured: Installation, service: str
) -> None:
    address = f"127.0.0.1:{secured.base_port + _PORTS[service]}"
    caller = "up" if service == "admin" else "admin"
    token, other = token_of(secured, caller), tls_of(secured, "gateway-1")
    assert await code(address, service, token, tls_of(secured, caller)) is grpc.StatusCode.OK
    assert await code(address, service, token, PeerTls(other.ca)) is grpc.StatusCode.UNAVAILABLE
    assert await code(address, service, token, None) is grpc.StatusCode.UNAVAILABLE
    assert await code(address, service, token, other) is grpc.StatusCode.UNAUTHENTICATED


async def test_what_is_refused_leaves_no_line_in_the_log_that_is_not_of_our_form(secured: Installation) -> None:
    address = f"127.0.0.1:{secured.base_port + _PORTS['scheduler']}"
    ca = PeerTls(pki(secured) / "admin" / "ca.crt")
    assert await code(address, "scheduler", token_of(secured, "admin"), ca) is grpc.StatusCode.UNAVAILABLE
    lines = (secured.data_dir / "logs" / "scheduler.log").read_text().splitlines()
    assert lines
    assert [line for line in lines if not line.startswith("{")] == []


async def test_operators_need_a_key_and_no_certificate_on_a_port_that_takes_no_service(secured: Installation) -> None:
    address, ca = secured.connection["admin_grpc"], PeerTls(Path(secured.connection["admin_ca"]))
    assert address == f"127.0.0.1:{secured.base_port + _OPERATORS}"
    assert await code(address, "admin", secured.key, ca) is grpc.StatusCode.OK
    assert await code(address, "admin", secured.key, None) is grpc.StatusCode.UNAVAILABLE
    assert await code(address, "admin", token_of(secured, "up"), ca) is grpc.StatusCode.UNAUTHENTICATED
    assert (
        await code(address, "admin", token_of(secured, "up"), tls_of(secured, "up")) is grpc.StatusCode.UNAUTHENTICATED
    )
    assert cli(secured, "whoami")["user"] == "admin"


async def test_nats_wants_a_certificate_over_and_above_the_nkey(secured: Installation) -> None:
    with_one = client_context(tls_of(secured, "gateway-1"))
    without = client_context(PeerTls(pki(secured) / "gateway-1" / "ca.crt"))
    assert await nats_lets_in(secured, with_one)
    assert not await nats_lets_in(secured, without)


async def nats_lets_in(installation: Installation, tls: ssl.SSLContext) -> bool:
    async def quiet(_: Exception) -> None: ...

    stranger = Client()
    seed = installation.data_dir / "secrets" / "nats" / "gateway-1.nk"
    try:
        await stranger.connect(
            f"tls://127.0.0.1:{installation.base_port + 10}",
            tls=tls,
            nkeys_seed=str(seed),
            allow_reconnect=False,
            connect_timeout=10,
            error_cb=quiet,
        )
        await stranger.flush()
    except (nats.errors.Error, OSError):
        return False
    finally:
        await stranger.close()
    return True


async def test_the_authority_is_replaced_while_a_stream_runs_and_parts_restart(
    secured: Installation, client: aiohttp.ClientSession
) -> None:
    body = ask("hello", model="fake-model", max_tokens=4000, stream=True, ignore_eos=True)
    async with client.post(f"{secured.gateway}/v1/chat/completions", json=body, headers=secured.headers) as response:
        assert response.status == 200
        arrived: list[bytes] = []
        reading = asyncio.create_task(read_into(arrived, response))
        await eventually(lambda: bool(arrived), 60, "nothing was streamed")
        await replace_authority(secured, client)
        for part in ("registry", "scheduler", "admin", "nats"):
            killed = secured.kill(part)
            await secured.wait_restarted(part, killed)
        so_far = len(arrived)
        await eventually(lambda: len(arrived) > so_far, 60, "the stream said nothing more")
        assert not reading.done()
        assert b'"error"' not in b"".join(arrived)
        reading.cancel()
    for service, offset in _PORTS.items():
        caller = "up" if service == "admin" else "admin"
        address = f"127.0.0.1:{secured.base_port + offset}"
        await until_ok(address, service, token_of(secured, caller), tls_of(secured, caller))
    await answered(secured, client, "mtls-after")
    await eventually(
        lambda: has_row(secured, "mtls-after"),
        90,
        "no ledger row came",
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_it_is_backed_up_restored_and_replaced_by_a_new_version_like_any_other(
    secured: Installation, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    told = await asyncio.to_thread(forebay, "backup", tmp_path / "a.backup", "--data-dir", secured.data_dir)
    assert told["warnings"] == []
    assert told["streams"].keys() >= {"FOREBAY_USAGE", "KV_forebay-scheduler"}
    await asyncio.to_thread(forebay, "restore", tmp_path / "a.backup", "--data-dir", tmp_path / "restored")
    for part in ("ca/ca.key", "gateway-1/tls.key", "nats/tls.crt"):
        assert (tmp_path / "restored" / "secrets" / "pki" / part).read_bytes() == (pki(secured) / part).read_bytes()

    new = make_next_version(tmp_path / "next")
    words = ("upgrade", "--to", new, "--data-dir", secured.data_dir, "--no-backup", "--ready-within", "300")
    told = await asyncio.to_thread(forebay, *words)
    assert (told["result"], told["to"]) == ("upgraded", NEXT)
    await answered(secured, client, "mtls-upgraded")
    await eventually(
        lambda: has_row(secured, "mtls-upgraded"),
        90,
        "no ledger row came",
    )


def forebay(*words: str | Path) -> Any:
    """The last of what it tells."""
    done = subprocess.run(
        [sys.executable, "-m", "forebay", *map(str, words), "--json"], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr)
    return json.loads(done.stdout if words[0] != "upgrade" else done.stdout.splitlines()[-1])


async def replace_authority(secured: Installation, client: aiohttp.ClientSession) -> None:
    """By the command, while everything runs; a request is answered after each step."""
    before = (pki(secured) / "up" / "ca.crt").read_bytes()
    for step in ("begin", "switch", "finish"):
        done = await asyncio.to_thread(cli_pki, secured, step)
        assert done.returncode == 0, done.stderr
        await answered(secured, client, f"mtls-{step}")
        await asyncio.sleep(1)  # as long as NATS takes to look at its files, and more
    assert (pki(secured) / "up" / "ca.crt").read_bytes() != before


async def read_into(arrived: list[bytes], response: aiohttp.ClientResponse) -> None:
    async for chunk in response.content.iter_any():
        arrived.append(chunk)


def cli_pki(installation: Installation, step: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "forebay", "pki", "rotate-ca", str(pki(installation)), step],
        capture_output=True,
        text=True,
        timeout=60,
    )


async def until_ok(address: str, service: str, token: str, tls: PeerTls) -> None:
    async with asyncio.timeout(90):
        while await code(address, service, token, tls) is not grpc.StatusCode.OK:
            await asyncio.sleep(0.2)
