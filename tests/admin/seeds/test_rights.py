"""Who may use the routes of other gateways: the same who may make the operators' calls behind them, for everybody's things.
And what has no counterpart, does not fit or is too much is refused in the shape that those gateways have."""

from __future__ import annotations

import re
from typing import Any

import aiohttp

from forebay.forwarded import HEADER, Forwards
from forebay_admin.people.people import Role
from forebay_admin.people.roles import Reach, reach
from forebay_admin.seeds.http import ROUTES
from forebay_admin.seeds.refusals import Dialect
from tests.admin.replica import Running, Start
from tests.admin.seeds.conftest import Script
from tests.admin.test_operator import ROLES
from tests.admin.test_operator import query as sql


def concrete(path: str) -> str:
    return re.sub(r"{\w+}", "7", path)


async def test_each_role_may_use_what_it_may_call_and_nothing_unlisted(admin: Running, script: Script) -> None:
    operator = await admin.operator()
    for role in Role:
        await operator.AddUser(name=f"the-{role}", role=ROLES[role])
        key = (await operator.CreateKey(user=f"the-{role}")).secret
        for route in ROUTES:
            status, told = await script(route.verb, concrete(route.path), {} if route.verb != "GET" else None, key=key)
            may = all(reach(role, call) is Reach.ALL for call in route.calls)
            assert (status != 403) is may, (role, route.verb, route.path, told)
    for route in ROUTES:
        status, told = await script(route.verb, concrete(route.path), key="")
        assert status == 401, (route.verb, route.path)
        shape = {"detail"} if route.dialect is Dialect.MINDROUTER else {"Error", "Message", "StatusCode", "Context"}
        assert shape <= set(told), (route.verb, route.path)
    assert (await script("GET", "/api/admin/users", key="fb-000000000000-x"))[0] == 401


def test_reading_is_for_auditors_too_and_writing_is_not() -> None:
    for route in ROUTES:
        may = all(reach(Role.AUDITOR, call) is Reach.ALL for call in route.calls)
        is_look = route.verb == "GET" or route.path.endswith("/refresh")
        assert may is is_look, route.path
        assert all(reach(Role.ADMIN, call) is Reach.ALL for call in route.calls), route.path
        assert not all(reach(Role.MEMBER, call) is Reach.ALL for call in route.calls), route.path


