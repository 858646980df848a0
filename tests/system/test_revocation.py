"""A revoked key is refused on every gateway replica in under a second, and with --now its running streams end too."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from tests.system.installation import Installation, ask, stream


async def _refused_after_s(client: aiohttp.ClientSession, url: str, key: str, began: float) -> float:
    while time.monotonic() - began < 10:
        async with client.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"}) as answer:
            if answer.status == 401:
                told = await answer.json()
                assert told["error"]["code"] == "invalid_api_key"
                assert answer.headers["x-forebay-reason"] == "key_revoked"
                return time.monotonic() - began
        await asyncio.sleep(0.005)
    raise AssertionError(f"{url} still accepts the revoked key")


async def _known_everywhere(client: aiohttp.ClientSession, urls: list[str], key: str) -> None:
    for url in urls:
        for _ in range(100):
            async with client.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"}) as answer:
                if answer.status == 200:
                    break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError(f"{url} never learnt of the new key")


async def test_a_revoked_key_fails_on_both_gateways_within_a_second(
    installation: Installation, client: aiohttp.ClientSession
) -> None:
    made = installation.cli("key", "create", "--name", "soon revoked")
    key, urls = made["secret"], [installation.gateway_url(1), installation.gateway_url(2)]
    await _known_everywhere(client, urls, key)
    revoking = asyncio.create_task(asyncio.to_thread(installation.cli, "key", "revoke", made["key"]["id"]))
    began = time.monotonic()
    refused = asyncio.gather(*(_refused_after_s(client, url, key, began) for url in urls))
    await revoking
    answered_s = time.monotonic() - began
    # Counted from the moment the CLI has its answer; the command's own start-up is not the system's.
    assert max(await refused) - answered_s < 1.0


async def test_a_key_revoked_now_has_its_streams_cut_on_both_gateways(
    installation: Installation, client: aiohttp.ClientSession
) -> None:
    made = installation.cli("key", "create", "--name", "soon cut")
    urls = [installation.gateway_url(1), installation.gateway_url(2)]
    await _known_everywhere(client, urls, made["secret"])
    long = ask("Count slowly to one thousand.", max_tokens=1500, ignore_eos=True, stop=["no such words"])
    begun = [asyncio.Event(), asyncio.Event()]
    running = [
        asyncio.create_task(stream(client, url, made["secret"], long, f"cut-{number}", first))
        for number, (url, first) in enumerate(zip(urls, begun, strict=True))
    ]
    async with asyncio.timeout(30):
        for first in begun:
            await first.wait()
    await asyncio.to_thread(installation.cli, "key", "revoke", made["key"]["id"])
    await asyncio.sleep(1.0)
    assert not any(task.done() for task in running), "without --now what runs may finish"
    await asyncio.to_thread(installation.cli, "key", "revoke", made["key"]["id"], "--now")
    ended = await asyncio.wait_for(asyncio.gather(*running), 30)
    assert [result.error and result.error["code"] for result in ended] == ["invalid_api_key"] * 2
    assert not any(result.is_done or result.broke for result in ended)

    def rows() -> dict[str, tuple[str, str]]:
        told = installation.ledger_rows()
        return {r["request_id"]: (r["outcome"], r["reason"]) for r in told if r["request_id"].startswith("cut-")}

    async with asyncio.timeout(20):
        while len(found := await asyncio.to_thread(rows)) < 2:
            await asyncio.sleep(0.2)
    assert set(found.values()) == {("failed", "key_revoked")}
