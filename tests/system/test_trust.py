"""Every internal port of a whole installation refuses whoever shows no credential, and one that is not ours."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import pkgutil
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import grpc
import grpc.aio
import nkeys
import pytest
from google.protobuf.descriptor import MethodDescriptor

import forebay.wire.v1
from forebay.local.nats import new_seed
from tests.system.installation import Installation

GRPC_PORTS = {"admin": 2, "scheduler": 3, "registry": 4}
"""Above the base port."""
OPS_PORTS = {"gateway": 5, "scheduler": 6, "registry": 7, "admin": 8, "gpu-agent": 9}


def _methods() -> Iterator[MethodDescriptor]:
    """Every call of every service that there is."""
    for module in pkgutil.iter_modules(forebay.wire.v1.__path__):
        if module.name.endswith("_pb2"):
            described = importlib.import_module(f"forebay.wire.v1.{module.name}").DESCRIPTOR
            for service in described.services_by_name.values():
                yield from service.methods


_AGAIN = 5


async def _outcome(channel: grpc.aio.Channel, method: MethodDescriptor, metadata: Any) -> grpc.StatusCode:
    path = f"/{method.containing_service.full_name}/{method.name}"
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(channel, kind)(path)

    async def one() -> AsyncIterator[bytes]:
        yield b""

    answering = call(one() if method.client_streaming else b"", metadata=metadata, timeout=20)
    try:
        if method.server_streaming:
            async for _ in answering:
                break
        else:
            await answering
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("bearer", [None, "fb-0123456789ab-" + "x" * 43, "not-one-of-ours"])
async def test_no_call_of_any_service_is_answered_without_a_credential_of_ours(
    installation: Installation, bearer: str | None
) -> None:
    metadata = (("authorization", f"Bearer {bearer}"),) if bearer else ()
    methods = list(_methods())
    assert len(methods) > 100
    refused: dict[str, set[str]] = {}
    for port, above in GRPC_PORTS.items():
        async with grpc.aio.insecure_channel(f"127.0.0.1:{installation.base_port + above}") as channel:
            for method in methods:
                code = await _outcome(channel, method, metadata)
                for _ in range(_AGAIN):
                    if not (method.client_streaming and code is grpc.StatusCode.INTERNAL):
                        break
                    # A port without that call said so while the first message was on its way; gRPC calls it broken.
                    code = await _outcome(channel, method, metadata)
                assert code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED), (
                    port,
                    method.full_name,
                    code,
                )
                if code is grpc.StatusCode.UNAUTHENTICATED:
                    refused.setdefault(method.full_name, set()).add(port)
    assert {method.full_name for method in methods} == refused.keys(), "each call is some port's"
    assert {port for ports in refused.values() for port in ports} == set(GRPC_PORTS)


async def test_no_address_of_the_rest_api_answers_without_a_key(
    installation: Installation, client: aiohttp.ClientSession
) -> None:
    url = installation.connection["admin_http"]
    async with client.get(f"{url}/api/v1/openapi.json") as answer:
        document = json.loads(await answer.read())
    open_ones = []
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            if method not in ("get", "post", "put", "patch", "delete"):
                continue
            where = re.sub(r"\{[^}]+\}", "x", path)
            async with client.request(method, f"{url}/api/v1{where}", json={} if method != "get" else None) as answer:
                if answer.status not in (401, 403):
                    open_ones.append((method, path, answer.status, call.get("security")))
    assert [one for one in open_ones if one[3] != []] == [], "the document says of what is open that it is"
    assert len(open_ones) < 10


async def _greeting(port: int, seed: str | None = None, **credentials: str) -> bytes:
    """What NATS says to one who introduces itself so; by the protocol itself, since its client keeps what failed open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        told = json.loads((await reader.readline()).removeprefix(b"INFO "))
        if seed is not None:
            pair = nkeys.from_seed(bytearray(seed.encode()))
            credentials["nkey"] = pair.public_key.decode()
            credentials["sig"] = base64.urlsafe_b64encode(pair.sign(told["nonce"].encode())).rstrip(b"=").decode()
        asked = {"verbose": False, "pedantic": False, "lang": "python", "version": "1", "protocol": 1, **credentials}
        writer.write(b"CONNECT " + json.dumps(asked).encode() + b"\r\nPING\r\n")
        await writer.drain()
        async with asyncio.timeout(20):
            return await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_nats_lets_nobody_in_without_a_key_of_ours(installation: Installation) -> None:
    port = installation.base_port + 10
    for credentials in ({}, {"user": "admin", "pass": secrets.token_hex()}, {"auth_token": "admin"}):
        assert b"Authorization Violation" in await _greeting(port, **credentials)
    assert b"Authorization Violation" in await _greeting(port, new_seed())
    ours = (installation.data_dir / "secrets" / "nats" / "admin.nk").read_text().strip()
    assert await _greeting(port, ours) == b"PONG\r\n", "so it was the key that was missing"


@pytest.mark.parametrize(
    ("user", "password"), [("postgres", ""), ("forebay", "forebay"), ("admin", "x"), ("registry", "x")]
)
async def test_postgres_lets_nobody_in_without_their_password(
    installation: Installation, user: str, password: str
) -> None:
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await asyncpg.connect(
            host="127.0.0.1",
            port=installation.base_port + 11,
            user=user,
            password=password,
            database="forebay",
            timeout=20,
        )


async def test_ops_ports_tell_nothing_of_people_and_take_nothing(
    installation: Installation, client: aiohttp.ClientSession
) -> None:
    key = await asyncio.to_thread(installation.make_key, "somebody-in-particular")
    url = f"{installation.gateway}/v1/models"
    async with client.get(url, headers={"authorization": f"Bearer {key}"}) as answer:
        assert answer.status == 200
    for part, above in OPS_PORTS.items():
        ops = f"http://127.0.0.1:{installation.base_port + above}"
        for page in ("/healthz", "/readyz", "/metrics", "/", "/debug", "/../../etc/passwd"):
            async with client.get(ops + page) as answer:
                text = await answer.text()
            assert "somebody-in-particular" not in text, (part, page)
            assert key.split("-")[1] not in text, (part, page)
            assert "root:" not in text
        for method in ("POST", "PUT", "DELETE"):
            async with client.request(method, f"{ops}/metrics") as answer:
                assert answer.status == 501, (part, method)


def test_what_is_secret_is_its_owners_alone(installation: Installation) -> None:
    kept = [path for path in (installation.data_dir / "secrets").rglob("*") if path.is_file()]
    assert kept
    loose = [path.name for path in kept if path.stat().st_mode & 0o077 and path.suffix not in (".pem", ".crt")]
    assert loose == []
    assert Path(installation.data_dir / "admin.key").stat().st_mode & 0o077 == 0
