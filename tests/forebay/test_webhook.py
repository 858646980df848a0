"""A signed POST to a real HTTP server, checked as its receiver would."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from forebay.errors import CannotStart
from forebay.webhook import Posted, backoff_s, host_of, post, read_webhook_secret

SECRET = b"0123456789abcdef0123456789abcdef"
BODY = b'{"type": "alert.opened"}'


@asynccontextmanager
async def receiver(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hooks/very-secret-path"
    finally:
        await runner.cleanup()


async def tell(url: str, **more: float) -> Posted:
    async with aiohttp.ClientSession() as session:
        return await post(session, url, SECRET, "al-1.1", BODY, now=1_800_000_000.9, **more)


async def test_a_receiver_can_check_who_sent_it_and_when() -> None:
    got: list[tuple[dict[str, str], bytes]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response(status=204)

    async with receiver(answer) as url:
        posted = await tell(url)
    assert posted.is_delivered
    ((headers, body),) = got
    assert (body, headers["webhook-id"], headers["webhook-timestamp"]) == (BODY, "al-1.1", "1800000000")
    signed = b"al-1.1.1800000000." + BODY
    expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["content-type"] == "application/json"


async def test_a_redirect_is_not_followed_and_a_failure_tells_nothing_of_the_path() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=307, headers={"location": "/elsewhere"})

    async with receiver(answer) as url:
        posted = await tell(url)
    assert not posted.is_delivered
    assert len(asked) == 1
    assert "It redirects, which is not followed" in posted.said
    assert "secret" not in posted.said
    gone = await tell(url)
    assert "cannot be reached" in gone.said
    assert "secret" not in gone.said


@pytest.mark.parametrize(
    ("status", "header", "is_gone", "after_s"),
    [
        (200, "", False, None),
        (410, "", True, None),
        (503, "30", False, 30.0),
        (429, "999999", False, 3600.0),
        (500, "soon", False, None),
    ],
)
async def test_what_each_answer_means(status: int, header: str, is_gone: bool, after_s: float | None) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"retry-after": header} if header else {})

    async with receiver(answer) as url:
        posted = await tell(url)
    assert (posted.is_delivered, posted.is_gone, posted.after_s) == (status == 200, is_gone, after_s)


async def test_who_never_answers_and_who_speaks_something_else_fail_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        posted = await tell(f"http://127.0.0.1:{silent.getsockname()[1]}/x", timeout_s=0.2)
    assert (posted.is_delivered, "did not answer within 0.2 s" in posted.said) == (False, True)

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        posted = await tell(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x")
    assert not posted.is_delivered


def test_secrets_are_read_in_both_forms_and_short_ones_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"whsec_{base64.b64encode(SECRET).decode()}\n")
    assert read_webhook_secret(file) == SECRET
    file.write_bytes(SECRET + b"\n")
    assert read_webhook_secret(file) == SECRET
    for wrong, why in (("whsec_???", "not base64"), ("short", "shorter than 16 bytes")):
        file.write_text(wrong)
        with pytest.raises(CannotStart, match=why):
            read_webhook_secret(file)


def test_pauses_double_up_to_a_quarter_of_an_hour_and_hosts_alone_are_shown() -> None:
    assert [backoff_s(n) for n in (1, 2, 3, 9, 10, 10_000)] == [2.0, 4.0, 8.0, 512.0, 900.0, 900.0]
    assert host_of("https://hooks.example.org:8443/services/T0/B0/xyz?key=1") == "hooks.example.org:8443"
