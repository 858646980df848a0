"""Any part may die at any time. Eight clients stream while one part is killed with -9; what is promised for it holds,
and the ledger ends with exactly one row for each request."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.system.installation import Installation, Streamed, ask, stream

pytestmark = pytest.mark.slow

TOKENS = 60  # three seconds each at the fake engine's pace; eight clients on four slots
BODY = ask("Go on.", model="fake-model", max_tokens=TOKENS)


async def _eight(
    installation: Installation, client: aiohttp.ClientSession, label: str, gateway_of: Callable[[int], int]
) -> tuple[list[asyncio.Task[Streamed]], list[asyncio.Event]]:
    """Eight streams under way, the first four of them past their first token."""
    begun = [asyncio.Event() for _ in range(8)]
    streams = []
    for number in range(8):
        url = installation.gateway_url(gateway_of(number))
        one = stream(client, url, installation.key, BODY, f"{label}-{number}", begun[number])
        streams.append(asyncio.create_task(one))
    async with asyncio.timeout(30):
        while sum(event.is_set() for event in begun) < 4:
            await asyncio.sleep(0.01)
    return streams, begun


async def _rows(installation: Installation, label: str, wanted: int, within_s: float = 60) -> list[dict[str, Any]]:
    """The ledger rows of this test's requests, once they are all there; a moment later, for one that came twice."""
    rows: list[dict[str, Any]] = []
    for _ in range(round(within_s / 0.5)):
        try:
            rows = [row for row in installation.ledger_rows() if row["request_id"].startswith(f"{label}-")]
        except AssertionError:
            rows = []  # admin is still on its way back
        if len(rows) >= wanted:
            break
        await asyncio.sleep(0.5)
    await asyncio.sleep(1)
    return [row for row in installation.ledger_rows() if row["request_id"].startswith(f"{label}-")]


def _assert_one_row_each(rows: list[dict[str, Any]], label: str, requests: int) -> None:
    counted = Counter(row["request_id"] for row in rows)
    assert counted == {f"{label}-{number}": 1 for number in range(requests)}


@pytest.mark.parametrize("part", ["scheduler", "registry", "admin", "nats", "postgres"])
async def test_streams_outlive_the_death_of(
    before_fake: Installation, client: aiohttp.ClientSession, part: str
) -> None:
    streams, _ = await _eight(before_fake, client, f"kill-{part}", lambda number: 1 + number % 2)
    died = before_fake.kill(part)
    late = asyncio.create_task(stream(client, before_fake.gateway_url(1), before_fake.key, BODY, f"kill-{part}-8"))
    results = [*await asyncio.gather(*streams), await late]
    for result in results:
        assert result.broke == "", result
        assert result.error is None, result
        assert result.is_done, result
        assert len(result.arrivals) == TOKENS, result
    await before_fake.wait_restarted(part, died)
    rows = await _rows(before_fake, f"kill-{part}", 9)
    _assert_one_row_each(rows, f"kill-{part}", 9)
    assert {row["outcome"] for row in rows} == {"finished"}
    assert {row["completion_tokens"] for row in rows} == {TOKENS}


async def test_a_gateway_that_dies_takes_only_its_own_streams(
    before_fake: Installation, client: aiohttp.ClientSession, seen: Any
) -> None:
    streams, _ = await _eight(before_fake, client, "kill-gateway", lambda number: 1 + number % 2)
    died = before_fake.kill("gateway-1")
    results = await asyncio.gather(*streams)
    for number, result in enumerate(results):
        if number % 2 == 0:
            assert result.broke, "a stream of the dead gateway looked complete"
            assert not result.is_done
        else:
            assert result.is_done, result
            assert len(result.arrivals) == TOKENS
    await before_fake.wait_restarted("gateway-1", died)
    # Its slots return: four at once are served again, without waiting for a fence.
    again = await asyncio.wait_for(
        asyncio.gather(
            *(
                stream(client, before_fake.gateway_url(2), before_fake.key, BODY, f"kill-gateway-{number}")
                for number in range(8, 12)
            )
        ),
        40,
    )
    assert all(result.is_done for result in again)
    rows = await _rows(before_fake, "kill-gateway", 12)
    _assert_one_row_each(rows, "kill-gateway", 12)
    outcomes = {row["request_id"]: row["outcome"] for row in rows}
    for number in range(12):
        lost = number < 8 and number % 2 == 0
        assert outcomes[f"kill-gateway-{number}"] == ("gateway_lost" if lost else "finished")


async def test_the_engine_never_saw_more_than_its_slots_through_all_of_this(seen: Any) -> None:
    record = await seen()
    assert record["peak_width"] <= 4


async def test_inference_goes_on_while_admin_and_postgres_stay_away(
    before_fake: Installation, client: aiohttp.ClientSession
) -> None:
    import os
    import signal

    stopped = [before_fake.pid("admin"), before_fake.pid("postgres")]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)  # not dead, so nobody starts another: away, and silent about it
    try:
        short = {**BODY, "max_tokens": 5}
        results = await asyncio.gather(
            *(stream(client, before_fake.gateway_url(1), before_fake.key, short, f"away-{n}") for n in range(6))
        )
        assert all(result.is_done for result in results), results
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    rows = await _rows(before_fake, "away", 6)
    _assert_one_row_each(rows, "away", 6)
