"""How lines reach gateways: what was sent and what was not is never confused, and whom admin takes for a gateway."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from forebay.clock import SystemClock
from forebay.delegation import Delegations
from forebay.errors import CannotStart
from forebay.ledger_id import new_ledger_id
from forebay.local.certificates import open_authority, server_certificate
from forebay_admin.batches.gateways import Gateways, TooLong, Unheard, Unsent, open_gateways
from forebay_admin.batches.line import Heard
from forebay_admin.config import AdminSettings
from tests.conftest import free_port

PEPPER = b"p" * 64
KEY = "0123456789ab"
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def gateway(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(*urls: str, ca: Path | None = None, cert: Path | None = None) -> AsyncIterator[Gateways]:
    async with open_gateways(urls, ca, cert, PEPPER, SystemClock()) as gateways:
        yield gateways


async def send(gateways: Gateways, ledger_id: bytes | None = None) -> Heard | Unsent | Unheard | TooLong:
    return await gateways.send("/v1/chat/completions", b'{"a":1}', KEY, ledger_id or new_ledger_id(time.time()))


async def test_a_line_is_sent_with_a_delegation_and_its_answer_is_heard_whole() -> None:
    seen = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(
            (request.path, await request.read(), request.headers["authorization"], request.headers["x-request-id"])
        )
        headers = {
            "x-forebay-reason": "rate_limited",
            "retry-after-ms": "1500",
            "retry-after": "2",
            "x-request-id": "r",
        }
        return web.Response(status=429, body=b"{}", headers=headers)

    ledger_id = new_ledger_id(time.time())
    async with gateway(answer) as url, client(url) as gateways:
        assert await send(gateways, ledger_id) == Heard(429, "r", "rate_limited", 1.5, b"{}")
    ((path, body, authorization, request_id),) = seen
    assert (path, body, request_id) == ("/v1/chat/completions", b'{"a":1}', f"batch_req_{ledger_id.hex()}")
    scheme, _, token = authorization.partition(" ")
    delegation = Delegations(PEPPER).read(token, time.time())
    assert delegation is not None
    assert (scheme, delegation.key_id, delegation.ledger_id) == ("Forebay-Delegation", KEY, ledger_id)


async def test_what_reached_nobody_was_not_sent_and_the_next_gateway_is_asked() -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(body=b"{}")

    away = f"http://127.0.0.1:{free_port()}"
    async with client(away) as gateways:
        assert isinstance(await send(gateways), Unsent)
    async with gateway(answer) as url, client(away, url) as gateways:
        for _ in range(3):
            assert isinstance(await send(gateways), Heard)


@pytest.mark.parametrize("after_bytes", [0, 10])
async def test_what_broke_off_may_have_been_done_and_is_asked_of_nobody_else(after_bytes: int) -> None:
    asked = []

    async def breaks_off(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(await request.read())
        assert request.transport is not None
        if after_bytes:
            response = web.StreamResponse(headers={"content-length": "100"})
            await response.prepare(request)
            await response.write(b"x" * after_bytes)
        request.transport.abort()
        return web.Response()

    async with gateway(breaks_off) as one, gateway(breaks_off) as other, client(one, other) as gateways:
        assert isinstance(await send(gateways), Unheard)
    assert len(asked) == 1


async def test_a_redirection_is_not_followed_and_a_longer_answer_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay_admin.batches.gateways.MOST_ANSWER_BYTES", 1000)

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.headers["x-request-id"].endswith("0"):
            return web.Response(status=307, headers={"location": "/elsewhere"})
        status = 400 if request.headers["x-request-id"].endswith("2") else 200
        return web.Response(status=status, body=b"x" * 2000)

    async with gateway(answer) as url, client(url) as gateways:
        moved = await send(gateways, bytes(15) + b"\x10")
        assert isinstance(moved, Heard)
        assert moved.status == 307
        assert await send(gateways, bytes(15) + b"\x11") == TooLong()
        refused = await send(gateways, bytes(15) + b"\x12")
        assert isinstance(refused, Heard)
        assert (refused.status, len(refused.body)) == (400, 1024)


async def test_a_gateway_that_says_not_to_try_again_is_heard() -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(status=502, headers={"x-should-retry": "false", "x-forebay-reason": "output_invalid"})

    async with gateway(answer) as url, client(url) as gateways:
        heard = await send(gateways)
    assert isinstance(heard, Heard)
    assert not heard.may_retry


async def test_over_https_a_gateway_is_known_by_its_authority_or_by_its_own_certificate(tmp_path: Path) -> None:
    sent = []

    async def answer(request: web.BaseRequest) -> web.Response:
        sent.append(request.path)
        return web.Response(body=b"{}")

    now = datetime.now(UTC)
    (tmp_path / "other").mkdir()
    authority, other = open_authority(tmp_path, now), open_authority(tmp_path / "other", now)
    mine = server_certificate(authority, tmp_path, "server", ["127.0.0.1"], now)
    named = server_certificate(authority, tmp_path, "named", ["forebay.example"], now)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(mine.certificate_file, mine.key_file)
    async with gateway(answer, tls) as url:
        async with client(url, ca=authority.certificate_file) as gateways:
            assert isinstance(await send(gateways), Heard)
        async with client(url, cert=mine.certificate_file) as gateways:
            assert isinstance(await send(gateways), Heard)
        for trust in (
            {"ca": other.certificate_file},
            {"cert": named.certificate_file},
            {"cert": tmp_path / "nothing.pem"},
            {},
        ):
            async with client(url, **trust) as gateways:
                assert isinstance(await send(gateways), Unsent)
    assert len(sent) == 2
    tls.load_cert_chain(named.certificate_file, named.key_file)
    async with gateway(answer, tls) as url, client(url, cert=named.certificate_file) as gateways:
        assert isinstance(await send(gateways), Heard)


async def test_an_authority_that_is_none_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(CannotStart, match="gateway_ca_file"):
        async with client("https://127.0.0.1:1", ca=tmp_path / "ca.pem"):
            raise AssertionError("it was opened")


@pytest.mark.parametrize("urls", ["", "127.0.0.1:8090", "http://", "http://a:1,ftp://b:2"])
def test_addresses_that_are_none_are_told_before_anything_starts(urls: str) -> None:
    def told(urls: str) -> AdminSettings:
        file = Path("x")
        return AdminSettings(
            token_file=file, callers_file=file, pepper_file=file, seal_key_file=file, gateway_urls=urls
        )

    with pytest.raises(ValueError, match="gateway_urls"):
        told(urls)
    assert told("http://a:1/, https://b:2").gateway_addresses == ("http://a:1", "https://b:2")
