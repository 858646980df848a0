"""Two schedulers under load: the leader is killed, the other leads within three seconds, and nobody who had begun notices.
Two gateways share the backend all the while, each within its ceiling: the engine never has more than its slots."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import aiohttp
import pytest

from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation, ask, eventually, stream

TOKENS = 60
BODY = ask("Go on.", model="fake-model", max_tokens=TOKENS)


async def _leads(client: aiohttp.ClientSession, installation: Installation, part: str) -> bool:
    return await _reading(client, installation, part, "forebay_scheduler_leads") == 1.0


async def _reading(client: aiohttp.ClientSession, installation: Installation, part: str, metric: str) -> float:
    try:
        async with client.get(f"http://127.0.0.1:{installation.ops_port(part)}/metrics") as answer:
            lines = (await answer.text()).splitlines()
    except aiohttp.ClientError:
        return 0.0
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].split()[0] == metric)


async def _leader(client: aiohttp.ClientSession, installation: Installation) -> tuple[str, str]:
    """(who leads, who stands by)."""
    async with asyncio.timeout(15):
        while True:
            for one, other in (("scheduler", "scheduler-2"), ("scheduler-2", "scheduler")):
                if await _leads(client, installation, one):
                    return one, other
            await asyncio.sleep(0.02)


async def test_one_leads_and_the_other_is_alive_and_not_ready(
    with_standby: Installation, client: aiohttp.ClientSession
) -> None:
    leads, stands_by = await _leader(client, with_standby)
    pids = [with_standby.pid(part) for part in (leads, stands_by)]
    for part, ready, healthy in ((leads, 200, 200), (stands_by, 503, 200)):
        for page, status in (("readyz", ready), ("healthz", healthy)):
            async with client.get(f"http://127.0.0.1:{with_standby.ops_port(part)}/{page}") as answer:
                assert answer.status == status, (part, page)
    assert [with_standby.pid(part) for part in (leads, stands_by)] == pids, "one that stands by is let be"


@pytest.mark.slow
async def test_the_leader_dies_under_load_and_the_other_grants_within_three_seconds(
    with_standby: Installation, own_engine: FakeEngineProcess, client: aiohttp.ClientSession
) -> None:
    leads, stands_by = await _leader(client, with_standby)
    keys = [with_standby.make_key(f"load-{number}") for number in range(3)]
    began = [asyncio.Event() for _ in range(16)]
    streams = [
        asyncio.create_task(
            stream(
                client,
                with_standby.gateway_url(1 + number % 2),
                keys[number % 3],
                BODY,
                f"standby-{number}",
                began[number],
            )
        )
        for number in range(16)
    ]
    await eventually(lambda: sum(event.is_set() for event in began) >= 4, 15, "four did not begin")
    await asyncio.sleep(0.5)
    granted = await _reading(client, with_standby, stands_by, "forebay_scheduler_grants_total")
    died, killed_at = with_standby.kill(leads), time.monotonic()
    async with asyncio.timeout(10):
        while not await _leads(client, with_standby, stands_by):
            await asyncio.sleep(0.02)
        led_s = time.monotonic() - killed_at
        while await _reading(client, with_standby, stands_by, "forebay_scheduler_grants_total") <= granted:
            await asyncio.sleep(0.02)
    granted_s = time.monotonic() - killed_at
    print(f"led after {led_s:.2f} s, granted after {granted_s:.2f} s")  # noqa: T201
    assert granted_s <= 10.0  # the target, 3 s, is measured by `make targets-scheduler`
    results = await asyncio.gather(*streams)
    for result in results:
        assert (result.broke, result.error) == ("", None), result
        assert result.is_done
        assert len(result.arrivals) == TOKENS
    await with_standby.wait_restarted(leads, died)
    await _assert_one_row_each(with_standby, 16)
    async with client.get(f"{own_engine.url}/control/seen") as answer:
        seen: dict[str, Any] = await answer.json()
    assert seen["peak_width"] == 4, "slots were exceeded, or one was never used"


async def _assert_one_row_each(installation: Installation, requests: int) -> None:
    rows: list[dict[str, Any]] = []

    def are_there() -> bool:
        rows[:] = [row for row in installation.ledger_rows() if row["request_id"].startswith("standby-")]
        return len(rows) >= requests

    await eventually(are_there, 30, "not all rows came", every_s=0.5)
    await asyncio.sleep(1)
    are_there()
    assert Counter(row["request_id"] for row in rows) == {f"standby-{number}": 1 for number in range(requests)}
    assert {(row["outcome"], row["completion_tokens"]) for row in rows} == {("finished", TOKENS)}


async def test_two_gateways_share_what_one_of_them_alone_would_have(
    with_standby: Installation, own_engine: FakeEngineProcess, client: aiohttp.ClientSession
) -> None:
    """All the load at one gateway, then at the other: the slots go with it, and never twice."""
    key = with_standby.make_key("mover")
    short = {**BODY, "max_tokens": 10}
    for gateway in (1, 2, 1):
        url = with_standby.gateway_url(gateway)
        began = time.monotonic()
        results = await asyncio.gather(
            *(stream(client, url, key, short, f"mover-{gateway}-{number}") for number in range(12))
        )
        assert all(result.is_done for result in results)
        took_s = time.monotonic() - began
        assert took_s < 12, f"twelve half seconds on four slots took {took_s:.1f} s"
    async with client.get(f"{own_engine.url}/control/seen") as answer:
        seen: dict[str, Any] = await answer.json()
    assert seen["peak_width"] == 4
