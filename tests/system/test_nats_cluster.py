"""One of three NATS servers dies, the one that leads the scheduler's lease, alone and together with the scheduler that
leads.

NATS elects another leader of what that server led, which takes it 4 to 9 s whatever we do. Meanwhile no lease can be renewed
or taken, and no ceiling raised: gateways go on within those that there are."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from forebay.local.process import Child, Command, start_child
from forebay.local.service_secrets import keep_service_secrets
from tests.system.installation import free_base_port
from tests.system.nats_cluster import NatsCluster

LEASE = "KV_forebay-leader"
WITHIN_S = 120.0
"""Measured are less than twelve; a busy machine is no fault."""
_LOOK_S = 0.02
_WHILE_S = 3.0
"""Longer than a standby lets an old leader go first."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True)
class Scheduler:
    child: Child
    log: Path
    ops_port: int
    client: aiohttp.ClientSession

    async def leads(self) -> bool:
        return await self._says("forebay_scheduler_leads 1.0")

    async def stands_by(self) -> bool:
        """And knows for whom."""
        return await self._says("forebay_scheduler_leads 0.0") and "lead_standby" in self.log.read_text()

    async def _says(self, line: str) -> bool:
        url, within = f"http://127.0.0.1:{self.ops_port}/metrics", aiohttp.ClientTimeout(total=5)
        try:
            async with self.client.get(url, timeout=within) as answer:
                return line in (await answer.text()).splitlines()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path) as cluster:
        yield cluster


@asynccontextmanager
async def two_schedulers(place: Path, nats: NatsCluster) -> AsyncIterator[tuple[Scheduler, Scheduler]]:
    """The first leads, the other stands by. There is nobody else: no admin, no registry, no gateway."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession())
        base = free_base_port()
        first = await _start(stack, place, nats, client, base, "scheduler-1")
        await becomes(first.leads, "the first does not lead")
        other = await _start(stack, place, nats, client, base + 2, "scheduler-2")
        await becomes(other.stands_by, "the other does not stand by")
        assert nats.copies_of(LEASE) == 3
        yield first, other


async def _start(
    stack: AsyncExitStack, place: Path, nats: NatsCluster, client: aiohttp.ClientSession, port: int, name: str
) -> Scheduler:
    secrets = keep_service_secrets(place / "secrets")
    told = {
        "NATS_REPLICAS": "3",
        "LISTEN": f"127.0.0.1:{port}",
        "OPS_LISTEN": f"127.0.0.1:{port + 1}",
        "ADMIN_ADDRESS": "127.0.0.1:9",
        "REGISTRY_ADDRESS": "127.0.0.1:9",
        "TOKEN_FILE": str(secrets.token_file("scheduler")),
        "CALLERS_FILE": str(secrets.callers_file),
        "SNAPSHOT_DIR": str(place / name),
        "SNAPSHOT_KEY_FILE": str(secrets.snapshot_key_file),
    }
    environ = {**os.environ, "NATS_URL": nats.url} | {f"FOREBAY_SCHEDULER_{name}": told[name] for name in told}
    argv = (sys.executable, "-P", "-m", "forebay", "run", "scheduler")
    log = place / f"{name}.log"
    child = await start_child(Command(name, argv, log, environ=environ))
    stack.push_async_callback(child.stop)
    return Scheduler(child, log, port + 1, client)


async def becomes(is_so: Callable[[], Awaitable[bool]], otherwise: str) -> float:
    """How many seconds that took."""
    began = time.monotonic()
    while not await is_so():
        assert time.monotonic() - began < WITHIN_S, f"{otherwise} within {WITHIN_S} s"
        await asyncio.sleep(_LOOK_S)
    return time.monotonic() - began


async def test_without_the_server_that_led_the_lease_the_leader_leads_on_and_renews_it_when_nats_has_elected(
    tmp_path: Path, nats: NatsCluster
) -> None:
    async with two_schedulers(tmp_path, nats) as (first, other):
        nats.kill(nats.leader_of(LEASE))
        before = nats.written(LEASE) + 1  # the last renewal may come through yet

        async def is_renewed() -> bool:
            assert await first.leads()
            return await asyncio.to_thread(nats.written, LEASE) > before

        renewed_s = await becomes(is_renewed, "nobody renews the lease")
        await asyncio.sleep(_WHILE_S)
        assert await first.leads()
        assert await other.stands_by()
    print(f"renewed again after {renewed_s:.2f} s")  # noqa: T201


async def test_without_that_server_and_the_leader_the_standby_leads_when_nats_has_elected(
    tmp_path: Path, nats: NatsCluster
) -> None:
    async with two_schedulers(tmp_path, nats) as (first, other):
        nats.kill(nats.leader_of(LEASE))
        first.child.send(signal.SIGKILL)
        led_s = await becomes(other.leads, "the standby does not lead")
    print(f"another led after {led_s:.2f} s")  # noqa: T201
