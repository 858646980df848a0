"""Every internal port refuses a caller without its credential, and gives each caller only what is its own."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from typing import Any

import asyncpg
import grpc
import grpc.aio
import nats
import nats.errors
import pytest
from nats.aio.client import Client

from forebay.wire.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
)
from tests.system.installation import Installation


def _calls(installation: Installation, channels: list[grpc.aio.Channel]) -> dict[str, Any]:
    def channel(offset: int) -> grpc.aio.Channel:
        channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{installation.base_port + offset}"))
        return channels[-1]

    return {
        "admin": admin_pb2_grpc.OperatorStub(channel(2)).ListKeys,
        "admin's streams": admin_pb2_grpc.AdminStub(channel(2)).WatchPrincipals,
        "scheduler": scheduler_pb2_grpc.SchedulerStub(channel(3)).ShowQueue,
        "registry": registry_pb2_grpc.RegistryStub(channel(4)).ListBackends,
    }


_REQUESTS: dict[str, Any] = {
    "admin": admin_pb2.ListKeysRequest(),
    "admin's streams": admin_pb2.WatchRequest(),
    "scheduler": scheduler_pb2.ShowQueueRequest(),
    "registry": registry_pb2.ListBackendsRequest(),
}


async def _code(call: Any, request: Any, token: str | None) -> grpc.StatusCode:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    answer = call(request, metadata=metadata, timeout=30)
    try:
        if hasattr(answer, "__aiter__") and not hasattr(answer, "__await__"):
            async for _ in answer:
                answer.cancel()
                return grpc.StatusCode.OK
        else:
            await answer
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("port", list(_REQUESTS))
async def test_a_grpc_port_refuses(installation: Installation, port: str) -> None:
    tokens = installation.data_dir / "secrets" / "tokens"
    channels: list[grpc.aio.Channel] = []
    call, request = _calls(installation, channels)[port], _REQUESTS[port]
    try:
        assert await _code(call, request, None) == grpc.StatusCode.UNAUTHENTICATED
        assert await _code(call, request, "not-a-token") == grpc.StatusCode.UNAUTHENTICATED
        # A credential of somebody else does not do either: the scheduler has no business in any of these.
        other = "gateway" if port == "scheduler" else "scheduler"
        wrong = (tokens / f"{other}.token").read_text().strip()
        assert await _code(call, request, wrong) in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
    finally:
        for channel in channels:
            await channel.close()


async def test_nats_refuses_strangers_and_keeps_each_user_to_its_subjects(installation: Installation) -> None:
    url = f"nats://127.0.0.1:{installation.base_port + 10}"

    async def quiet(_: Exception) -> None: ...

    stranger = Client()
    with pytest.raises((nats.errors.Error, OSError)):
        await stranger.connect(url, allow_reconnect=False, connect_timeout=2, error_cb=quiet)
    await stranger.close()

    complaints: list[str] = []

    async def note(error: Exception) -> None:
        complaints.append(str(error))

    seed = installation.data_dir / "secrets" / "nats" / "gateway-1.nk"
    connection = await nats.connect(
        url, nkeys_seed=str(seed), allow_reconnect=False, error_cb=note, inbox_prefix=b"_INBOX_gateway-1"
    )
    try:
        await connection.publish("forebay.usage.gateway-2", b"")
        await connection.publish("forebay.telemetry.somewhere", b"")
        await connection.subscribe("forebay.usage.>")
        await connection.flush()
        for _ in range(50):
            if len(complaints) >= 3:
                break
            await asyncio.sleep(0.05)
        assert sum("permissions violation" in complaint.lower() for complaint in complaints) == 3, complaints
    finally:
        await connection.close()


async def test_postgres_wants_a_password_and_keeps_services_apart(installation: Installation) -> None:
    port = installation.base_port + 11
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(host="127.0.0.1", port=port, user="forebay_admin", password="wrong", database="forebay")
    url = (installation.data_dir / "secrets" / "registry.database_url").read_text().strip()
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("select count(*) from registry.backends") >= 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval("select count(*) from admin.keys")
    finally:
        await connection.close()


def test_the_demo_engine_wants_its_key(installation: Installation) -> None:
    url = f"http://127.0.0.1:{installation.base_port + 12}/v1/chat/completions"
    request = urllib.request.Request(url, b"{}", {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    with refused.value:
        assert refused.value.code == 401


def test_no_secret_file_is_readable_by_others(installation: Installation) -> None:
    secrets = [path for path in (installation.data_dir / "secrets").rglob("*") if path.is_file()]
    assert len(secrets) > 10
    loose = [path.name for path in [*secrets, installation.data_dir / "connection.json"] if path.stat().st_mode & 0o077]
    assert loose == []


def test_no_log_holds_a_key(installation: Installation) -> None:
    secret = installation.key.rpartition("-")[2]
    logs = list((installation.data_dir / "logs").glob("*"))
    assert logs
    assert [log.name for log in logs if secret in log.read_text(errors="replace")] == []
