"""Servers that answer slowly what requests name by address: whom they hold up, for how long, and what that takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from forebay_gateway import public_web
from forebay_gateway.held_body import BodyBudget
from forebay_gateway.refused import Refused
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.house import House, ask, eventually, open_house
from tests.gateway.test_pictures import PNG
from tests.gateway.test_stored_responses import SOMEBODY_ELSE

QUICK = Pace(tokens_per_s=4000.0, ttft_s=0.0, answer_tokens=2)


@dataclass(slots=True)
class Gallery:
    """On loopback. `/slow` ends its pictures when it is told to, `/late` after a tenth of a second."""

    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: int = 0
    host: str = ""

    async def quick(self, _: web.Request) -> web.Response:
        return web.Response(body=PNG, content_type="image/png")

    async def late(self, _: web.Request) -> web.Response:
        await asyncio.sleep(0.1)
        return web.Response(body=PNG, content_type="image/png")

    async def slow(self, request: web.Request) -> web.StreamResponse:
        self.at_once += 1
        try:
            response = web.StreamResponse(headers={"content-type": "image/png"})
            await response.prepare(request)
            await response.write(bytes(100_000))
            await self.go_on.wait()
            await response.write_eof()
            return response
        finally:
            self.at_once -= 1

    def url(self, name: str) -> str:
        return f"http://{self.host}/{name}"


@asynccontextmanager
async def open_gallery() -> AsyncIterator[Gallery]:
    gallery = Gallery()
    app = web.Application()
    for name in ("quick", "late", "slow"):
        app.router.add_get(f"/{name}", getattr(gallery, name))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    gallery.host = f"localhost:{site.port}"
    try:
        yield gallery
    finally:
        gallery.go_on.set()
        await runner.cleanup()


def naming(*urls: str, text: str = "What is this?") -> dict[str, Any]:
    parts = [{"type": "text", "text": text}, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]
    return ask(messages=[{"role": "user", "content": parts}])


async def asked(house: House, body: Any, **headers: str) -> tuple[int, str]:
    async with house.post(body, headers={**house.headers, **headers}) as answer:
        return answer.status, await answer.text()


async def test_one_users_slow_servers_hold_up_nobody_else(tmp_path: Path) -> None:
    async with (
        open_gallery() as gallery,
        open_house(tmp_path, FakeEngine(pace=QUICK), trusted_picture_hosts="localhost") as house,
    ):
        bobs = house.admin.add_key(**SOMEBODY_ELSE)
        await asyncio.sleep(0.1)
        slow = [asyncio.create_task(asked(house, naming(gallery.url("slow")))) for _ in range(70)]
        await eventually(lambda: gallery.at_once == 4)
        status, told = await asyncio.wait_for(
            asked(house, naming(gallery.url("quick")), authorization=f"Bearer {bobs}"), 3
        )
        assert (status, gallery.at_once) == (200, 4), told
        gallery.go_on.set()
        assert {status for status, _ in await asyncio.gather(*slow)} == {200}
        assert house.metric("forebay_gateway_held_body_bytes") == 0


async def test_all_that_a_request_names_has_one_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_web, "_WITHIN_S", 0.35)
    async with (
        open_gallery() as gallery,
        open_house(tmp_path, FakeEngine(pace=QUICK), trusted_picture_hosts="localhost") as house,
    ):
        assert (await asked(house, naming(gallery.url("late"))))[0] == 200
        status, told = await asked(house, naming(*[gallery.url("late")] * 8))
        assert (status, "no answer came (TimeoutError)" in told) == (400, True)


async def test_what_is_fetched_is_held_as_it_arrives(tmp_path: Path) -> None:
    async with (
        open_gallery() as gallery,
        open_house(
            tmp_path, FakeEngine(pace=QUICK), trusted_picture_hosts="localhost", held_bodies_bytes=150_000
        ) as house,
    ):
        first = asyncio.create_task(asked(house, naming(gallery.url("slow"))))
        await eventually(lambda: house.metric("forebay_gateway_held_body_bytes") > 100_000)
        status, told = await asked(house, naming(gallery.url("slow")))
        assert (status, "memory allows" in told) == (503, True)
        gallery.go_on.set()
        assert (await first)[0] == 200
        assert house.metric("forebay_gateway_held_body_bytes") == 0


async def test_a_body_on_the_disk_comes_into_memory_before_anything_is_fetched_for_it(tmp_path: Path) -> None:
    budget = BodyBudget(1_000, 10_000, tmp_path)
    other, held = budget.hold(), budget.hold()
    other.grow(900)
    await held.add(bytes(400))
    assert len(await held.whole()) == 400
    with pytest.raises(Refused, match="memory allows"):
        held.into_memory()
    other.release()
    for _ in range(3):
        await budget.turns.acquire()
    assert budget.turns.locked()
    held.into_memory()
    assert (budget.held_bytes, budget.spooled_bytes, budget.turns.locked()) == (400, 0, False)
    held.release()
    assert budget.held_bytes == 0


async def test_a_request_too_long_for_memory_has_nothing_fetched_for_it(tmp_path: Path) -> None:
    async with (
        open_gallery() as gallery,
        open_house(
            tmp_path,
            FakeEngine(pace=QUICK, context_tokens=100_000),
            trusted_picture_hosts="localhost",
            held_bodies_bytes=20_000,
        ) as house,
    ):
        status, told = await asked(house, naming(gallery.url("slow"), text="x" * 30_000))
        assert (status, "memory allows" in told, gallery.at_once) == (503, True, 0)
        assert (await asked(house, naming(gallery.url("quick"))))[0] == 200
        assert house.metric("forebay_gateway_spooled_body_bytes") == 0