REFUSED: tuple[tuple[str, str, Any, int, str], ...] = (
    ("GET", "/api/admin/conversations/export", None, 501, "no chat of its own"),
    ("DELETE", "/api/admin/users/{me}", None, 501, "is_active"),
    ("DELETE", "/api/admin/api-keys/1", None, 501, "revoke"),
    ("PATCH", "/api/admin/users/{me}", {"full_name": "A."}, 501, "full_name"),
    ("PATCH", "/api/admin/users/{me}", {"group_id": "other", "email": "a@b"}, 501, "email"),
    ("PATCH", "/api/admin/users/{me}", {"group_id": "other", "role": "admin"}, 501, "rights"),
    ("PATCH", "/api/admin/users/{me}", {"is_active": False}, 400, "your own account"),
    ("PATCH", "/api/admin/users/{me}", {"group_id": "other", "is_active": False}, 400, "your own account"),
    ("PATCH", "/api/admin/users/{me}", {}, 400, "No fields to update"),
    ("POST", "/api/admin/groups", {"name": "x", "display_name": "X", "token_budget": 0}, 422, "token_budget"),
    ("POST", "/api/admin/groups", {"name": "x", "display_name": "X", "token_budget": 2**52}, 422, "token_budget"),
    ("POST", "/api/admin/groups", {"name": "x", "display_name": "X", "rpm_limit": 0}, 422, "rpm_limit"),
    ("PATCH", "/api/admin/groups/everyone", {"description": "x"}, 501, "description"),
    ("POST", "/api/admin/groups", {"name": "x", "display_name": "X", "is_admin": True}, 501, "Roles"),
    ("POST", "/api/admin/groups", {"name": "everyone", "display_name": "X"}, 409, "already exists"),
    ("POST", "/api/admin/groups", {"name": 7}, 422, "display_name"),
    (
        "POST",
        "/api/admin/users",
        {"username": "x", "email": "x@y", "password": "a horse in a tree", "group_id": 1},
        400,
        "1",
    ),
    ("POST", "/api/admin/users", {"username": "x", "password": 7}, 422, "group_id"),
    ("POST", "/api/admin/users/{me}/api-keys", {"name": "x", "expires_at": "2001-01-01"}, 400, "over already"),
    ("POST", "/api/admin/users/7/api-keys", {"name": "x"}, 404, "User not found"),
    ("POST", "/api/admin/api-keys/7/revoke", None, 404, "Key not found"),
    ("POST", "/api/admin/quota-requests/7/review", {"approved": True}, 404, "Request not found"),
    ("POST", "/api/admin/quota-requests/7/review", {"approved": "yes"}, 422, "approved"),
    ("POST", "/api/admin/backends/register", {"name": "x", "url": "http://x", "engine": "warp"}, 422, "engine"),
    ("POST", "/api/admin/backends/register", {"name": "x", "url": "ftp://x", "engine": "vllm"}, 400, "URL"),
    ("POST", "/api/admin/backends/register", {"name": "x", "url": "http://x", "engine": "dlp"}, 501, "Scanners"),
    (
        "POST",
        "/api/admin/backends/register",
        {"name": "x", "url": "http://x", "engine": "vllm", "node_id": 3},
        404,
        "Node",
    ),
    (
        "POST",
        "/api/admin/backends/register",
        {"name": "x", "url": "http://x", "engine": "vllm", "max_concurrent": 0},
        422,
        "1",
    ),
    (
        "POST",
        "/api/admin/backends/register",
        {"name": "x", "url": "http://x", "engine": "vllm", "gpu_type": "a\nb"},
        422,
        "gpu_type",
    ),
    ("PATCH", "/api/admin/backends/7", {"max_concurrent": 1}, 404, "Backend not found"),
    ("POST", "/api/admin/nodes/register", {}, 422, "name"),
    ("POST", "/api/admin/nodes/register", {"name": "gpu_1"}, 400, "gpu_1"),
    ("DELETE", "/api/admin/nodes/7", None, 404, "Node not found"),
    ("GET", "/api/admin/users?limit=0", None, 422, "limit"),
    ("GET", "/api/admin/audit/search?status=eaten&start_date=soon", None, 422, "start_date"),
    ("GET", "/api/admin/top-users?window=1y", None, 400, "Invalid window"),
    ("GET", "/api/admin/telemetry/gpus/7/history", None, 404, "GPU not found"),
    ("GET", "/api/admin/telemetry/energy/cluster/history?range=1y", None, 422, "range"),
    ("GET", "/api/admin/telemetry/energy/cluster/history?range=30d&resolution=1m", None, 400, "coarser"),
    ("GET", "/api/admin/telemetry/energy/cluster/history?end=0001-01-01", None, 400, "before end"),
    ("GET", "/api/admin/nothing", None, 404, "no such address"),
    ("PUT", "/api/admin/users", None, 405, "GET, POST"),
    ("GET", "/v1.0/frontends/nothing", None, 404, "nothing"),
    ("GET", "/v1.0/nothing", None, 404, "no such address"),
    ("PUT", "/v1.0/backends", {"Hostname": "h"}, 400, "Identifier"),
    ("PUT", "/v1.0/backends", {"Identifier": "x", "Headers": {"a": "b"}}, 501, "Headers"),
    ("PUT", "/v1.0/backends", {"Identifier": "x", "Port": 70_000}, 400, "Port"),
    ("PUT", "/v1.0/backends", {"Identifier": "x", "Labels": ["a b"]}, 400, "Labels"),
    *(
        ("PUT", "/v1.0/backends", {"Identifier": "x", "Hostname": host}, 400, "Hostname")
        for host in ("a/b", "a?b", "u@h", "a\r\nb", "a b")
    ),
    ("PUT", "/v1.0/backends", {"Identifier": "x", "Labels": ["a\0b"]}, 400, "Labels"),
    ("PUT", "/v1.0/frontends", {"Identifier": "f", "Active": False}, 501, "always active"),
    ("PUT", "/v1.0/frontends", {"Identifier": "f", "Backends": ["nothing"]}, 400, "nothing"),
    ("PUT", "/v1.0/frontends", {"Identifier": "f", "PinnedCompletionsProperties": {"model": "x"}}, 501, "model-rules"),
    ("DELETE", "/v1.0/frontends/nothing", None, 404, "nothing"),
    ("DELETE", "/v1.0/backends/nothing", None, 404, "nothing"),
)


