"""A client that goes frees its slot, and the real engine stops: streamed, plain, and while queued."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import urllib.request
from typing import Any

import aiohttp
import pytest

from tests.system.installation import Installation, ask, eventually

_LONG_BEFORE_ITS_END_S = 10.0
"""The gateway closes at once, and the engine notices between two tokens: 50 ms on a quiet machine, seconds where others want
its cores. (How long is measured by `make targets-foundation`.) All 1,500 would take a minute and more."""
LONG = ask("Count slowly to one thousand.", max_tokens=1500, ignore_eos=True, stop=["no such words"])


class Engine:
    """llama.cpp's own account of its slots."""

    def __init__(self, installation: Installation) -> None:
        key = (installation.data_dir / "secrets" / "engine.key").read_text().strip()
        url = f"http://127.0.0.1:{installation.base_port + 12}/slots"
        self._request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"})

    def busy(self) -> int:
        with urllib.request.urlopen(self._request, timeout=30) as answer:
            slots: list[dict[str, Any]] = json.load(answer)
        return sum(slot["is_processing"] for slot in slots)


@pytest.fixture
def engine(installation: Installation) -> Engine:
    engine = Engine(installation)
    deadline = time.monotonic() + 30
    while engine.busy() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine.busy() == 0, "an earlier test left something running"
    return engine


async def _go_away_once_busy(installation: Installation, engine: Engine, body: dict[str, Any], wanted: int) -> None:
    """Sends a request, waits until the engine works on it, and drops the connection."""
    async with aiohttp.ClientSession(headers=installation.headers) as session:
        asking = asyncio.create_task(_read_all(session, installation.gateway, body))
        await eventually(lambda: engine.busy() >= wanted, 20, "the engine never started")
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


async def _read_all(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> bytes:
    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
        return await answer.read()


@pytest.mark.parametrize("streaming", [True, False], ids=["streamed", "plain"])
async def test_a_client_that_goes_stops_the_engine(installation: Installation, engine: Engine, streaming: bool) -> None:
    await _go_away_once_busy(installation, engine, {**LONG, "stream": streaming}, wanted=1)
    await eventually(lambda: engine.busy() == 0, _LONG_BEFORE_ITS_END_S, "the engine went on", every_s=0.005)


async def test_a_queued_client_that_goes_never_reaches_the_engine(installation: Installation, engine: Engine) -> None:
    async with aiohttp.ClientSession(headers=installation.headers) as session:
        running = [
            asyncio.create_task(_read_all(session, installation.gateway, {**LONG, "stream": True})) for _ in range(2)
        ]
        await eventually(lambda: engine.busy() == 2, 20, "the engine never filled")
        queued = asyncio.create_task(_read_all(session, installation.gateway, {**LONG, "stream": False}))
        await asyncio.sleep(0.5)
        assert not queued.done()
        queued.cancel()
        await asyncio.wait([queued])
        for one in running:
            one.cancel()
        await asyncio.wait(running)
    await eventually(lambda: engine.busy() == 0, _LONG_BEFORE_ITS_END_S, "the engine went on")
    await asyncio.sleep(0.5)
    assert engine.busy() == 0, "the cancelled request was started after all"
    rows = [row for row in installation.ledger_rows() if row["outcome"] == "cancelled"]
    assert any(not row["backend_id"] for row in rows), "no row of a request that was cancelled while it queued"


async def test_the_slot_is_free_for_the_next_one(installation: Installation, engine: Engine) -> None:
    for _ in range(3):  # more than there are slots, had they leaked
        await _go_away_once_busy(installation, engine, {**LONG, "stream": True}, wanted=1)
    async with aiohttp.ClientSession(headers=installation.headers) as session:
        body = ask("What is the capital of France?", max_tokens=12, temperature=0)
        answers = await asyncio.gather(*(_read_all(session, installation.gateway, body) for _ in range(2)))
    assert all(b"Paris" in answer for answer in answers)
