"""The administration routes of other gateways at the gateway's address: passed on to admin as they are, within bounds, with
the client's address proved; and refused in words while admin is away."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from forebay.clock import SystemClock
from forebay.forwarded import HEADER, Forwards
from forebay.local.certificates import open_authority, server_certificate
from forebay.tls import serving_tls
from forebay_gateway.config import GatewaySettings
from forebay_gateway.pages.administration import MOST_BODY_BYTES, is_administration
from tests.gateway.house import PEPPER, House, open_house


@dataclass
class AdminHttpDouble:
    """Says what it was asked, and answers as admin would."""

    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    asked_from: set[tuple[str, int]] = field(default_factory=set)
    url: str = ""
    runner: web.ServerRunner | None = None

    async def start(self, tls: Any = None) -> None:
        self.runner = web.ServerRunner(web.Server(self._answer))
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = self.runner.addresses[0][1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert request.transport is not None
        self.asked_from.add(request.transport.get_extra_info("peername"))
        self.asked.append((request.method, request.raw_path, headers, await request.read()))
        if request.path == "/api/admin/telemetry/export":
            response = web.StreamResponse(headers={"content-type": "text/csv"})
            await response.prepare(request)
            for _ in range(64):
                await response.write(b"x" * 65_536)
            return response
        told = {"set-cookie": "a=b", "www-authenticate": "Bearer", "content-disposition": "attachment"}
        return web.json_response({"detail": "told"}, status=418, headers=told)


@pytest.fixture
async def double() -> AsyncIterator[AdminHttpDouble]:
    made = AdminHttpDouble()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def house(tmp_path: Path, double: AdminHttpDouble) -> AsyncIterator[House]:
    async with open_house(tmp_path, admin_http_url=double.url) as opened:
        yield opened


async def test_a_request_is_passed_on_as_it_is(house: House, double: AdminHttpDouble) -> None:
    headers = {
        "authorization": "Bearer fb-admins",
        "cookie": "forebay_session=x",
        "x-forwarded-for": "192.0.2.7",
        "connection": "keep-alive",
        HEADER: "1 forged 192.0.2.7",
        "accept": "text/csv",
    }
    path = "/api/admin/audit/search?search_text=a%20b%2Fc&limit=5"
    for verb, body in (("GET", None), ("POST", {"a": 1}), ("PATCH", {"b": None}), ("PUT", {}), ("DELETE", None)):
        url = URL(house.url + path, encoded=True)
        async with house.client.request(verb, url, json=body, headers=headers) as answer:
            assert (answer.status, await answer.json()) == (418, {"detail": "told"})
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-disposition"] == "attachment"
            assert "set-cookie" not in answer.headers
            assert answer.headers["server"] == "forebay"
            assert answer.headers["x-request-id"]
        method, target, told, sent = double.asked[-1]
        assert (method, target, told["authorization"]) == (verb, path, "Bearer fb-admins")
        assert sent == (b"" if body is None else json.dumps(body).encode())
        assert not {"cookie", "x-forwarded-for"} & set(told)
        address = Forwards(PEPPER).read(told, verb, path, SystemClock().now())
        assert address == "127.0.0.1"


async def test_an_answer_is_streamed_and_a_head_has_none(house: House, double: AdminHttpDouble) -> None:
    async with house.client.get(f"{house.url}/api/admin/telemetry/export") as answer:
        assert len(await answer.read()) == 64 * 65_536
    async with house.client.head(f"{house.url}/v1.0/frontends/f") as answer:
        assert (answer.status, await answer.read()) == (418, b"")
    assert double.asked[-1][0] == "HEAD"


@pytest.mark.parametrize("is_announced", [True, False])
async def test_what_is_too_large_is_not_passed_on(house: House, double: AdminHttpDouble, is_announced: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * (MOST_BODY_BYTES // 2)

    body: Any = b"x" * (MOST_BODY_BYTES + 1) if is_announced else pieces()
    async with house.client.put(f"{house.url}/v1.0/backends", data=body) as answer:
        told = await answer.json()
        assert (answer.status, told["Error"], told["StatusCode"]) == (413, "TooLarge", 413)
    assert double.asked == []


async def test_while_admin_is_away_that_is_said_and_models_answer(house: House, double: AdminHttpDouble) -> None:
    await double.stop()
    for path, place in (("/api/admin/users", "detail"), ("/status", "detail"), ("/v1.0/frontends", "Message")):
        async with house.client.get(f"{house.url}{path}") as answer:
            assert answer.status == 503
            assert answer.headers["retry-after"] == "2"
            assert "Admin cannot be reached" in (await answer.json())[place]
    async with house.client.get(f"{house.url}/v1/models", headers=house.headers) as answer:
        assert answer.status == 200


async def test_a_gateway_that_knows_no_admin_http_says_what_to_set(tmp_path: Path) -> None:
    async with (
        open_house(tmp_path, admin_http_url="") as house,
        house.client.get(f"{house.url}/api/cluster/trends?range=day") as answer,
    ):
        assert (answer.status, "admin_http_url" in (await answer.json())["detail"]) == (503, True)


async def test_only_admins_own_certificate_is_believed(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = open_authority(tmp_path, now)
    own, other = (server_certificate(authority, tmp_path, name, ["127.0.0.1"], now) for name in ("own", "other"))
    double = AdminHttpDouble()
    async with serving_tls(own.certificate_file, own.key_file) as tls:
        await double.start(tls)
        for certificate, status in ((own, 418), (other, 503)):
            believed = {"admin_http_url": double.url, "admin_http_cert_file": certificate.certificate_file}
            place = tmp_path / certificate.certificate_file.stem
            place.mkdir()
            async with open_house(place, **believed) as house:
                for _ in range(3):
                    async with house.client.get(f"{house.url}/api/admin/users") as answer:
                        assert answer.status == status
        await double.stop()
    assert (len(double.asked), len(double.asked_from)) == (3, 1)  # a connection is kept


@pytest.mark.parametrize("key", ["fb-x%0d%0aevil:%201", "fb-%00"])
async def test_what_no_header_may_hold_is_refused(house: House, double: AdminHttpDouble, key: str) -> None:
    async with house.client.get(URL(f"{house.url}/k/{key}/api/admin/users", encoded=True)) as answer:
        assert (answer.status, list(await answer.json())) == (400, ["detail"])
    assert double.asked == []


async def test_a_body_that_stalls_is_refused_in_the_shape_of_its_address(
    tmp_path: Path, double: AdminHttpDouble
) -> None:
    async with open_house(tmp_path, admin_http_url=double.url, body_idle_s=0.2) as house:
        url = URL(house.url)
        for path, place in (("/api/admin/groups", "detail"), ("/v1.0/backends", "Message")):
            reader, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(f"PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{{".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            told = json.loads(await reader.readexactly(int(re.findall(rb"(?i)content-length: (\d+)", head)[0])))
            writer.close()
            assert (head.split()[1], "stopped arriving" in told[place]) == (b"408", True)
    assert double.asked == []


@pytest.mark.parametrize("url", ["127.0.0.1:1", "http://u:secret@h", "http://h/?x", "ftp://h"])
def test_an_address_of_admin_that_is_none_is_said_and_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="admin_http_url") as error:
        GatewaySettings(
            token_file=tmp_path,
            pepper_file=tmp_path,
            snapshot_dir=tmp_path,
            snapshot_key_file=tmp_path,
            journal_dir=tmp_path,
            admin_http_url=url,
        )
    assert "secret" not in str(error.value)


def test_what_is_served_here_stays_here() -> None:
    passed = (
        "/status",
        "/api/admin/users",
        "/api/cluster/trends",
        "/v1.0/frontends",
        "/admin/queue",
        "/admin/backends/7/drain",
    )
    kept = (
        "/",
        "/api/chat",
        "/api/tags",
        "/v1/models",
        "/statuses",
        "/api/administer",
        "/v1.01",
        "/admin",
        "/admin/users",
        "/api/admin/../v1/keys",
        "/api/admin/./users",
        "/v1.0/..",
    )
    assert [is_administration(path) for path in (*passed, *kept)] == [*(True for _ in passed), *(False for _ in kept)]
