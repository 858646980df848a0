"""Services as children: a real one, the agent, which needs no peers when its bus is in memory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from forebay.errors import CannotStart
from forebay.local.process_list import ProcessList
from forebay.local.services import ServiceProcess, run_services
from forebay.local.supervised import Supervised


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def agent(part: str, place: Path, port: int, **more: str) -> ServiceProcess:
    settings = {"NATS_URL": "memory:", "OPS_LISTEN": f"127.0.0.1:{port}", **more}
    environ = {f"FOREBAY_GPU_AGENT_{name}": value for name, value in settings.items()}
    return ServiceProcess(part, "gpu-agent", environ, port, place / f"{part}.log", stop_s=10)


async def test_all_are_ready_when_entered_and_gone_when_left(
    place: Path, free_port: Callable[[], int], session: aiohttp.ClientSession
) -> None:
    parts: dict[str, Supervised] = {}
    processes = [agent("first", place, free_port()), agent("second", place, free_port())]
    async with run_services(processes, parts, None, session, print):
        for process in processes:
            async with session.get(f"http://127.0.0.1:{process.ops_port}/readyz") as answer:
                assert (await answer.json())["ready"]
        pids = [part.pid for part in parts.values()]
    assert [pid for pid in pids if pid is None or Path(f"/proc/{pid}").exists()] == []


async def test_one_that_cannot_start_says_why_and_takes_the_others_along(
    place: Path, free_port: Callable[[], int], session: aiohttp.ClientSession
) -> None:
    parts: dict[str, Supervised] = {}
    processes = [agent("good", place, free_port()), agent("bad", place, free_port(), INTERVALS="2")]
    with pytest.raises(CannotStart, match=r"bad ended at once \(exit status 2\)(?s:.*)did you mean interval_s\?"):
        async with run_services(processes, parts, None, session, print):
            pytest.fail("entered without one of them")
    assert [part.pid for part in parts.values()] == [None, None]


async def test_the_list_of_processes_follows_those_that_run(
    place: Path, free_port: Callable[[], int], session: aiohttp.ClientSession
) -> None:
    parts: dict[str, Supervised] = {}
    file = place / "run" / "processes.json"
    async with ProcessList(file, parts):
        assert json.loads(file.read_text()) == {}
        async with run_services([agent("agent", place, free_port())], parts, None, session, lambda line: None):
            first = parts["agent"].pid
            await _until(lambda: json.loads(file.read_text()) == {"agent": first})
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert first is not None
            os.kill(first, signal.SIGKILL)
            await _until(lambda: parts["agent"].restarts == 1)
            await _until(lambda: json.loads(file.read_text()) == {"agent": parts["agent"].pid})
            assert parts["agent"].pid != first
        await _until(lambda: json.loads(file.read_text()) == {})
    assert not file.exists()


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.02)
