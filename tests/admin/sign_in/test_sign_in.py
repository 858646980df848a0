"""Passwords, sessions and codes for devices on a real admin, as browsers and programs come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import grpc
import pytest

from forebay.wire.v1 import identity_pb2
from forebay_admin.people.permissions import GROUPS
from forebay_admin.sign_in.bearers import SESSION_COOKIE
from tests.admin.replica import OperatorCalls, Running
from tests.admin.sign_in.browser import Browser, hidden, open_browser
from tests.admin.test_operator import code_of, query, refused

GOOD, BETTER = "correct horse battery", "staple and paper clip"


@pytest.fixture
async def browser(admin: Running) -> AsyncIterator[Browser]:
    async with open_browser(admin.http_address) as opened:
        yield opened


async def person(root: OperatorCalls, browser: Browser, name: str, password: str = GOOD) -> None:
    await root.AddUser(name=name)
    token = (await root.ResetPassword(user=name)).token
    status, told = await browser.call("POST", "/sign-in/password", {"token": token, "password": password})
    assert (status, told) == (200, {"user": name})


async def test_a_person_sets_a_password_once_signs_in_works_and_signs_out(admin: Running, browser: Browser) -> None:
    root = await admin.operator()
    await root.AddUser(name="alice")
    reset = await root.ResetPassword(user="alice")
    assert reset.url == f"{browser.url}/sign-in/password?token={reset.token}"
    _, page, _ = await browser.get(reset.url)
    assert hidden(page, "token") == reset.token
    status, page, _ = await browser.submit("/sign-in/password", token=reset.token, password="short")
    assert status == 400
    assert "at least 12" in page
    assert (await browser.submit("/sign-in/password", token=reset.token, password=GOOD))[0] == 200
    for token in (reset.token, reset.token[:-1] + "x", "nonsense", ""):
        status, told = await browser.call("POST", "/sign-in/password", {"token": token, "password": BETTER})
        assert status == 401, told
    assert (await browser.submit("/sign-in", name="alice", password="wrong wrong wrong"))[0] == 401
    assert (await browser.submit("/sign-in", name="nobody", password=GOOD))[0] == 401
    status, _, onward = await browser.submit("/sign-in", name="ALICE", password=GOOD, next="//evil.example")
    assert (status, onward) == (303, "/")
    cookie = browser.cookie(SESSION_COOKIE)
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    # The REST API by the cookie: looking is free, changing needs the page's token.
    assert (await browser.call("GET", "/api/v1/me"))[1]["user"] == "alice"
    status, told = await browser.call("POST", "/api/v1/tokens", {"permissions": ["keys:read:own"]})
    assert (status, told["error"]["code"]) == (403, "not_allowed")
    csrf = await browser.csrf()
    status, told = await browser.call(
        "POST", "/api/v1/tokens", {"permissions": ["keys:read:own"]}, **{"x-forebay-csrf": csrf}
    )
    assert (status, told["token"]["user_name"]) == (201, "alice")
    # Another site's page does nothing, neither here nor there.
    assert (await browser.submit("/sign-out", origin="https://evil.example", csrf=csrf))[0] == 403
    assert (await browser.submit("/sign-out", csrf="guess"))[0] == 403
    assert (await browser.submit("/sign-in", origin="null", name="alice", password=GOOD))[0] == 403
    assert (await browser.submit("/sign-out", csrf=csrf))[0] == 303
    assert (await browser.call("GET", "/sign-in/me"))[0] == 401
    rows = await query(
        admin, "SELECT action, interface, actor, after FROM admin.audit_log WHERE interface = 'sign_in' ORDER BY id"
    )
    assert [(row["action"], row["actor"]) for row in rows] == [
        ("password.set", "alice"),
        ("session.refuse", "alice"),
        ("session.refuse", "(nobody we know)"),
        ("session.begin", "alice"),
        ("session.end", "alice"),
    ]
    told = json.dumps([dict(row) for row in rows])
    assert not any(secret in told for secret in (GOOD, "wrong wrong wrong", reset.token, cookie.value))


async def test_pages_are_bare_and_closed(browser: Browser) -> None:
    async with browser.session.get(f"{browser.url}/sign-in?next=%22%3E%3Cscript%3E") as answer:
        page, policy = await answer.text(), answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert "<script" not in page
    for path in ("/device?code=<script>", "/device", "/sign-in/with/nobody", "/sign-in/callback/nobody?code=x&state=y"):
        _, page, _ = await browser.get(path)
        assert "<script" not in page
    assert (await browser.call("POST", "/sign-in/token", {"name": "a", "password": "x" * 20_000}))[0] == 400
    assert (await browser.call("POST", "/sign-in/token", {"name": ["a"], "password": "x"}))[0] == 400
    assert (await browser.call("POST", "/sign-in/token", {"name": "a"}))[0] == 400


async def test_sessions_are_listed_ended_and_go_with_the_password_and_the_user(
    admin: Running, browser: Browser
) -> None:
    root = await admin.operator()
    await person(root, browser, "alice")
    tokens = []
    for _ in range(3):
        status, told = await browser.call("POST", "/sign-in/token", {"name": "alice", "password": GOOD})
        assert (status, told["user"], told["admin_grpc"]) == (200, "alice", f":{admin.grpc_address.rpartition(':')[2]}")
        tokens.append(told["access_token"])
    first, second, third = [await admin.operator(token) for token in tokens]
    sessions = (await first.ListSessions()).sessions
    assert len(sessions) == 3
    this = next(session for session in sessions if session.is_this)
    assert (this.kind, this.way, this.address) == (identity_pb2.SESSION_KIND_PROGRAM, "password", "127.0.0.1")
    assert this.user_agent == "browser/1"
    other = next(s.id for s in (await second.ListSessions()).sessions if s.is_this)
    assert (await first.EndSession(id=other)).session.id == other
    assert await code_of(second.WhoAmI()) is grpc.StatusCode.UNAUTHENTICATED
    # A new password ends all others; a wrong old one, nothing.
    assert "The old password is wrong" in await refused(first.ChangePassword(old_password="wrong", new_password=BETTER))
    assert "first that are tried" in await refused(first.ChangePassword(old_password=GOOD, new_password="password1234"))
    assert (await first.ChangePassword(old_password=GOOD, new_password=BETTER)).ended_sessions == 1
    assert await code_of(third.WhoAmI()) is grpc.StatusCode.UNAUTHENTICATED
    assert (await browser.call("POST", "/sign-in/token", {"name": "alice", "password": GOOD}))[0] == 401
    assert (await root.EndSessions(user="alice")).ended == 1
    assert await code_of(first.WhoAmI()) is grpc.StatusCode.UNAUTHENTICATED
    _, told = await browser.call("POST", "/sign-in/token", {"name": "alice", "password": BETTER})
    fourth = await admin.operator(told["access_token"])
    assert (await fourth.WhoAmI()).credential == identity_pb2.CREDENTIAL_KIND_SESSION
    await root.SetUserRights(name="alice", disabled=True)
    assert await code_of(fourth.WhoAmI()) is grpc.StatusCode.UNAUTHENTICATED
    assert (await browser.call("POST", "/sign-in/token", {"name": "alice", "password": BETTER}))[0] == 401
    await root.SetUserRights(name="alice", disabled=False)
    assert await code_of(fourth.WhoAmI()) is grpc.StatusCode.UNAUTHENTICATED
    assert "came with no session" in await refused(root.EndSession())


async def test_guessing_is_slowed_for_the_account_also_when_all_come_at_once(admin: Running, browser: Browser) -> None:
    root = await admin.operator()
    await person(root, browser, "alice")
    body = {"name": "alice", "password": "wrong wrong wrong"}
    async with asyncio.TaskGroup() as tasks:
        tries = [tasks.create_task(browser.call("POST", "/sign-in/token", body)) for _ in range(12)]
    statuses = [one.result()[0] for one in tries]
    assert set(statuses) == {401, 429}
    rows = await query(admin, "SELECT failures FROM admin.sign_in_failures WHERE subject = 'user:alice'")
    assert rows[0]["failures"] == statuses.count(401)  # each that was let through counted, and no other
    await root.ResetPassword(user="alice")
    assert (await browser.call("POST", "/sign-in/token", {"name": "alice", "password": GOOD}))[0] == 200


async def test_a_device_is_signed_in_by_who_confirms_its_code_once(admin: Running, browser: Browser) -> None:
    root = await admin.operator()
    await person(root, browser, "alice")
    async with open_browser(admin.http_address) as device:
        _, asked = await device.call("POST", "/sign-in/device", {})
        assert asked["verification_uri"] == f"{browser.url}/device"
        code = {"device_code": asked["device_code"]}
        assert (await device.call("POST", "/sign-in/device/token", code))[1] == {"error": "authorization_pending"}
        # The person signs in on the way, and sees which device it is.
        status, _, onward = await browser.get(asked["verification_uri_complete"])
        assert (status, onward) == (303, f"/sign-in?next=%2Fdevice%3Fcode%3D{asked['user_code']}")
        _, page, _ = await browser.get(onward)
        status, _, onward = await browser.submit("/sign-in", name="alice", password=GOOD, next=hidden(page, "next"))
        assert (status, onward) == (303, f"/device?code={asked['user_code']}")
        _, page, _ = await browser.get(onward)
        assert asked["user_code"] in page
        assert "127.0.0.1" in page
        fields = {"code": hidden(page, "code"), "decision": "confirm"}
        assert (await browser.submit("/device", **fields, csrf="guess"))[0] == 403
        assert (await browser.submit("/device", **fields, csrf=hidden(page, "csrf")))[0] == 200
        assert (await browser.submit("/device", **fields, csrf=hidden(page, "csrf")))[0] == 404
        status, told = await device.call("POST", "/sign-in/device/token", code)
        assert (status, told["user"]) == (200, "alice")
        # Once.
        assert (await device.call("POST", "/sign-in/device/token", code))[1] == {"error": "expired_token"}
        me = await (await admin.operator(told["access_token"])).WhoAmI()
        assert (me.user, me.credential) == ("alice", identity_pb2.CREDENTIAL_KIND_SESSION)
        status, gone = await device.call("POST", "/sign-out", None, authorization=f"Bearer {told['access_token']}")
        assert (status, gone) == (200, {"signed_out": True})
        assert await code_of((await admin.operator(told["access_token"])).WhoAmI()) is grpc.StatusCode.UNAUTHENTICATED
        # Refused.
        _, asked = await device.call("POST", "/sign-in/device", {})
        csrf = await browser.csrf()
        assert (await browser.submit("/device", code=asked["user_code"], decision="refuse", csrf=csrf))[0] == 200
        code = {"device_code": asked["device_code"]}
        assert (await device.call("POST", "/sign-in/device/token", code))[1] == {"error": "access_denied"}
        assert (await device.call("POST", "/sign-in/device/token", {"device_code": "fbdev-x"}))[0] == 400


async def test_two_replicas_decide_alike(start: object, admin: Running, browser: Browser) -> None:
    root = await admin.operator()
    await person(root, browser, "alice")
    _, told = await browser.call("POST", "/sign-in/token", {"name": "alice", "password": GOOD})
    made = await root.CreateToken(permissions=["users:read"])
    async with start() as second:  # type: ignore[operator]
        there = await second.operator(told["access_token"])
        assert (await there.WhoAmI()).user == "alice"
        narrow = await second.operator(made.secret)
        assert {"ListUsers", *GROUPS["users:read"]} <= {*(await narrow.WhoAmI()).may}
        await there.EndSession()
        assert await code_of(there.WhoAmI()) is grpc.StatusCode.UNAUTHENTICATED
        here = await admin.operator(told["access_token"])
        async with asyncio.timeout(30):
            while await code_of(here.WhoAmI()) is grpc.StatusCode.OK:
                await asyncio.sleep(0.02)
