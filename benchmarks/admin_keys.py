"""A hundred thousand keys: how soon four gateways enforce a revocation, how soon one serves from its snapshot on disk, and
how much memory they take there."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import secrets
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.targets import Target
from forebay.clock import SystemClock
from forebay.follow import Follower
from forebay.keys import new_key, seal_secret
from forebay.memory_bus import MemoryBus
from forebay.ops import Ops
from forebay.rpc import open_peer, render_tokens
from forebay.sealed import Seal, SnapshotFile
from forebay.service import Ground
from forebay.wire.v1 import admin_pb2, admin_pb2_grpc
from forebay_admin.config import AdminSettings
from forebay_admin.service import open_admin
from forebay_gateway.callers.principals import Principals
from forebay_gateway.callers.principals_watch import PrincipalsWatch
from tests.conftest import free_port

GATEWAYS = 4
_STARTS = 3
_KEY = new_key()
_TOKENS = {name: secrets.token_hex(16) for name in ("gateway", "scheduler", "registry", "admin", "up")}
_PEPPER = "p" * 64
_SEAL = b"s" * 64
_PURPOSE = "benchmark-principals"
_WITHIN_S = 120.0

_PEOPLE = """
    INSERT INTO admin.groups (id, name, weight_milli, created_at, version)
    SELECT 'group_' || n, 'group-' || n, 1000, now(), 1 FROM generate_series(1, 250) AS n;
    INSERT INTO admin.users (id, name, group_id, role, disabled, weight_milli, max_queued, created_at, version)
    SELECT 'user_' || n, 'user-' || n, 'group_' || (n % 250 + 1), 'member', false, 1000, 0, now(), 1
    FROM generate_series(1, {people}) AS n;
    INSERT INTO admin.keys
        (public_id, name, user_id, secret_hmac, allowed_models, pool, band_cap, created_by, created_at, version)
    SELECT lpad(to_hex(n), 12, '0'), 'key', 'user_' || (n % {people} + 1), sha256(n::text::bytea),
        CASE WHEN n % 4 = 0 THEN ARRAY['llama*'] ELSE ARRAY[]::text[] END, '', 'interactive', 'benchmark', now(), 1
    FROM generate_series(1, {keys}) AS n;
    ANALYZE;
"""


@dataclass
class _Gateway:
    """What one knows of keys, and when it heard that one ended."""

    peer: Any
    heard: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.principals = Principals(_PEPPER.encode())
        self.watch = PrincipalsWatch(self.peer, self.principals, self._on_ended, lambda ids: None)

    def _on_ended(self, key_ids: list[str]) -> None:
        now = time.monotonic()
        self.heard.update(dict.fromkeys(key_ids, now))


async def measure_keys(url: str, work: Path, *, keys: int, revocations: int) -> list[Target]:
    """`url`: of a database with admin's tables and nothing in them."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_PEOPLE.format(keys=keys, people=max(1, keys // 4)))
    finally:
        await connection.close()
    async with _admin(url, work) as (address, key):
        late_s, dumped = await _revoke(address, key, revocations)
    snapshot = work / "principals.snapshot"
    SnapshotFile(snapshot, Seal(_SEAL, _PURPOSE), 1e9).write(dumped, time.time())
    starts = [await _hold(snapshot) for _ in range(_STARTS)]
    held = min(starts, key=lambda start: start["seconds"])
    late_s.sort()
    p99_ms = late_s[math.ceil(0.99 * len(late_s)) - 1] * 1000
    about = f"{keys:,} keys"
    return [
        Target(
            "keys.revocation_p99",
            p99_ms,
            500,
            "at most",
            "ms",
            f"{about}; {revocations} revocations, from the call until the last of {GATEWAYS} gateways refuses the key",
        ),
        Target(
            "keys.start",
            held["seconds"],
            2.0,
            "at most",
            "s",
            f"{about}, from the sealed snapshot on disk; the least disturbed of {_STARTS}, {held['cpu']:.2g} s of it CPU",
        ),
        Target(
            "keys.memory",
            max(start["megabytes"] for start in starts),
            100.0,
            "at most",
            "MB",
            f"{about}, by which the process has grown",
        ),
    ]


