"""Limits and budgets as clients meet them: set by the command line, kept by the scheduler, told in OpenAI's words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.system.installation import Installation, ask, eventually, stream


def body(**more: Any) -> dict[str, Any]:
    return ask("Go on.", model="fake-model", **more)


async def _post(client: aiohttp.ClientSession, installation: Installation, key: str, **more: Any) -> Any:
    """(status, headers, the answer's JSON)."""
    async with client.post(
        f"{installation.gateway}/v1/chat/completions", json=body(**more), headers={"authorization": f"Bearer {key}"}
    ) as answer:
        return answer.status, answer.headers, await answer.json()


async def _until_it_holds(
    client: aiohttp.ClientSession, installation: Installation, key: str, header: str, within_s: float = 60
) -> None:
    """A limit is in force once answers tell of it."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        _, headers, _ = await _post(client, installation, key, max_tokens=1)
        if header in headers:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"no {header} within {within_s} s")


def _spent(installation: Installation, user: str) -> int:
    shown = installation.cli("quota", "show", "--user", user)
    (budget,) = (budget for who in shown for budget in who["budgets"])
    return int(budget["spent"])


async def test_two_requests_a_minute_are_two_and_the_third_is_told_when_to_come_back(
    with_standby: Installation, client: aiohttp.ClientSession
) -> None:
    key = with_standby.make_key("twice")
    with_standby.cli("quota", "set", "--user", "twice", "--requests-per-minute", "2")
    await _until_it_holds(client, with_standby, key, "x-ratelimit-limit-requests")
    statuses = []
    for _ in range(2):
        status, headers, told = await _post(client, with_standby, key, max_tokens=1)
        statuses.append(status)
    assert statuses == [200, 429]
    assert told["error"]["type"] == "rate_limit_error"
    assert told["error"]["code"] == "rate_limit_exceeded"
    assert headers["x-forebay-reason"] == "rate_limited"
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(headers["retry-after"]) <= 31
    assert "x-should-retry" not in headers


async def test_who_may_do_one_at_once_is_refused_a_second_until_the_first_is_over(
    with_standby: Installation, client: aiohttp.ClientSession
) -> None:
    key = with_standby.make_key("single")
    with_standby.cli("quota", "set", "--user", "single", "--concurrency", "1")
    began = asyncio.Event()
    await asyncio.sleep(1)
    first = asyncio.create_task(
        stream(client, with_standby.gateway_url(2), key, body(max_tokens=30), "single-1", began)
    )
    await began.wait()
    status, headers, told = await _post(client, with_standby, key, max_tokens=1)
    assert (status, told["error"]["code"]) == (429, "concurrency_limit_exceeded")
    assert int(headers["retry-after"]) >= 1
    assert (await first).is_done
    await asyncio.sleep(0.5)  # its end was told over another gateway: that is on its way
    status, _, _ = await _post(client, with_standby, key, max_tokens=1)
    assert status == 200


async def test_a_budget_that_is_used_up_ends_the_answer_and_refuses_the_next(
    with_standby: Installation, client: aiohttp.ClientSession
) -> None:
    key = with_standby.make_key("thrifty")
    await _post(client, with_standby, key, max_tokens=1)
    with_standby.cli("quota", "budget", "add", "--user", "thrifty", "--tokens", "300", "--period", "day")
    await asyncio.sleep(1)

    async with client.post(
        f"{with_standby.gateway}/v1/chat/completions",
        json=body(max_tokens=2000, stream=True, fake={"answer_tokens": 2000, "tokens_per_s": 200}),
        headers={"authorization": f"Bearer {key}", "x-request-id": "thrifty-1"},
    ) as answer:
        assert answer.status == 200
        text = await answer.text()
    assert '"finish_reason":"length"' in text.replace(": ", ":")
    assert text.rstrip().endswith("data: [DONE]")
    tokens = text.count('"content"')
    assert 150 < tokens <= 320

    status, headers, told = await _post(client, with_standby, key, max_tokens=100)
    assert (status, told["error"]["code"]) == (429, "insufficient_quota")
    assert headers["x-should-retry"] == "false"
    assert headers["x-forebay-reason"] == "quota_spent"
    assert "retry-after" not in headers
    rows = await _rows_of(with_standby, "thrifty-1")
    assert [(row["outcome"], row["reason"]) for row in rows] == [("finished", "quota_spent")]
    used = rows[0]["prompt_tokens"] + rows[0]["completion_tokens"]
    assert 250 <= used <= 330, "what the budget allows, and what came until the news of its end"
    assert _spent(with_standby, "thrifty") == used


@pytest.mark.slow
async def test_what_was_spent_outlives_the_schedulers_and_is_counted_once(
    with_standby: Installation, client: aiohttp.ClientSession
) -> None:
    key = with_standby.make_key("lasting")
    with_standby.cli("quota", "budget", "add", "--user", "lasting", "--tokens", "100000")
    await asyncio.sleep(1)
    used = 0
    for _ in range(3):
        status, _, told = await _post(client, with_standby, key, max_tokens=20)
        assert status == 200
        used += told["usage"]["total_tokens"]
    # Killed right after the last answer: the leader, its successor, then both at once.
    for parts in (["scheduler"], ["scheduler-2"], ["scheduler", "scheduler-2"]):
        died = {part: with_standby.kill(part) for part in parts}
        status, _, told = await _post(client, with_standby, key, max_tokens=20)
        assert status == 200, told
        used += told["usage"]["total_tokens"]
        for part, pid in died.items():
            await with_standby.wait_restarted(part, pid)
    assert used > 0
    await _eventually_spent(with_standby, "lasting", used)
    await asyncio.sleep(3)
    assert _spent(with_standby, "lasting") == used


async def _eventually_spent(installation: Installation, user: str, tokens: int) -> None:
    seen: list[int] = []

    def is_right() -> bool:
        seen.append(_spent(installation, user))
        return seen[-1] == tokens

    await _within(is_right, 20, lambda: f"{user} spent {tokens}, and is said to have spent {seen[-1]}")


async def _rows_of(installation: Installation, request_id: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def has_come() -> bool:
        rows[:] = [row for row in installation.ledger_rows() if row["request_id"] == request_id]
        return bool(rows)

    await eventually(has_come, 15, f"no row of {request_id}", every_s=0.3)
    return rows


async def _within(holds: Callable[[], bool], within_s: float, otherwise: Callable[[], str]) -> None:
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, otherwise()
        await asyncio.sleep(0.3)
