"""The REST API of a real admin: who may do what, what is audited, how it refuses, and what comes twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from forebay.wire.v1 import admin_pb2
from forebay_admin.rest.repeats import HEADER, REPLAYED
from tests.admin.replica import Running, until
from tests.admin.rest.conftest import Rest
from tests.admin.test_operator import query


async def test_a_thing_is_made_listed_changed_and_removed(rest: Rest) -> None:
    status, told = await rest("POST", "/groups", {"name": "lab", "weight_milli": 2000})
    assert (status, told["group"]["name"], told["group"]["paused"]) == (201, "lab", False)
    _, told = await rest("PATCH", "/groups/lab", {"paused": True})
    assert told["group"]["paused"] is True
    _, told = await rest("GET", "/groups?page_size=1")
    assert [group["name"] for group in told["groups"]] == ["everyone"]
    _, told = await rest("GET", f"/groups?page_size=1&page_token={told['next_page_token']}")
    assert ([group["name"] for group in told["groups"]], told["next_page_token"]) == (["lab"], None)
    assert (await rest("DELETE", "/groups/lab"))[0] == 200
    status, told = await rest("DELETE", "/groups/lab")
    assert (status, told["error"]["code"]) == (404, "not_found")


async def test_long_lists_are_told_page_by_page_and_go_on_where_they_ended(rest: Rest) -> None:
    for name in ("Bob", "alice", "carol"):
        await rest("POST", "/users", {"name": name})
    made = [(await rest("POST", "/keys", {"user": "carol", "name": f"k{n}"}))[1]["key"]["id"] for n in range(3)]

    async def pages(path: str, things: str, field: str) -> list[list[str]]:
        found, token = [], ""
        while token is not None:
            status, told = await rest("GET", f"{path}page_size=2{token and '&page_token='}{token}")
            assert (status, told["has_more"]) == (200, told["next_page_token"] is not None), told
            found.append([thing[field] for thing in told[things]])
            token = told["next_page_token"]
        return found

    assert await pages("/users?", "users", "name") == [["admin", "alice"], ["Bob", "carol"]]
    assert await pages("/keys?user=carol&", "keys", "id") == [made[:2], made[2:]]
    await rest("DELETE", f"/keys/{made[1]}")
    _, told = await rest("GET", f"/keys?user=carol&page_size=2&page_token={made[1]}")
    assert [key["id"] for key in told["keys"]] == made[2:]
    for path in ("/users?page_token=u-nobody", "/keys?page_token=000000000000"):
        status, told = await rest("GET", path)
        assert (status, "the list could go on" in told["error"]["message"]) == (404, True)
    assert (await rest("GET", "/users?limit=2"))[0] == 400


async def test_an_act_is_audited_as_one_of_this_interface(admin: Running, rest: Rest) -> None:
    await rest("POST", "/users", {"name": "alice"})
    await (await admin.operator()).AddUser(name="bob")
    await rest("POST", "/backends", {"name": "big", "url": "http://127.0.0.1:1"})
    rows = await query(admin, "SELECT interface, actor, action, subject FROM admin.audit_log WHERE id > 1 ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("rest", "admin", "user.add", "alice"),
        ("grpc", "admin", "user.add", "bob"),
        ("rest", "admin", "backend.add", "big"),
    ]
    assert admin.site.registry.actors[-1] == "admin"


async def test_a_role_may_here_what_it_may_elsewhere(rest: Rest) -> None:
    await rest("POST", "/users", {"name": "alice", "role": "member"})
    member = (await rest("POST", "/keys", {"user": "alice"}))[1]["secret"]
    assert (await rest("GET", "/keys", key=member))[0] == 200
    status, told = await rest("GET", "/users", key=member)
    assert (status, told["error"]["code"], told["error"]["reason"]) == (403, "not_allowed", "not_allowed")
    by_header = {"authorization": "", "x-api-key": member}
    assert (await rest.ask("GET", "/quota", headers=by_header)).status == 200


async def test_nobody_comes_in_without_a_key_and_what_is_not_there_says_so(rest: Rest) -> None:
    for key in ("", "token-of-up", "token-of-gateway", "fb-000000000000-x"):
        answer = await rest.ask("POST", "/users", {"name": "eve"}, key=key)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="forebay"'
        assert (await answer.json())["error"]["code"] == "not_authenticated"
    status, told = await rest("GET", "/nothing")
    assert (status, told["error"]["code"]) == (404, "not_found")
    answer = await rest.ask("PUT", "/keys")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
    preflight = {"origin": "https://evil.example", "access-control-request-method": "GET"}
    answer = await rest.ask("OPTIONS", "/keys", headers=preflight)
    assert answer.status == 405
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    status, told = await rest("PUT", "/model-aliases/org%2Ffast%3Aq4", {"model": "tiny"})
    assert (status, told["alias"]["alias"]) == (200, "org/fast:q4")
    assert (await rest("DELETE", "/model-aliases/org%2Ffast%3Aq4"))[0] == 200


async def test_a_fleet_that_is_wrong_is_refused_with_its_problems(admin: Running, rest: Rest) -> None:
    fleet = {"wanted": {"pools": [{"name": "lab", "placement": "by_moonlight"}]}}
    status, told = await rest("POST", "/fleet/apply", fleet)
    assert (status, told["error"]["code"]) == (422, "refused")
    assert [problem["path"] for problem in told["error"]["problems"]] == ["pools.lab.placement"]
    _, told = await rest("POST", "/fleet/diff", {"wanted": {"pools": [{"name": "lab"}]}})
    assert [(change["name"], change["what"]) for change in told["changes"]] == [("lab", "created")]


class TestBodies:
    async def test_one_that_is_large_is_not_read(self, admin: Running, rest: Rest) -> None:
        host, port = admin.http_address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = (
            "POST /api/v1/users HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {rest.key}\r\ncontent-length: {10 * 1024 * 1024}\r\n\r\n"
        )
        writer.write(head.encode())  # and nothing after it
        assert b" 413 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()

        async def endless() -> AsyncIterator[bytes]:
            yield b'{"name": "'
            for _ in range(10):
                yield b"x" * 16 * 1024

        held = {"authorization": f"Bearer {rest.key}", "content-type": "application/json"}
        async with rest.session.post(f"{rest.address}/users", data=endless(), headers=held) as answer:
            assert answer.status == 413
            assert (await answer.json())["error"]["reason"] == "body_too_large"
        fleet = {"wanted": {"nodes": [{"name": "n", "note": "x" * 100_000}]}}
        assert (await rest("POST", "/fleet/diff", fleet))[0] != 413

    async def test_one_is_json_and_says_so(self, rest: Rest) -> None:
        for headers, status in (
            ({"content-type": "application/x-www-form-urlencoded"}, 415),
            ({"content-type": "text/plain"}, 415),
            ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
            ({"content-type": "application/json; charset=utf-8"}, 400),
        ):
            held = {"authorization": f"Bearer {rest.key}", **headers}
            async with rest.session.post(f"{rest.address}/users", data=b"{]", headers=held) as answer:
                assert answer.status == status


class TestRepeats:
    async def test_a_request_under_one_key_is_done_once(self, admin: Running, rest: Rest) -> None:
        key = {HEADER: "once"}
        first = await rest.ask("POST", "/keys", {"name": "ci"}, headers=key)
        again = await rest.ask("POST", "/keys", {"name": "ci"}, headers=key)
        assert (first.status, again.status) == (201, 201)
        assert await again.json() == await first.json()
        assert (REPLAYED in first.headers, again.headers[REPLAYED]) == (False, "true")
        assert len(await query(admin, "SELECT 1 FROM admin.keys WHERE name = 'ci'")) == 1
        (row,) = await query(admin, "SELECT sealed FROM admin.rest_answers")
        assert (await first.json())["secret"].encode() not in row["sealed"]

    async def test_of_many_at_once_one_is_done(self, admin: Running, rest: Rest) -> None:
        made = await asyncio.gather(
            *(rest.ask("POST", "/users", {"name": "alice"}, headers={HEADER: "once"}) for _ in range(5))
        )
        assert {answer.status for answer in made} <= {201, 409}
        assert len(await query(admin, "SELECT 1 FROM admin.audit_log WHERE action = 'user.add'")) == 1

    async def test_another_request_under_that_key_is_refused_and_a_refusal_is_not_kept(self, rest: Rest) -> None:
        add = {"name": "alice", "group": "two words"}
        assert (await rest("POST", "/users", add, headers={HEADER: "once"}))[0] == 400
        await rest("POST", "/users", {"name": "alice"}, headers={HEADER: "once"})
        for path, body in (("/users", {"name": "bob"}), ("/groups", {"name": "alice"})):
            status, told = await rest("POST", path, body, headers={HEADER: "once"})
            assert (status, told["error"]["code"]) == (422, "idempotency_key_reused")

    async def test_the_key_is_the_callers_own(self, rest: Rest) -> None:
        mine = (await rest("POST", "/keys", {"name": "x"}, headers={HEADER: "once"}))[1]
        _, theirs = await rest("POST", "/keys", {"name": "x"}, key=mine["secret"], headers={HEADER: "once"})
        assert theirs["key"]["id"] != mine["key"]["id"]

    async def test_one_whose_end_nobody_knows_is_not_done_again(self, admin: Running, rest: Rest) -> None:
        await rest("POST", "/users", {"name": "alice"}, headers={HEADER: "once"})
        await query(admin, "UPDATE admin.rest_answers SET status = NULL, sealed = NULL")
        status, told = await rest("POST", "/users", {"name": "alice"}, headers={HEADER: "once"})
        assert (status, told["error"]["code"]) == (409, "still_under_way")
        await query(admin, "UPDATE admin.rest_answers SET begun_at = begun_at - interval '1 hour'")
        status, told = await rest("POST", "/users", {"name": "alice"}, headers={HEADER: "once"})
        assert (status, "not known" in told["error"]["message"]) == (409, True)
        await query(admin, "UPDATE admin.rest_answers SET begun_at = begun_at - interval '1 day'")
        assert (await rest("POST", "/users", {"name": "alice"}, headers={HEADER: "once"}))[1]["error"]["code"] == (
            "already_exists"
        )


class TestStreams:
    @pytest.fixture
    async def job(self, rest: Rest) -> str:
        await rest("POST", "/backends", {"name": "big", "url": "http://127.0.0.1:1"})
        order = {"action": "pull", "model": "tiny", "on": {"backends": ["big"]}}
        status, told = await rest("POST", "/model-jobs", order)
        assert (status, told["job"]["actor"]) == (202, "admin")
        return str(told["job"]["id"])

    async def test_lines_of_json_or_events_come_until_it_ends(self, rest: Rest, job: str) -> None:
        answer = await rest.ask("GET", f"/model-jobs/{job}/progress")
        assert answer.content_type == "application/x-ndjson"
        states = [json.loads(line)["state"] for line in (await answer.text()).splitlines()]
        assert states == ["running", "done"]
        assert (await rest("GET", f"/model-jobs/{job}"))[1]["state"] == "done"
        answer = await rest.ask("GET", f"/model-jobs/{job}/progress", headers={"accept": "text/event-stream"})
        assert answer.content_type == "text/event-stream"
        events = (await answer.text()).strip().split("\n\n")
        assert [json.loads(event.removeprefix("data: "))["state"] for event in events] == ["done", "done"]

    async def test_what_goes_wrong_on_the_way_is_told_last(self, admin: Running, rest: Rest, job: str) -> None:
        for accept in ("*/*", "text/event-stream"):
            admin.site.library.restarts = 1
            answer = await rest.ask("GET", f"/model-jobs/{job}/progress", headers={"accept": accept})
            last = (await answer.text()).strip().splitlines()[-1]
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "unavailable"
        status, told = await rest("GET", "/model-jobs/nothing/progress")
        assert (status, told["error"]["code"]) == (404, "not_found")

    async def test_the_call_ends_when_its_client_goes(self, admin: Running, rest: Rest, job: str) -> None:
        admin.site.library.never_ends = True
        answer = await rest.ask("GET", f"/model-jobs/{job}/progress")
        assert json.loads(await answer.content.readline())["state"] == "running"
        await until(lambda: admin.site.library.following == 1)
        answer.close()
        await until(lambda: admin.site.library.following == 0)
        status, told = await rest("POST", "/nodes/gpu-1/commands", {"probe": {}}, headers={HEADER: "once"})
        assert (status, told["error"]["code"]) == (400, "bad_input")
        assert admin.site.registry.nodes.commands == []


async def test_the_document_and_its_page_are_there_for_everybody(admin: Running, rest: Rest) -> None:
    await rest("GET", "/users")
    await rest("GET", "/nothing")
    told = admin.ops.metrics.exposition().decode()
    assert 'forebay_admin_rest_requests_total{call="ListUsers",status="200"} 1.0' in told
    assert 'forebay_admin_rest_requests_total{call="",status="404"} 1.0' in told
    async with rest.session.get(f"{rest.address}/openapi.json") as answer:
        document = await answer.json()
    assert len([call for verbs in document["paths"].values() for call in verbs]) >= len(
        admin_pb2.DESCRIPTOR.services_by_name["Operator"].methods
    )
    async with rest.session.get(f"http://{admin.http_address}/docs") as answer:
        page = await answer.text()
        policy = answer.headers["content-security-policy"]
    assert "/backends/{backend}/credentials" in page
    assert 'href="/docs/postman.json"' in page
    async with rest.session.get(f"http://{admin.http_address}/docs/postman.json") as answer:
        assert (await answer.json())["info"]["name"] == "Forebay"
    assert "<script" not in page
    assert "src=" not in page
    assert "default-src 'none'" in policy
