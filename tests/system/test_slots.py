"""An engine never sees more than its slots, whatever comes: thirty-two clients on four, some of them several wide."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation, ask


async def test_thirty_two_clients_on_four_slots_with_n_above_one(
    with_standby: Installation, own_engine: FakeEngineProcess, client: aiohttp.ClientSession
) -> None:
    async def one(number: int) -> dict[str, Any]:
        width = (1, 1, 2, 3)[number % 4]
        body = ask("Go on.", model="fake-model", max_tokens=10, n=width)
        url = f"{with_standby.gateway_url(1 + number % 2)}/v1/chat/completions"
        async with client.post(url, json=body, headers=with_standby.headers) as answer:
            assert answer.status == 200, await answer.text()
            told: dict[str, Any] = await answer.json()
            assert len(told["choices"]) == width
            assert int(answer.headers["x-forebay-attempts"]) == 1
            return told

    (await client.post(f"{own_engine.url}/control/reset")).release()  # its peaks are of others' tests
    await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(32))), 90)
    async with client.get(f"{own_engine.url}/control/seen") as answer:
        record = await answer.json()
    assert record["peak_width"] == 4, "slots were exceeded, or one was never used"


async def test_a_request_wider_than_any_backend_is_told_so(
    with_standby: Installation, client: aiohttp.ClientSession
) -> None:
    url = f"{with_standby.gateway}/v1/chat/completions"
    async with client.post(url, json=ask("x", model="fake-model", n=5), headers=with_standby.headers) as answer:
        told = await answer.json()
        assert answer.status == 400
        assert answer.headers["x-forebay-reason"] == "width_too_large"
        assert told["error"]["param"] == "n"