async def _revoke(address: str, key: str, revocations: int) -> tuple[list[float], bytes]:
    """How late the last gateway was for each, in seconds; and the keys as a gateway writes them down."""
    late_s: list[float] = []
    async with AsyncExitStack() as stack:
        gateways = [
            _Gateway(await stack.enter_async_context(open_peer(address, token=_TOKENS["gateway"])))
            for _ in range(GATEWAYS)
        ]
        followers = [Follower(one.watch, None, SystemClock(), Ops("benchmark")) for one in gateways]
        following = [asyncio.create_task(follower.follow()) for follower in followers]
        try:
            await _until(lambda: all(one.principals.is_known for one in gateways))
            operator = await stack.enter_async_context(open_peer(address, token=key))
            stub: Any = admin_pb2_grpc.OperatorStub(operator.channel)
            for number in range(1, revocations + 1):
                key_id = f"{number:012x}"
                began = time.monotonic()
                await stub.RevokeKey(admin_pb2.RevokeKeyRequest(key_id=key_id), metadata=operator.metadata)
                await _until(lambda key_id=key_id: all(key_id in one.heard for one in gateways))
                late_s.append(max(one.heard[key_id] for one in gateways) - began)
            return late_s, gateways[0].watch.dump()
        finally:
            for task in following:
                task.cancel()


async def _hold(snapshot: Path) -> dict[str, float]:
    """In a process of its own, whose memory nothing else has grown."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.admin_keys", str(snapshot), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    told: dict[str, float] = json.loads(out)
    return told


@asynccontextmanager
async def _admin(url: str, work: Path) -> AsyncIterator[tuple[str, str]]:
    """Its gRPC address, and the first admin's key."""
    files = {"callers": render_tokens(_TOKENS), "token": _TOKENS["admin"], "pepper": _PEPPER, "seal": _SEAL.decode()}
    for name, text in files.items():
        (work / name).write_text(text)
    await _make_admin(url)
    settings = AdminSettings(
        listen=f"127.0.0.1:{free_port()}",
        http_listen=f"127.0.0.1:{free_port()}",
        registry_address="127.0.0.1:1",
        scheduler_address="127.0.0.1:1",
        token_file=work / "token",
        callers_file=work / "callers",
        nats_url="memory:",
        database_url=url,
        pepper_file=work / "pepper",
        seal_key_file=work / "seal",
        bootstrap_key_file=work / "admin.key",
    )
    clock = SystemClock()
    ground = Ground("admin", clock, Ops("admin"), MemoryBus(clock.now))
    async with open_admin(settings, ground):
        await _until(lambda: not set(ground.ops.missing) - {"start"})
        yield settings.listen, str(_KEY)


async def _make_admin(url: str) -> None:
    """Beside the others, since a database with users in it gets no first admin."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("UPDATE admin.users SET role = 'admin' WHERE id = 'user_1'")
        await connection.execute(
            "INSERT INTO admin.keys (public_id, name, user_id, secret_hmac, allowed_models, pool, band_cap, created_by, "
            "created_at, version) VALUES ($1, 'key', 'user_1', $2, '{}', '', 'interactive', 'benchmark', now(), 1)",
            _KEY.public_id,
            seal_secret(_PEPPER.encode(), _KEY.secret),
        )
    finally:
        await connection.close()


async def _until(holds: Any) -> None:
    async with asyncio.timeout(_WITHIN_S):
        while not holds():
            await asyncio.sleep(0.001)


def _megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def hold(arguments: Sequence[str]) -> None:
    """The child: prints how long it took to know the keys of a snapshot, and how much it has grown by."""

    class NoPeer:
        channel, metadata = _NoChannel(), ()

    principals = Principals(_PEPPER.encode())
    peer: Any = NoPeer()
    watch = PrincipalsWatch(peer, principals, lambda ids: None, lambda ids: None)
    gc.collect()
    before, began, cpu = _megabytes(), time.monotonic(), time.process_time()
    kept = SnapshotFile(Path(arguments[0]), Seal(_SEAL, _PURPOSE), 1e9).read(time.time())
    watch.restore(kept or b"")
    principals.find("000000000fff", time.time())
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    del kept
    gc.collect()
    print(json.dumps({"seconds": seconds, "cpu": cpu, "megabytes": _megabytes() - before}))


class _NoChannel:
    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: None


if __name__ == "__main__":
    hold(sys.argv[1:])
