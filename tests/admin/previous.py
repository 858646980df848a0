"""Admin of the version before, in a process of its own: the tree of an earlier commit, on the files of a test's site."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import mkdtemp

import aiohttp
import grpc.aio

from forebay.wire.v1 import admin_pb2_grpc
from tests.admin.replica import OperatorCalls, Site, WatchCalls

COMMIT = "ba32a4f0241e2850c8bb792b256081af9b2affd0"
"""To be moved on where that version cannot run beside today's for a good reason, which the changelog then tells; and once
there are releases, to the last one."""

REVISION = "0016"
"""The newest one of its schema."""

_ROOT = Path(__file__).parents[2]
_READY_S = 120.0
_STOP_S = 60.0
SETTINGS = (
    *("registry_address", "scheduler_address", "token_file", "callers_file", "pepper_file", "seal_key_file"),
    *("bootstrap_key_file", "agents_file", "password_hash_mib"),
)
"""Those of the site that it knows."""


@dataclass(frozen=True)
class Previous:
    calls: OperatorCalls
    """With the first admin's key."""
    gateway: WatchCalls
    log: Path


def unpacked() -> Path:
    """The folder with its code, made once."""
    place = _ROOT / "build" / "previous" / COMMIT
    if place.exists():
        return place
    archive = subprocess.run(
        ["git", "archive", "--format=tar", COMMIT, "forebay", "services"], cwd=_ROOT, capture_output=True
    )
    if archive.returncode != 0:
        raise AssertionError(
            f"The version before is commit {COMMIT[:12]}, which is not in this clone: `git fetch --unshallow`, or clone "
            f"with the whole history. Git said: {archive.stderr.decode().strip()}"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(mkdtemp(dir=place.parent))
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
        tar.extractall(fresh, filter="data")
    try:
        fresh.rename(place)
    except OSError:
        assert place.exists(), f"{fresh} cannot become {place}"  # else another run was faster
    return place


@asynccontextmanager
async def open_previous(
    site: Site, database_url: str, nats_url: str, *, port: int, http_port: int, ops_port: int
) -> AsyncIterator[Previous]:
    """Ready when entered; has ended in good order when left."""
    tree = unpacked()
    told = {
        "listen": f"127.0.0.1:{port}",
        "http_listen": f"127.0.0.1:{http_port}",
        "ops_listen": f"127.0.0.1:{ops_port}",
        "database_url": database_url,
        "nats_url": nats_url,
        **{name: getattr(site.settings, name) for name in SETTINGS},
    }
    log = site.directory / "previous.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "forebay", "run", "admin"],
            cwd=site.directory,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(tree), str(tree / "services" / "admin"))),
                **{f"FOREBAY_ADMIN_{name.upper()}": str(value) for name, value in told.items()},
            },
            stdout=output,
            stderr=output,
        )
    try:
        await _ready(process, ops_port, log)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Previous(
                OperatorCalls(admin_pb2_grpc.OperatorStub(channel), _signed(site.first_key)),
                WatchCalls(admin_pb2_grpc.AdminStub(channel), _signed("token-of-gateway")),
                log,
            )
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, _STOP_S)
        finally:
            process.kill()


def _signed(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def _ready(process: subprocess.Popen[bytes], ops_port: int, log: Path) -> None:
    async with aiohttp.ClientSession() as client, asyncio.timeout(_READY_S):
        while True:
            assert process.poll() is None, f"it ended by itself:\n{log.read_text()[-3000:]}"
            try:
                async with client.get(f"http://127.0.0.1:{ops_port}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
