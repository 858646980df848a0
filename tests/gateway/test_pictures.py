"""Pictures that are named by their address: fetched from public places, and put into what the engine gets."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.engine import FakeEngine
from tests.gateway.house import House, ask, open_house

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
async def gallery() -> AsyncIterator[str]:
    """A web server on loopback, as `localhost:<port>`."""

    async def picture(_: web.Request) -> web.Response:
        return web.Response(body=PNG, content_type="image/png")

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="text/html")

    async def large(_: web.Request) -> web.Response:
        return web.Response(body=bytes(5000), content_type="image/png")

    async def elsewhere(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.query["to"])

    async def round_and_round(_: web.Request) -> web.Response:
        raise web.HTTPFound("/round")

    app = web.Application()
    for path, answer in (
        ("a.png", picture),
        ("page", page),
        ("large", large),
        ("to", elsewhere),
        ("round", round_and_round),
    ):
        app.router.add_get(f"/{path}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"localhost:{site.port}"
    await runner.cleanup()


def with_picture(url: Any, **fields: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": url}]
    return ask(messages=[{"role": "user", "content": parts}], **fields)


async def refusal(house: House, url: str) -> str:
    async with house.post(with_picture({"url": url})) as answer:
        told = (await answer.json())["error"]
        assert (answer.status, told["param"]) == (400, "messages[0].content[1].image_url.url")
        return str(told["message"])


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_gets_the_picture_itself(tmp_path: Path, gallery: str, stream: bool) -> None:
    engine = FakeEngine()
    async with open_house(tmp_path, engine, trusted_picture_hosts="localhost") as house:
        for url in ({"url": f"http://{gallery}/a.png"}, f"http://{gallery}/to?to=/a.png"):
            async with house.post(with_picture(url, stream=stream)) as answer:
                assert answer.status == 200
                assert "I see 1 image" in (await answer.text()).replace('"}', "") or stream
        seen = engine.record.requests[0].body["messages"][0]["content"][1]["image_url"]["url"]
        assert base64.b64decode(seen.removeprefix("data:image/png;base64,")) == PNG


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:10.0.0.1]/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:1/a.png",
        "http://2130706433/a.png",
        "http://127.1/a.png",
        "http://0x7f.0.0.1/a.png",
    ],
)
async def test_nothing_is_fetched_from_where_only_the_gateway_can_reach(tmp_path: Path, url: str) -> None:
    engine = FakeEngine()
    async with open_house(tmp_path, engine) as house:
        assert "cannot be fetched" in await refusal(house, url)
        assert not engine.record.requests


async def test_a_redirect_into_the_private_network_is_not_followed(tmp_path: Path, gallery: str) -> None:
    async with open_house(tmp_path, FakeEngine(), trusted_picture_hosts="localhost") as house:
        port = gallery.partition(":")[2]
        assert "not a public one" in await refusal(house, f"http://{gallery}/to?to=http://127.0.0.1:{port}/a.png")
        assert "only http" in await refusal(house, f"http://{gallery}/to?to=file:///etc/passwd")
        assert "on and on" in await refusal(house, f"http://{gallery}/round")


async def test_what_is_no_picture_or_too_large_or_not_there_is_named(tmp_path: Path, gallery: str) -> None:
    async with open_house(tmp_path, FakeEngine(), trusted_picture_hosts="localhost", max_picture_bytes=4000) as house:
        assert "text/html" in await refusal(house, f"http://{gallery}/page")
        assert "larger than 4000" in await refusal(house, f"http://{gallery}/large")
        assert "404" in await refusal(house, f"http://{gallery}/nothing")
        many = [{"type": "image_url", "image_url": {"url": f"http://{gallery}/a.png"}}] * 17
        async with house.post(ask(messages=[{"role": "user", "content": many}])) as answer:
            assert answer.status == 400