async def test_what_cannot_be_done_is_said_in_their_shape_and_changes_nothing(admin: Running, script: Script) -> None:
    me = (await script.done("GET", "/api/admin/users"))["users"][0]["id"]
    await (await admin.operator()).AddGroup(name="other")
    before = await sql(admin, "SELECT count(*) AS n FROM admin.audit_log")
    for verb, path, body, wanted, words in REFUSED:
        status, told = await script(verb, path.format(me=me), body)
        assert status == wanted, (verb, path, body, told)
        assert words in str(told), (verb, path, told)
        assert "Message" in told if path.startswith("/v1.0") else "detail" in told
    after = await sql(admin, "SELECT count(*) AS n FROM admin.audit_log")
    assert before[0]["n"] == after[0]["n"]


async def test_a_body_is_json_and_not_too_large(script: Script) -> None:
    held = {"authorization": f"Bearer {script.key}"}
    for data, headers, status in (
        (b"{" * 70_000, {"content-type": "application/json"}, 413),
        (b"{]", {"content-type": "application/json"}, 400),
        (b"[]", {"content-type": "application/json"}, 400),
        (b"name=x", {"content-type": "application/x-www-form-urlencoded"}, 415),
    ):
        url = f"{script.address}/api/admin/groups"
        async with script.session.post(url, data=data, headers={**held, **headers}) as answer:
            assert (answer.status, list(await answer.json())) == (status, ["detail"])


async def test_what_gateways_pass_on_is_audited_with_the_clients_address(admin: Running, script: Script) -> None:
    forwards = Forwards((admin.site.directory / "pepper").read_bytes())
    path, now = "/api/admin/groups", admin.ground.clock.now()
    for name, header in (
        ("one", forwards.tell("192.0.2.7", "POST", path, now)),
        ("two", forwards.tell("192.0.2.7", "POST", path, now).replace("192.0.2.7", "198.51.100.9")),
    ):
        headers = {HEADER: header, "x-forwarded-for": "203.0.113.1"}
        answer = await script.ask("POST", path, {"name": name, "display_name": name}, headers=headers)
        assert answer.status == 200
    rows = await sql(
        admin, "SELECT subject, interface, address FROM admin.audit_log WHERE action = 'group.add' ORDER BY id"
    )
    told = [tuple(row) for row in rows]
    assert told == [("one", "seed", "192.0.2.7"), ("two", "seed", "127.0.0.1")]


async def test_the_public_pages_can_be_closed(start: Start) -> None:
    async with start(public_status=False) as admin, aiohttp.ClientSession() as session:
        script = Script(f"http://{admin.http_address}", admin.site.first_key, session)
        for path in ("/status", "/api/cluster/total-tokens"):
            assert (await script("GET", path, key=""))[0] == 401
            assert (await script("GET", path))[0] == 200


async def test_a_narrow_token_does_no_more_here_than_the_calls_it_was_given(admin: Running, script: Script) -> None:
    operator = await admin.operator()
    token = (await operator.CreateToken(name="ci", permissions=["users:read", "users:write"])).secret
    for verb, path, body, wanted in (
        ("GET", "/api/admin/users", None, 200),
        ("POST", "/api/admin/users/admin/api-keys", {"name": "x"}, 403),
        ("POST", "/api/admin/users/admin/reset-password", {"new_password": "a horse in a tree"}, 403),
        ("GET", "/api/admin/users/admin", None, 403),  # which tells keys and usage too
        ("GET", "/api/admin/audit/search", None, 403),
        ("PUT", "/v1.0/backends", {"Identifier": "x"}, 403),
    ):
        status, told = await script(verb, path, body, key=token)
        assert status == wanted, (verb, path, told)
    await operator.SetCustomRole(name="maker", permissions=["keys:write", "users:read", "users:write", "access:write"])
    await operator.AddUser(name="mo")
    await operator.SetUserRights(name="mo", custom_roles={"names": ["maker"]})
    key = (await operator.CreateKey(user="mo")).secret
    for path, body in (
        ("/api/admin/users/admin/api-keys", {"name": "x"}),
        ("/api/admin/users/admin/reset-password", {"new_password": "a horse in a tree"}),
        (
            "/api/admin/users",
            {"username": "me", "email": "a@b", "password": "a horse in a tree", "group_id": "everyone"},
        ),
    ):
        admins = {"role": "admin"} if path == "/api/admin/users" else {}
        status, told = await script("POST", path, {**body, **admins}, key=key)
        assert (status, "what you may not" in told["detail"]) == (403, True), (path, told)
    assert [user.name for user in (await operator.ListUsers()).users] == ["admin", "mo"]
