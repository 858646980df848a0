"""The version before is replaced by today's, one process after another, as a fleet does it: whoever routes to gateways sends
nobody new to one that is to go, it drains, and the next one takes its place. Clients stream all the while.

FOREBAY_CHAOS_LONG=1 goes back to the version before, too, and forward again in the opposite order."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import tomllib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from tests.admin import previous
from tests.chaos.episodes import ENGINES, SLOTS, add_up
from tests.chaos.figures import LONG, Figure, tell
from tests.system.chaos import MODEL, Load
from tests.system.cluster import Cluster, cluster_place, open_cluster
from tests.system.installation import ask, stream

SEED = int(os.environ.get("FOREBAY_CHAOS_SEED", "7"))
SERVICES = {
    "admin": "admin",
    "registry": "registry",
    "scheduler-1": "scheduler",
    "scheduler-2": "scheduler",
    "gateway-1": "gateway",
    "gateway-2": "gateway",
    "gpu-agent": "gpu-agent",
}
CLIENTS = 14
_NOBODY_NEW_S = 0.5
"""From the moment at which nobody is sent there any more until it is told to stop: what is under way arrives."""
_ROOT = Path(__file__).parents[2]
_FIELD = re.compile(r"^    (\w+):", re.MULTILINE)

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


Before = Mapping[str, Mapping[str, str | None]]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Before:
    """Environment variables with which each part runs as the version before."""
    tree, metadata = previous.unpacked(), _metadata(tmp_path_factory.mktemp("metadata"))
    return {part: _as_before(tree, metadata, service) for part, service in SERVICES.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory, before: Before) -> AsyncIterator[Cluster]:
    """All of the version before."""
    async with open_cluster(
        cluster_place(tmp_path_factory, "upgrade"),
        engines=ENGINES,
        engine_slots=SLOTS,
        has_agent=True,
        stop_s=90.0,
        settings=before,
    ) as cluster:
        yield cluster


@dataclass
class RoutedLoad(Load):
    """Clients behind something that routes each connection to a gateway that is ready."""

    routed: list[int] = field(default_factory=lambda: [0, 1])
    connected_again: int = 0
    """Connections that were refused and made elsewhere."""
    connections: aiohttp.ClientSession = field(kw_only=True)

    async def _ask_once(self, number: int, turn: int) -> None:
        words = " ".join(f"w{self.chance.randrange(1000)}" for _ in range(self.chance.randrange(5, 60)))
        usage = {"stream_options": {"include_usage": True}}
        body = ask(words, model=MODEL, max_tokens=self.chance.randrange(5, self.most_tokens), **usage)
        key, request_id = self.cluster.keys[number % len(self.cluster.keys)], f"{self.name}-{number}-{turn}"
        self.asked[number] = request_id
        while True:
            url = self.cluster.gateway_url(self.chance.choice(self.routed))
            result = await stream(self.connections, url, key, body, request_id)
            if "ClientConnectorError" not in result.broke:
                break
            self.connected_again += 1
            await asyncio.sleep(0.05)
        self.results.append(result)


@pytest.mark.timeout(1200 if LONG else 600)
async def test_every_service_is_replaced_beside_the_version_before_and_nobody_notices(
    cluster: Cluster, before: Before
) -> None:
    tree, chance = previous.unpacked(), random.Random(SEED)
    schema = await _schema(cluster)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    replaced: list[str] = []
    async with aiohttp.ClientSession(connector=connector) as connections:
        load = RoutedLoad(cluster, CLIENTS, chance, name="upgrade", most_tokens=240, connections=connections)
        async with load:
            await asyncio.sleep(3)
            for part in await _order(cluster):
                await _replace(cluster, load, part, _as_today(cluster, tree, part))
                replaced.append(part)
            if LONG:
                for part in await _order(cluster):
                    await _replace(cluster, load, part, before[part])
                    replaced.append(part)
                for part in reversed(await _order(cluster)):
                    await _replace(cluster, load, part, _as_today(cluster, tree, part))
                    replaced.append(part)
            await asyncio.sleep(2)
    sums = await add_up(cluster, load)
    failed = [one for one in load.results if one.status != 200 or one.error is not None]
    cut = [one for one in load.results if one.status == 200 and one.error is None and not one.is_done]
    figures: dict[str, Figure] = {
        "replaced": len(replaced),
        "requests": len(load.results),
        "failed": len(failed),
        "streams cut": len(cut),
        "connections made elsewhere": load.connected_again,
        "longest stream s": round(max(one.ended_s for one in load.results), 1),
        "rows lost": sums.lost,
        "rows doubled": sums.doubled,
        "slots leaked": sums.leaked,
        "most slots at once": sums.peak,
        "of": SLOTS,
        "from": previous.COMMIT[:12],
        "schema from": schema,
        "schema to": await _schema(cluster),
    }
    holds = {
        "no failed request": not failed,
        "no cut stream": not cut,
        "zero lost or doubled rows": not (sums.lost or sums.doubled),
        "zero leaked slots": not sums.leaked,
        "all tokens are counted": not sums.problems,
        "engines never had more than their slots": sums.peak <= SLOTS,
        "all run today's version in the end": await _schema(cluster) > schema,
    }
    broken = tell("rolling_upgrade", figures, holds)
    assert not broken, "\n".join([*sums.problems[:20], *map(str, (failed + cut)[:20]), *cluster.said])


async def _order(cluster: Cluster) -> Sequence[str]:
    """Admin first, which makes the new tables; of the schedulers the one that stands by."""
    leader = await cluster.leader()
    standby = next(name for name in cluster.schedulers if name != leader)
    return ["admin", "registry", standby, leader, *cluster.layout.gateways, "gpu-agent"]


async def _replace(cluster: Cluster, load: RoutedLoad, part: str, changed: Mapping[str, str | None]) -> None:
    number = cluster.layout.gateways.index(part) if part in cluster.layout.gateways else None
    if number is not None:
        load.routed.remove(number)
        await asyncio.sleep(_NOBODY_NEW_S)
    served = load.finished
    await cluster.exchange(part, changed)
    if number is not None:
        load.routed.append(number)
    async with asyncio.timeout(60):
        while load.finished == served:
            await asyncio.sleep(0.05)


def _as_before(tree: Path, metadata: Path, service: str) -> dict[str, str | None]:
    """What makes a process of the version before: its code, and no setting that it does not know."""
    return {
        "PYTHONPATH": os.pathsep.join(map(str, (metadata, tree, *sorted((tree / "services").iterdir())))),
        **dict.fromkeys(_new_settings(tree, service)),
    }


def _as_today(cluster: Cluster, tree: Path, part: str) -> dict[str, str | None]:
    """The opposite."""
    told = cluster.environ[part]
    return {
        "PYTHONPATH": os.environ.get("PYTHONPATH"),
        **{name: told.get(name) for name in _new_settings(tree, SERVICES[part])},
    }


def _new_settings(tree: Path, service: str) -> set[str]:
    """Environment variables that the version before does not know."""
    today, before = (
        set(_FIELD.findall(next((root / "services" / service).glob("forebay_*/config.py")).read_text()))
        for root in (_ROOT, tree)
    )
    return {f"FOREBAY_{service.replace('-', '_').upper()}_{name.upper()}" for name in today - before}


def _metadata(place: Path) -> Path:
    """What an installation of the version before says of itself: which modules its services are."""
    shown = subprocess.run(
        ["git", "show", f"{previous.COMMIT}:pyproject.toml"], cwd=_ROOT, capture_output=True, text=True, check=True
    )
    project = tomllib.loads(shown.stdout)["project"]
    folder = place / f"forebay-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: forebay\nVersion: {project['version']}\n")
    (folder / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {module}\n" for name, module in members.items())
            for group, members in project["entry-points"].items()
        )
    )
    return place


async def _schema(cluster: Cluster) -> str:
    """Of admin: which of its migrations have been made."""
    url = (cluster.data.secrets / "admin.database_url").read_text().strip()
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("SELECT version_num FROM admin.schema_version"))
    finally:
        await connection.close()
