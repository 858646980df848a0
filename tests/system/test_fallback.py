"""Another model answers in a whole installation: told by an operator, known under another name at its engine, and with the
scheduler's slots and the ledger as they should be afterwards."""

from __future__ import annotations

import asyncio

import aiohttp

from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation, ask, eventually, stream

BODY = ask("Go on.", model="fake-model", max_tokens=60)


async def test_who_has_waited_for_long_enough_is_answered_by_another_model(
    with_standby: Installation, client: aiohttp.ClientSession
) -> None:
    other = FakeEngineProcess("--slots", "2", "--tokens-per-s", "200")
    try:
        added = (
            "backend",
            "add",
            "other",
            other.url,
            "--kind",
            "openai",
            "--slots",
            "2",
            "--model",
            "small=fake-model",
        )
        await asyncio.to_thread(with_standby.cli, *added)
        await asyncio.to_thread(with_standby.cli, "model", "fallback", "set", "fake-model", "small", "--after", "0.5")

        def is_known() -> bool:
            models = {model["name"]: model["healthy_backends"] for model in with_standby.cli("model", "list")}
            return models.get("small") == 1

        await eventually(is_known, 15, "the other model did not come", every_s=0.2)
        key, url = with_standby.make_key("patient"), with_standby.gateway_url(1)
        async with asyncio.timeout(15):  # the gateway hears of all this as the operator does
            while "small" not in await models_at(client, url, key):
                await asyncio.sleep(0.1)
        begun = [asyncio.Event() for _ in range(4)]
        first = [asyncio.create_task(stream(client, url, key, BODY, f"first-{n}", begun[n])) for n in range(4)]
        for event, task in zip(begun, first, strict=True):
            waiting = asyncio.create_task(event.wait())
            await asyncio.wait((waiting, task), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            assert event.is_set(), await task
        late = await stream(client, url, key, BODY, "late")
        assert late.is_done
        assert 0.5 <= late.arrivals[0] < 1.5, late.arrivals[0]
        assert all(result.is_done for result in await asyncio.gather(*first))
        rows = {row["request_id"]: row for row in with_standby.ledger_rows()}
        assert (rows["late"]["model_requested"], rows["late"]["model"]) == ("fake-model", "small")
        assert {rows[f"first-{n}"]["model"] for n in range(4)} == {"fake-model"}
        (told,) = await asyncio.to_thread(with_standby.cli, "explain", "late")
        assert told["state"] == "finished"
        assert [attempt["backend_name"] for attempt in told["attempts"]] == ["other"]
        shown = await asyncio.to_thread(with_standby.cli, "queue")
        assert shown["waiting"] == []
        assert all(held["held"] == held["lent"] for held in shown["held"]), (
            "but for what is lent ahead, all slots are free"
        )
    finally:
        await asyncio.to_thread(with_standby.cli, "model", "fallback", "remove", "fake-model")
        await asyncio.to_thread(with_standby.cli, "backend", "remove", "other")
        other.stop()


async def models_at(client: aiohttp.ClientSession, url: str, key: str) -> str:
    async with client.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"}) as answer:
        return await answer.text()
