"""Signing in with a provider: a real one in a process of its own, and one that lies."""

from __future__ import annotations

import asyncio
import base64
import hmac
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from joserfc.jwk import RSAKey

from forebay.wire.v1 import admin_pb2
from tests.admin.replica import Running, Start
from tests.admin.sign_in.browser import Browser, open_browser
from tests.admin.sign_in.lying_provider import LyingProvider, open_lying_provider
from tests.admin.test_operator import query

CORP = """
[corp]
title = "Corp"
issuer = "{corp}"
client_id = "forebay"
client_secret_file = "secret"
default_group = "guests"
default_limits = {{ requests_per_minute = 20, concurrency = 2 }}
groups = {{ "ml-team" = "research" }}
roles = {{ "forebay-ops" = "operator" }}
link_by_email = true

[liar]
kind = "entra"
issuer = "{liar}"
client_id = "forebay"
client_secret_file = "secret"
groups = {{ "g-1" = "research" }}
graph_url = "{liar}/graph"
"""


@dataclass
class House:
    admin: Running
    browser: Browser
    corp: str
    """The real provider."""
    liar: LyingProvider

    async def comes_as(self, sub: str, **claims: Any) -> tuple[int, str, str]:
        """Somebody signs in at the real provider: what the browser gets on its way back."""
        session = self.browser.session
        async with session.put(f"{self.corp}/users/{sub}", json=claims) as answer:
            assert answer.status == 204
        _, _, where = await self.browser.get("/sign-in/with/corp?next=/device")
        async with session.post(where, data={"sub": sub}, allow_redirects=False) as answer:
            assert answer.status == 302
            return await self.browser.get(answer.headers["location"])

    async def lied_to(self, **more: str) -> tuple[int, str, str]:
        _, _, where = await self.browser.get("/sign-in/with/liar")
        return await self.browser.get(self.liar.send_back(where, **more))


