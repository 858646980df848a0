"""What somebody tries who has a little and wants more: each order of calls that once gave it, and gives it no longer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from forebay.client_addresses import neighbourhood
from forebay_admin.keys.key_terms import is_from
from forebay_admin.sign_in.claims import arrival
from tests.admin.replica import OperatorCalls, Running
from tests.admin.sign_in.browser import Browser, open_browser
from tests.admin.sign_in.test_rules import CLAIMS, provider
from tests.admin.test_operator import code_of, refused

GOOD, BETTER = "correct horse battery", "staple and paper clip"


@pytest.fixture
async def browser(admin: Running) -> AsyncIterator[Browser]:
    async with open_browser(admin.http_address) as opened:
        yield opened


async def person(root: OperatorCalls, browser: Browser, name: str) -> None:
    await root.AddUser(name=name)
    token = (await root.ResetPassword(user=name)).token
    assert (await browser.call("POST", "/sign-in/password", {"token": token, "password": GOOD}))[0] == 200


async def session_of(browser: Browser, name: str, password: str = GOOD) -> str:
    status, told = await browser.call("POST", "/sign-in/token", {"name": name, "password": password})
    assert status == 200
    token: str = told["access_token"]
    return token


async def test_the_name_of_a_session_alone_ends_nothing(admin: Running, browser: Browser) -> None:
    root = await admin.operator()
    await person(root, browser, "alice")
    token = await session_of(browser, "alice")
    kind, session_id, _ = token.split("-", 2)
    for guess in (f"{kind}-{session_id}-x", f"{kind}-{session_id}-", "nonsense"):
        status, told = await browser.call("POST", "/sign-out", None, authorization=f"Bearer {guess}")
        assert (status, told) == (200, {"signed_out": True}), "nobody learns which there are"
    alice = await admin.operator(token)
    assert await code_of(alice.WhoAmI()) is grpc.StatusCode.OK
    await browser.call("POST", "/sign-out", None, authorization=f"Bearer {token}")
    assert await code_of(alice.WhoAmI()) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_new_password_shuts_out_who_prepared_another_way_in(admin: Running, browser: Browser) -> None:
    root = await admin.operator()
    await person(root, browser, "alice")
    # A thief with the password confirms a device that does not ask yet; a reset lies about.
    _, asked = await browser.call("POST", "/sign-in/device", {})
    await browser.submit("/sign-in", name="alice", password=GOOD)
    csrf = await browser.csrf()
    assert (await browser.submit("/device", code=asked["user_code"], decision="confirm", csrf=csrf))[0] == 200
    reset = (await root.ResetPassword(user="alice")).token
    alice = await admin.operator(await session_of(browser, "alice"))
    await alice.ChangePassword(old_password=GOOD, new_password=BETTER)
    assert await browser.call("POST", "/sign-in/device/token", {"device_code": asked["device_code"]}) == (
        400,
        {"error": "expired_token"},
    )
    assert (await browser.call("POST", "/sign-in/password", {"token": reset, "password": GOOD}))[0] == 401
    # Nor does a reset for a member set an admin's password.
    reset = (await root.ResetPassword(user="alice")).token
    await root.SetUserRights(name="alice", role="admin")
    assert (await browser.call("POST", "/sign-in/password", {"token": reset, "password": GOOD}))[0] == 401
    assert await session_of(browser, "alice", BETTER)


async def test_nothing_that_signs_calls_is_worth_more_than_what_made_it(admin: Running) -> None:
    root = await admin.operator()
    await root.SetCustomRole(name="helpdesk", permissions=["access:write", "users:read"])
    for name in ("carl", "mia"):
        await root.AddUser(name=name)
    await root.SetUserRights(name="carl", custom_roles={"names": ["helpdesk"]})
    # A token for a member, made by who hopes that the member becomes an admin.
    carl = await admin.operator((await root.CreateKey(user="carl")).secret)
    assert "PERMISSION_DENIED" in await refused(carl.CreateToken(user="mia", permissions=["users:write"]))
    assert (await carl.CreateToken(user="mia", permissions=["users:read", "keys:read:own"])).secret
    # A token outlives no key that made it.
    short = await root.CreateKey(user="mia", expires_in_s=600)
    made = await (await admin.operator(short.secret)).CreateToken(permissions=["keys:write:own"], expires_in_s=10**6)
    assert made.token.expires_at_us <= (time.time() + 600) * 1e6
    # A narrow token makes no key that is less narrow.
    narrow = await admin.operator(made.secret)
    for forbidden in (narrow.CreateKey(), narrow.RotateKey(key_id=short.key.id)):
        assert "the token you use may not" in await refused(forbidden)
    assert (await narrow.RevokeKey(key_id=short.key.id)).key.revoked_at_us


async def test_a_key_of_other_networks_opens_nothing_at_admin(admin: Running) -> None:
    root = await admin.operator()
    here = await root.CreateKey(terms={"addresses": ["127.0.0.0/8", "::1"]})
    there = await root.CreateKey(terms={"addresses": ["::ffff:192.0.2.0/120"]})
    assert list(there.key.terms.addresses) == ["192.0.2.0/24"]
    assert (await (await admin.operator(here.secret)).WhoAmI()).user == "admin"
    told = await refused((await admin.operator(there.secret)).RotateKey(key_id=there.key.id))
    assert told == "PERMISSION_DENIED: This key may not be used from 127.0.0.1."
    async with open_browser(admin.http_address) as browser:
        for key, status in ((here, 200), (there, 403)):
            found = await browser.call("GET", "/api/v1/me", authorization=f"Bearer {key.secret}")
            assert found[0] == status, found


@pytest.mark.parametrize(
    ("address", "networks", "is_in"),
    [
        ("192.0.2.7", (), True),
        ("", (), True),
        ("", ("0.0.0.0/0", "::/0"), False),
        ("::ffff:192.0.2.7", ("192.0.2.0/24",), True),
        ("2001:db8::1", ("0.0.0.0/0",), False),
        ("fe80::1%eth0", ("fe80::/10",), True),
    ],
)
def test_a_key_is_used_from_its_networks(address: str, networks: tuple[str, ...], is_in: bool) -> None:
    assert is_from(address, networks) is is_in


async def test_nobody_approves_what_they_asked_for(admin: Running) -> None:
    root = await admin.operator()
    asked = await root.RequestQuota(wish={"limits": {"concurrency": 99}}, reason="mine")
    assert "asked for themselves" in await refused(root.DecideQuotaRequest(id=asked.request.id, approve=True))
    assert (await root.DecideQuotaRequest(id=asked.request.id, answer="no more")).request.answer == "no more"


async def test_letters_that_no_database_keeps_are_refused_before_it(admin: Running, browser: Browser) -> None:
    assert (await browser.call("POST", "/sign-in/token", {"name": "a\0b", "password": GOOD}))[0] == 400
    assert (await browser.submit("/sign-in", name="a\0b", password=GOOD))[0] == 400


@pytest.mark.parametrize(
    ("claims", "name", "email"),
    [
        ({"email": "mi\u212ae@example.org"}, "mi-e@example.org", "mi\u212ae@example.org"),
        ({"email": "\u017fam@example.org"}, "am@example.org", "\u017fam@example.org"),
        ({"email": None, "preferred_username": "mi\u212ae"}, "mi-e", ""),
    ],
)
def test_letters_that_only_become_anothers_in_lower_case_are_nobodys(
    claims: dict[str, Any], name: str, email: str
) -> None:
    found = arrival({**CLAIMS, **claims}, provider())
    assert (found.name, found.email) == (name, email)


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("of alice", "of alice"),
        ("", ""),
    ],
)
def test_a_network_that_somebody_has_whole_counts_as_one_address(address: str, counted: str) -> None:
    assert neighbourhood(address) == counted
