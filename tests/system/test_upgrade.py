"""`forebay upgrade` of a running Forebay under load: no request fails and no stream is cut, whether it succeeds or is taken
back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation, Streamed, ask, eventually, start_up, stream
from tests.system.next_version import NEXT, break_gateways, make_next_version

PARTS = {"admin", "registry", "scheduler", "gateway-1", "gpu-agent"}


@pytest.fixture
def many_slots() -> Iterator[FakeEngineProcess]:
    """Sixteen slots, a token each 50 ms."""
    engine = FakeEngineProcess("--slots", "16", "--tokens-per-s", "20")
    yield engine
    engine.stop()


@pytest.fixture
def running(tmp_path: Path, many_slots: FakeEngineProcess) -> Iterator[Installation]:
    settings = tmp_path / "forebay.toml"
    settings.write_text(
        f'[[registry.backends]]\nname = "fake"\nurl = "{many_slots.url}"\nkind = "openai"\nslots = 16\n'
    )
    started = start_up(tmp_path / "data", "--no-engine", "--config", str(settings))
    yield started
    started.stop()


@dataclass
class Load:
    """What goes on all the time: long streams, short ones over connections of their own, plain answers over kept ones."""

    streams: list[Streamed] = field(default_factory=list)
    plain: list[tuple[int, str]] = field(default_factory=list)
    """Status, and what was wrong."""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def finish(self) -> None:
        """Some more is asked and answered by whoever serves now; then all that has begun comes to its end."""
        before = len(self.streams)
        await eventually(lambda: len(self.streams) >= before + 5, 60, "nothing is answered any more")
        self.is_over.set()
        await asyncio.gather(*self.tasks)

    def failures(self) -> list[Any]:
        cut = [one for one in self.streams if not one.is_done or one.error or one.broke]
        return [*cut, *(one for one in self.plain if one != (200, ""))]


async def _long(load: Load, client: aiohttp.ClientSession, running: Installation, key: str, number: int) -> None:
    count = 0
    while not load.is_over.is_set():
        body = ask("Go on.", model="fake-model", max_tokens=200)
        load.streams.append(await stream(client, running.gateway, key, body, f"long-{number}-{count}"))
        count += 1


async def _short(load: Load, running: Installation, key: str) -> None:
    count = 0
    while not load.is_over.is_set():
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=100)) as fresh:
            body = ask("Hi.", model="fake-model", max_tokens=4)
            load.streams.append(await stream(fresh, running.gateway, key, body, f"short-{count}"))
        count += 1
        await asyncio.sleep(0.05)


async def _plain(load: Load, running: Installation, key: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=100)) as kept:
        while not load.is_over.is_set():
            body = ask("Hi.", model="fake-model", max_tokens=2)
            try:
                async with kept.post(f"{running.gateway}/v1/chat/completions", json=body, headers=headers) as answer:
                    told = await answer.json()
                    load.plain.append((answer.status, "" if answer.status == 200 else json.dumps(told)))
            except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                load.plain.append((0, repr(error)))
            await asyncio.sleep(0.05)


@pytest.fixture
async def load(running: Installation, client: aiohttp.ClientSession) -> AsyncIterator[Load]:
    """Over when left: then everything that was begun has been answered."""
    made = Load()
    key = running.key
    asking = [
        *(_long(made, client, running, key, number) for number in range(3)),
        _short(made, running, key),
        _plain(made, running, key),
    ]
    made.tasks = [asyncio.create_task(one) for one in asking]
    await eventually(lambda: len(made.plain) >= 5, 60, "no load")
    yield made
    made.is_over.set()
    await asyncio.wait(made.tasks)


def _pids(running: Installation) -> dict[str, int]:
    told: dict[str, int] = json.loads((running.data_dir / "run" / "processes.json").read_text())
    return told


def _version_of(pid: int) -> str:
    """The environment whose interpreter runs it."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()


async def _upgrade(running: Installation, to: Path, *more: str) -> tuple[int, list[dict[str, Any]], str]:
    words = ("upgrade", "--to", str(to), "--data-dir", str(running.data_dir), "--json", *more)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "forebay", *words],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_new_version_takes_over_under_load_and_nobody_notices(
    running: Installation, load: Load, tmp_path: Path
) -> None:
    new = make_next_version(tmp_path / "next")
    old_pids = _pids(running)
    status, news, said = await _upgrade(running, new)
    assert status == 0, (said, news[-1:], running.output[-3000:])
    result = news[-1]
    assert (result["result"], result["to"]) == ("upgraded", NEXT)
    assert Path(result["backup"]).exists()
    pids = _pids(running)
    assert pids.keys() == old_pids.keys(), "nothing is left beside"
    for part in PARTS:
        assert _version_of(pids[part]) == str(new / "bin" / "python"), part
    assert pids["postgres"] == old_pids["postgres"]
    await _all_answered(running, load)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("only_named", ["", "gateway-1"], ids=["beside", "in its place"])
async def test_a_version_that_does_not_get_ready_is_taken_back_and_nobody_notices(
    running: Installation, load: Load, tmp_path: Path, only_named: str
) -> None:
    new = make_next_version(tmp_path / "next")
    break_gateways(new, only_named)
    old_pids = _pids(running)
    status, news, said = await _upgrade(running, new, "--no-backup")
    assert (status, news[-1]["result"]) == (7, "rolled_back"), (said, news[-1:])
    assert "This one is broken." in news[-1]["why"]
    pids = _pids(running)
    assert pids.keys() == old_pids.keys(), "nothing is left beside"
    for part in PARTS:
        assert _version_of(pids[part]) == sys.executable, part
    if not only_named:
        assert pids == old_pids, "nothing of the old was touched"
    await _all_answered(running, load)


async def _all_answered(running: Installation, load: Load) -> None:
    """And each has its row."""
    await load.finish()
    assert load.failures() == [], f"{len(load.failures())} of {len(load.streams) + len(load.plain)}"
    wanted = {one.request_id for one in load.streams}
    await eventually(lambda: wanted <= _finished(running), 60, "rows are missing", every_s=1.0)
    counted = {"streams": len(load.streams), "plain": len(load.plain), "failed": 0}
    (running.data_dir.parent / "upgrade.json").write_text(json.dumps(counted))


def _finished(running: Installation) -> set[str]:
    return {row["request_id"] for row in running.ledger_rows() if row["outcome"] == "finished"}
