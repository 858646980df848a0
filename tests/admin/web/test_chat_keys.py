"""What the chat pays with: a key of whoever is signed in, for one request, from their page, to one model."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from forebay.clock import ManualClock
from forebay.database import open_database
from forebay.ephemeral_keys import EphemeralSeal
from forebay.keys import ForebayKey
from forebay_admin.chat.chat_desk import ChatDesk
from forebay_admin.chat.conversation import ChatLimits
from forebay_admin.content.blob_store import DirectoryBlobs
from forebay_admin.content.content_sweep import ORPHAN_S, ContentSweep
from forebay_admin.people.access import Actor
from forebay_admin.people.people import Role
from forebay_admin.tables import SCHEMA
from tests.admin.replica import OperatorCalls, Running, Start
from tests.admin.sign_in.browser import Browser, open_browser
from tests.admin.web.conftest import PASSWORD
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, PEPPER, House, ask, open_house


async def sign_in(admin: Running, browser: Browser, name: str) -> OperatorCalls:
    root = await admin.operator()
    await root.AddUser(name=name)
    reset = await root.ResetPassword(user=name)
    assert (await browser.call("POST", "/sign-in/password", {"token": reset.token, "password": PASSWORD}))[0] == 200
    assert (await browser.submit("/sign-in", name=name, password=PASSWORD))[0] == 303
    return root


async def mint(browser: Browser, model: str = MODEL, **headers: str) -> tuple[int, dict[str, Any]]:
    told = {"origin": browser.url, "x-forebay-csrf": await browser.csrf(), **headers}
    status, answer = await browser.call("POST", "/chat/api/key", {"model": model}, **told)
    return status, dict(answer)


async def chat(house: House, key: str, origin: str, model: str = MODEL) -> int:
    headers = {"authorization": f"Bearer {key}", "origin": origin}
    async with house.client.post(
        f"{house.url}/v1/chat/completions", json=ask(model=model), headers=headers
    ) as response:
        await response.read()
        return int(response.status)


async def known(house: House, key: ForebayKey) -> None:
    """Returns when the gateway knows that key, and so those before it."""
    async with asyncio.timeout(60):
        while True:
            headers = {"authorization": f"Bearer {key}"}
            async with house.client.get(f"{house.url}/v1/models", headers=headers) as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.01)


async def test_a_gateway_takes_what_admin_made_once_from_that_page_for_that_model(start: Start, tmp_path: Path) -> None:
    pepper = tmp_path / "shared-pepper"
    pepper.write_bytes(PEPPER)
    (tmp_path / "gateway").mkdir()
    engine = FakeEngine(pace=Pace(tokens_per_s=2000, answer_tokens=5))
    async with (
        start(pepper_file=pepper) as admin,
        open_browser(admin.http_address) as browser,
        open_house(tmp_path / "gateway", engine) as house,
    ):
        await sign_in(admin, browser, "alice")
        status, minted = await mint(browser)
        assert status == 200
        key = house.admin.add_key(key_id=minted["key_id"])  # as the gateway is told of it
        await known(house, house.admin.add_key())
        statuses = [await chat(house, minted["value"], browser.url) for _ in range(2)]
        assert statuses == [200, 401]
        assert await chat(house, (await mint(browser))[1]["value"], "https://elsewhere.example") == 403
        assert await chat(house, (await mint(browser, "another-model"))[1]["value"], browser.url) == 403
        rows = await house.rows(4)
        assert {row.key_id for row in rows if row.http_status == 200} == {minted["key_id"]}
        assert key.public_id != minted["key_id"]  # nobody holds its secret


async def test_it_counts_as_one_key_of_the_user_that_they_see_and_end(admin: Running) -> None:
    async with open_browser(admin.http_address) as browser:
        root = await sign_in(admin, browser, "alice")
        minted = [(await mint(browser))[1] for _ in range(2)]
        own = [key for key in (await root.ListKeys(user="alice")).keys if key.name == "chat"]
        assert [one["key_id"] for one in minted] == [own[0].id] * 2
        assert len(own) == 1
        said = EphemeralSeal(b"p" * 64).open(minted[0]["value"])
        assert said is not None
        assert (said.key_id, set(said.narrowing.models), said.narrowing.origin) == (own[0].id, {MODEL}, browser.url)
        assert said.narrowing.address == "127.0.0.1"
        assert 0 < said.expires_at - time.time() <= 121
        acts = [act for act in (await root.ListAudit(limit=50)).entries if act.action == "ephemeral_key.issue"]
        assert {(act.actor, act.subject) for act in acts} == {("alice", own[0].id)}
        await root.BlockKey(key_id=own[0].id, reason="looked into")
        status, told = await mint(browser)
        assert (status, "looked into" in told["error"]["message"]) == (403, True)
        await root.RevokeKey(key_id=own[0].id)
        status, after = await mint(browser)
        assert (status, after["key_id"] == own[0].id) == (200, False)


@pytest.mark.parametrize("body", [{}, {"model": 1}, {"model": ""}, {"model": "x" * 300}, {"model": "a\nb"}])
async def test_a_key_is_for_a_model_and_for_nothing_that_is_none(admin: Running, body: dict[str, Any]) -> None:
    async with open_browser(admin.http_address) as browser:
        await sign_in(admin, browser, "alice")
        headers = {"x-forebay-csrf": await browser.csrf()}
        assert (await browser.call("POST", "/chat/api/key", body, **headers))[0] == 400


async def test_what_nobody_touched_for_long_goes_and_its_files_with_it(admin: Running, tmp_path: Path) -> None:
    root = await admin.operator()
    user = (await root.AddUser(name="alice")).user
    actor = Actor("alice", Role.MEMBER, user.id)
    place = tmp_path / "blobs"
    place.mkdir()
    clock, blobs = ManualClock(), DirectoryBlobs(place)
    limits = ChatLimits(conversations=5, bytes=10_000_000, days=30)
    async with open_database(admin.site.database_url, SCHEMA) as database:
        desk = ChatDesk(database, blobs, limits, clock, has_blobs=True)
        sweep = ContentSweep(database, blobs, clock, desk.sweep)
        old, kept, removed = [(await desk.begin(actor, {})).id for _ in range(3)]
        large = b"x" * 100_000
        for id in (old, kept, removed):
            await desk.attach(actor, id, "text/plain", large + id.encode())
        await desk.attach(actor, kept, "text/plain", large + kept.encode())
        assert len(list(place.iterdir())) == 3
        await desk.remove(actor, removed)
        assert len(list(place.iterdir())) == 2
        clock.advance(31 * 86_400.0)
        told = {"role": "user", "parent_id": None, "content": {"parts": [{"type": "text", "text": "Still here"}]}}
        await desk.say(actor, kept, "question1", told)
        await sweep.sweep()
        found, _ = await desk.list_own(actor)
        assert [one.id for one in found] == [kept]
        clock.advance(ORPHAN_S + 1)
        await sweep.sweep()
        (left,) = place.iterdir()
        _, body = await desk.file(
            actor, kept, (await desk.attach(actor, kept, "text/plain", large + kept.encode())).digest
        )
        assert (body, left.read_bytes()) == (large + kept.encode(), large + kept.encode())