@pytest.fixture
async def corp(free_port: Callable[[], int]) -> AsyncIterator[str]:
    """A provider in a process of its own."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(60):
            while True:
                assert process.poll() is None, "the provider did not start"
                try:
                    async with session.get(f"{url}/.well-known/openid-configuration") as answer:
                        assert answer.status == 200
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
async def house(start: Start, tmp_path: Path, corp: str) -> AsyncIterator[House]:
    async with open_lying_provider() as liar:
        (tmp_path / "secret").write_text("s3/cret")
        (tmp_path / "providers.toml").write_text(CORP.format(corp=corp, liar=liar.issuer))
        async with (
            start(providers_file=tmp_path / "providers.toml") as admin,
            open_browser(admin.http_address) as browser,
        ):
            yield House(admin, browser, corp, liar)


async def test_people_come_in_by_a_provider_and_become_users_with_limits(house: House) -> None:
    root = await house.admin.operator()
    _, page, _ = await house.browser.get("/sign-in")
    assert "Sign in with Corp" in page
    status, page, onward = await house.comes_as("u-1", email="Alice@Example.org", email_verified=True)
    assert (status, onward) == (303, "/device"), page
    _, told = await house.browser.call("GET", "/sign-in/me")
    assert (told["user"], told["role"]) == ("alice@example.org", "member")
    user = (await root.ShowUser(name="alice@example.org")).user
    assert [(one.provider, one.issuer, one.subject) for one in user.identities] == [("corp", house.corp, "u-1")]
    limits = await query(house.admin, "SELECT requests_per_minute, concurrency FROM admin.groups WHERE name = 'guests'")
    assert [tuple(row) for row in limits] == [(20, 2)]
    # Again: the same user, though their address is another now; their groups there decide.
    status, _, _ = await house.comes_as(
        "u-1", email="alice@corp.example", email_verified=True, groups=["ml-team", "forebay-ops"]
    )
    assert status == 303
    users = {u.name: u for u in (await root.ListUsers()).users}
    assert set(users) == {"admin", "alice@example.org"}
    assert (users["alice@example.org"].group_name, users["alice@example.org"].role) == (
        "research",
        admin_pb2.ROLE_OPERATOR,
    )
    await house.comes_as("u-1", email="alice@corp.example", email_verified=True, groups=["ml-team"])
    assert (await root.ShowUser(name="alice@example.org")).user.role == "member"
    # Who was disabled stays out, and who has nobody's verified address does too.
    await root.SetUserRights(name="alice@example.org", disabled=True)
    status, page, _ = await house.comes_as("u-1", email="alice@corp.example", email_verified=True)
    assert (status, "may not sign in here" in page) == (401, True)
    for claims, why in (
        ({"email": "bob@example.org", "email_verified": False}, "not verified"),
        ({"email": "bob@example.org"}, "not verified"),
        ({}, "what to call this person"),
        ({"email": "bob@example.org", "email_verified": True, "groups": {"a": 1}}, "in a form that is not known"),
    ):
        status, page, _ = await house.comes_as("u-2", **claims)
        assert (status, why in page) == (401, True), (claims, page)
    assert len((await root.ListUsers()).users) == 2
    rows = await query(
        house.admin,
        "SELECT actor, action, subject FROM admin.audit_log WHERE interface = 'sign_in' ORDER BY id LIMIT 4",
    )
    assert [tuple(row) for row in rows] == [
        ("provider corp", "group.add", "guests"),
        ("provider corp", "user.add", "alice@example.org"),
        ("alice@example.org", "user.link", "alice@example.org"),
        ("alice@example.org", "session.begin", rows[3]["subject"]),
    ]


async def test_a_name_that_somebody_has_is_not_taken_over(house: House) -> None:
    root = await house.admin.operator()
    for name in ("bob@example.org", "carol@example.org", "dana@example.org", "erin@example.org"):
        await root.AddUser(name=name)
    await root.SetCustomRole(name="clerk", permissions=["users:write"])
    await root.SetUserRights(name="erin@example.org", custom_roles={"names": ["clerk"]})
    await root.CreateKey(user="carol@example.org")
    await root.SetUserRights(name="dana@example.org", role="admin")
    # Made for them, and nobody was it yet.
    assert (await house.comes_as("u-bob", email="bob@example.org", email_verified=True))[0] == 303
    for whose in ("bob", "carol", "dana", "erin"):
        status, page, _ = await house.comes_as(f"u-not-{whose}", email=f"{whose}@example.org", email_verified=True)
        assert (status, "here already" in page) == (401, True), page
    status, page, _ = await house.comes_as("u-root", preferred_username="admin")
    assert (status, "here already" in page) == (401, True), page


async def test_what_a_provider_does_not_sign_or_does_not_mean_for_us_lets_nobody_in(house: House) -> None:
    liar, root = house.liar, await house.admin.operator()
    # The confusion of old libraries: the public key taken for a secret that both have.
    head, body = _b64(b'{"alg":"HS256","kid":"one"}'), _b64(b'{"sub":"42"}')
    mac = hmac.digest(liar.key.as_pem(private=False), f"{head}.{body}".encode(), "sha256")
    confused = f"{head}.{body}.{_b64(mac)}"
    lies: tuple[tuple[dict[str, Any], str], ...] = (
        ({"claims": {"iss": "https://other.example"}}, "another issuer"),
        ({"claims": {"aud": "other"}}, "another program"),
        ({"claims": {"nonce": "guess"}}, "another sign-in"),
        ({"claims": {"exp": 1_000_000}}, "expired"),
        ({"claims": {"sub": None}}, "who this is"),
        ({"signs_with": RSAKey.generate_key(2048, {"kid": "one"})}, "did not sign itself"),
        ({"answer": {"id_token": confused}}, "did not sign itself"),
        ({"answer": {"id_token": "e30.e30."}}, "did not sign itself"),
        ({"answer": {"id_token": "eyJhbGciOiJub25lIn0.e30."}}, "did not sign itself"),
        ({"answer": {"id_token": 7}}, "no token"),
        ({"answer": {"id_token": "x" * 70_000}}, "no token"),
        ({"answer": {"padding": "x" * 1_100_000}}, "more than can be meant"),
        ({"claims": {"_claim_names": {"groups": "src1"}}}, "too many groups"),
    )
    for lie, why in lies:
        liar.tell_truth()
        for name, value in lie.items():
            setattr(liar, name, value)
        status, page, _ = await house.lied_to()
        assert (status in (401, 503), why in page) == (True, True), (lie.keys(), status, page[-400:])
    assert [user.name for user in (await root.ListUsers()).users] == ["admin"]
    # The truth, also of groups that are told elsewhere.
    liar.tell_truth()
    liar.claims, liar.groups_elsewhere = {"_claim_names": {"groups": "src1"}, "oid": "o-1"}, ["g-0", "g-1"]
    status, page, onward = await house.lied_to()
    assert (status, onward) == (303, "/me"), page
    assert (await root.ShowUser(name="mallory@example.org")).user.identities[0].subject == "o-1"
    assert {u.group_name for u in (await root.ListUsers()).users} == {"everyone", "research"}


async def test_each_sign_in_ends_where_it_began_and_once(house: House) -> None:
    liar, browser = house.liar, house.browser
    _, _, where = await browser.get("/sign-in/with/liar")
    assert liar.send_back(where)
    assert liar.asked["redirect_uri"] == f"{browser.url}/sign-in/callback/liar"
    assert (liar.asked["response_type"], liar.asked["code_challenge_method"]) == ("code", "S256")
    assert where.startswith(f"{liar.issuer}/authorize?tenant=1&")
    state = browser.cookie("forebay_state")
    assert state["httponly"]
    assert liar.asked["nonce"] not in state.value
    # Another state, another provider, no cookie, another issuer, a refusal.
    for path, why in (
        (liar.send_back(where, state="guess"), "was not begun here"),
        (liar.send_back(where).replace("/callback/liar", "/callback/corp"), "was not begun here"),
    ):
        status, page, _ = await browser.get(path)
        assert (status, why in page) == (401, True), page
    status, page, _ = await browser.get(liar.send_back(where))
    assert (status, "was not begun here" in page) == (401, True), "the first answer took the cookie back"
    for more, why in (
        ({"iss": "https%3A%2F%2Fevil.example"}, "is not of"),
        ({"code": "", "error": "access_denied"}, "(access_denied)"),
    ):
        status, page, _ = await house.lied_to(**more)
        assert (status, why in page) == (401, True), page
    # A second time with everything that the first had.
    _, _, where = await browser.get("/sign-in/with/liar")
    held, back = browser.cookie("forebay_state").value, liar.send_back(where)
    assert (await browser.get(back))[0] == 303
    status, page, _ = await browser.get(back, headers={"cookie": f"forebay_state={held}"})
    assert (status, "used already" in page) == (401, True), page
    # A provider's keys are read again for one that is not known yet.
    liar.key = RSAKey.generate_key(2048, {"kid": "two"})
    liar.header = {"alg": "RS256", "kid": "two"}
    assert liar.served.count("configuration") == 1
    assert liar.served.count("jwks") == 1
    liar.configuration = {"issuer": "https://evil.example"}
    assert (await browser.get("/sign-in/with/nobody"))[0] == 404


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
