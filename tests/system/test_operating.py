"""What an operator sees and does while others work: who waits, why a request went where it went, and a backend that is
let run empty."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp

from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation, ask, eventually, stream

BODY = ask("Go on.", model="fake-model", max_tokens=40)


async def test_queue_and_explain_tell_of_who_waits_and_what_became_of_them(
    with_standby: Installation, own_engine: FakeEngineProcess, client: aiohttp.ClientSession
) -> None:
    pace = f"{own_engine.url}/control/pace"
    async with client.post(pace, json={"answer_tokens": 5000}) as answer:
        assert answer.status == 200
    first, second = with_standby.make_key("early"), with_standby.make_key("late")
    long, short = {**BODY, "max_tokens": 5000}, {**BODY, "max_tokens": 10}
    begun = [asyncio.Event() for _ in range(6)]
    early = [
        asyncio.create_task(stream(client, with_standby.gateway_url(1), first, long, f"early-{number}", begun[number]))
        for number in range(6)
    ]
    await eventually(lambda: sum(event.is_set() for event in begun) == 4, 60, "four of six did not begin")
    async with client.post(pace, json={"answer_tokens": 100}) as answer:
        assert answer.status == 200
    its_turn = asyncio.Event()
    late = asyncio.create_task(stream(client, with_standby.gateway_url(2), second, short, "late-0", its_turn))
    await asyncio.sleep(0.3)

    shown = await asyncio.to_thread(with_standby.cli, "queue")
    waiting = {row["user_name"]: row for row in shown["waiting"]}
    assert {user: row["requests"] for user, row in waiting.items()} == {"early": 2, "late": 1}
    assert waiting["late"]["blocked_by"] == ["no free slot"]
    (held,) = shown["held"]
    assert (held["backend_name"], held["held"], held["cap"]) == ("fake", 4, 4)
    assert {gateway["gateway"] for gateway in shown["gateways"]} == {"gateway-1", "gateway-2"}
    for user, row in ((row["user_name"], row) for row in shown["shares"]):
        assert row["due"] == 0.5, user
    (told,) = await asyncio.to_thread(with_standby.cli, "explain", "late-0")
    assert (told["state"], told["user_name"], told["blocked_by"]) == ("waiting", "late", ["no free slot"])

    next(task for task, event in zip(early, begun, strict=True) if event.is_set()).cancel()
    await its_turn.wait()
    assert sum(event.is_set() for event in begun) == 4, "whoever has nothing yet goes before who has three"
    assert (await late).is_done
    for task in early:
        task.cancel()
    await asyncio.wait(early)
    (told,) = await asyncio.to_thread(with_standby.cli, "explain", "late-0")
    assert told["state"] == "finished"
    (attempt,) = told["attempts"]
    assert attempt["backend_name"] == "fake"
    assert attempt["queued_ms"] > 300
    assert attempt["end"] == "finished"
    words = (await asyncio.to_thread(with_standby.run_cli, "explain", "late-0")).stdout
    assert "came to gateway-2" in words
    assert "placed on fake" in words


async def test_what_nobody_knows_is_not_explained(with_standby: Installation) -> None:
    done = await asyncio.to_thread(with_standby.run_cli, "explain", "no-such-request")
    assert done.returncode != 0
    assert "no-such-request" in done.stderr


async def test_a_drained_backend_finishes_what_it_has_and_gets_nothing_until_it_is_undone(
    with_standby: Installation, client: aiohttp.ClientSession
) -> None:
    began = asyncio.Event()
    key = with_standby.make_key("drained")
    running = asyncio.create_task(stream(client, with_standby.gateway, key, BODY, "drained-0", began))
    await began.wait()
    told: dict[str, Any] = await asyncio.to_thread(with_standby.cli, "drain", "fake", "--wait")
    assert (told["name"], told["running"], told["drained"]) == ("fake", 0, True)
    assert (await running).is_done
    waits = asyncio.create_task(stream(client, with_standby.gateway, key, BODY, "drained-1"))
    await asyncio.sleep(1)
    assert not waits.done()
    (explained,) = await asyncio.to_thread(with_standby.cli, "explain", "drained-1")
    assert explained["state"] == "waiting"
    assert "drain" in explained["blocked_by"][0]
    await asyncio.to_thread(with_standby.cli, "drain", "fake", "--undo")
    assert (await asyncio.wait_for(waits, 60)).is_done


async def test_who_is_paused_waits_is_shown_so_and_holds_up_nobody_else(
    with_standby: Installation, client: aiohttp.ClientSession
) -> None:
    key, other = with_standby.make_key("resting"), with_standby.make_key("awake")
    with_standby.cli("group", "create", "cellar")
    with_standby.cli("user", "set", "resting", "--group", "cellar")
    with_standby.cli("group", "set", "cellar", "--pause")
    await asyncio.sleep(1)
    waits = asyncio.create_task(stream(client, with_standby.gateway, key, BODY, "resting-0"))
    while (asked := await asyncio.to_thread(with_standby.run_cli, "explain", "resting-0", "--json")).returncode != 0:
        await asyncio.sleep(0.1)
    (told,) = json.loads(asked.stdout)
    assert (told["state"], told["blocked_by"]) == ("waiting", ["its user or group is paused"])
    (waiting,) = (await asyncio.to_thread(with_standby.cli, "queue"))["waiting"]
    assert (waiting["user_name"], waiting["blocked_by"]) == ("resting", ["its user or group is paused"])
    assert (await stream(client, with_standby.gateway, other, BODY, "awake-0")).is_done
    assert not waits.done()
    await asyncio.to_thread(with_standby.cli, "group", "set", "cellar", "--resume")
    assert (await asyncio.wait_for(waits, 60)).is_done
