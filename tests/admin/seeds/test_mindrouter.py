"""MindRouter's documented routes, one after the other, at a real admin: each stands in the table, with what it answers."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from forebay.ledger_id import new_ledger_id
from forebay.wire.v1 import admin_pb2, registry_pb2, telemetry_pb2
from forebay_admin.seeds.numbers import number_of
from tests.admin.replica import Running
from tests.admin.seeds.conftest import Script
from tests.admin.test_operator import query as sql
from tests.admin.test_recordings import append, kept, recording
from tests.admin.test_usage_queries import enter, opened, record

NODE = {"name": "gpu-server-1", "hostname": "gpu1.example.com", "sidecar_url": "http://gpu1.example.com:8007"}
OLLAMA = {"name": "ollama-gpu1", "url": "http://192.0.2.1:11434", "engine": "ollama", "max_concurrent": 4}
VLLM = {
    "name": "vllm-gpu1-01",
    "url": "http://192.0.2.1:8000",
    "engine": "vllm",
    "max_concurrent": 16,
    "gpu_indices": [0, 1],
}
ALICE = {"username": "alice", "email": "alice@example.edu", "password": "a horse in a tree", "full_name": "Alice A."}
BACKEND = {
    *("id", "name", "url", "engine", "status", "max_concurrent", "current_concurrent", "gpu_memory_gb", "gpu_type"),
    *("node_id", "node_name", "gpu_indices", "version", "last_health_check"),
}
NODES = {
    *("id", "name", "hostname", "sidecar_url", "sidecar_key_set", "status", "gpu_count", "driver_version"),
    *("cuda_version", "sidecar_version"),
}
USER = {
    *("id", "uuid", "username", "email", "full_name", "role", "group_id", "group_name", "is_active", "created_at"),
    "last_login_at",
}
PAGE = {"total", "skip", "limit"}
HISTORY = {"metric", "resolution", "start", "end", "series"}


def missing(told: Any, names: set[str]) -> set[str]:
    return names - set(told)


async def test_a_fleet_is_registered_changed_and_taken_down(admin: Running, script: Script) -> None:
    node = await script.done("POST", "/api/admin/nodes/register", {**NODE, "sidecar_key": "their secret"})
    assert not missing(node, NODES)
    assert (node["hostname"], node["sidecar_key_set"], node["status"]) == ("gpu1.example.com", False, "unknown")
    assert "/join/" in node["join_command"]
    assert (await script("POST", "/api/admin/nodes/register", NODE))[0] == 409
    listed = await script.done("GET", "/api/admin/nodes")
    assert [(one["id"], set(one)) for one in listed] == [(node["id"], NODES)]
    changed = await script.done(
        "PATCH", f"/api/admin/nodes/{node['id']}", {"hostname": "gpu2.example.com", "sidecar_url": None}
    )
    assert (changed["hostname"], changed["sidecar_url"]) == ("gpu2.example.com", None)
    assert (await script("POST", f"/api/admin/nodes/{node['id']}/refresh"))[0] == 400  # no agent yet

    first = await script.done("POST", "/api/admin/backends/register", {**OLLAMA, "node_id": node["id"]})
    assert (set(first), first["engine"], first["status"]) == (BACKEND, "ollama", "healthy")
    assert (first["node_id"], first["node_name"]) == (node["id"], "gpu-server-1")
    second = await script.done(
        "POST", "/admin/backends/register", {**VLLM, "node_id": node["id"], "gpu_memory_gb": 160, "gpu_type": "A100"}
    )
    assert (second["gpu_indices"], second["gpu_memory_gb"], second["gpu_type"]) == ([0, 1], 160.0, "A100")
    for twice in (OLLAMA, {**OLLAMA, "name": "another"}, {**OLLAMA, "url": "http://192.0.2.9:1"}):
        assert (await script("POST", "/api/admin/backends/register", twice))[0] == 409
    again = await script.done("POST", "/api/admin/backends/register", {**OLLAMA, "name": "x", "upsert": True})
    assert (again["id"], again["name"]) == (first["id"], "ollama-gpu1")
    assert [one["name"] for one in await script.done("GET", "/api/admin/backends")] == ["ollama-gpu1", "vllm-gpu1-01"]

    one = f"/api/admin/backends/{second['id']}"
    changed = await script.done("PATCH", one, {"max_concurrent": 8, "gpu_type": None})
    assert (changed["max_concurrent"], changed["gpu_type"], changed["gpu_memory_gb"]) == (8, None, 160.0)
    for prefix in (one, f"/admin/backends/{second['id']}"):
        assert await script.done("POST", f"{prefix}/disable") == {"status": "disabled", "backend_id": second["id"]}
        assert (await script.done("GET", "/api/admin/backends"))[1]["status"] == "disabled"
        assert await script.done("POST", f"{prefix}/enable") == {"status": "enabled", "backend_id": second["id"]}
        assert (await script.done("POST", f"{prefix}/refresh"))["status"] == "refreshed"
        assert (await script.done("POST", f"{prefix}/drain"))["status"] == "draining"

    models = f"/api/admin/backends/{first['id']}/ollama"
    job = await script.done("POST", f"{models}/pull", {"model": "llama3.2"})
    assert job["status"] == "pulling"
    progress = await script.done("GET", f"{models}/pull/{job['job_id']}")
    assert not missing(
        progress, {"job_id", "model", "ollama_url", "status", "progress", "error", "started_at", "completed_at"}
    )
    assert set(progress["progress"]) == {"status", "digest", "total", "completed"}
    deleted = await script.done("POST", f"{models}/delete", {"model": "llama3.2"})
    assert (deleted["status"], deleted["model"]) == ("success", "llama3.2")
    assert (await script("GET", f"{models}/pull/nothing"))[0] == 404
    assert (await script("POST", f"{one}/ollama/pull", {"model": "llama3.2"}))[0] == 400  # that one is vLLM

    assert (await script("DELETE", f"/api/admin/nodes/{node['id']}"))[0] == 409
    for backend in (first, second):
        assert (await script.done("DELETE", f"/api/admin/backends/{backend['id']}"))["status"] == "deleted"
    assert await script.done("DELETE", f"/api/admin/nodes/{node['id']}") == {"status": "deleted", "node_id": node["id"]}
    assert await script.done("GET", "/api/admin/nodes") == []
    rows = await sql(
        admin, "SELECT DISTINCT interface FROM admin.audit_log WHERE actor = 'admin' AND actor_key_id <> ''"
    )
    assert [row["interface"] for row in rows] == ["seed"]


async def test_people_get_keys_and_lose_them(admin: Running, script: Script) -> None:
    group = await script.done(
        "POST",
        "/api/admin/groups",
        {
            "name": "students",
            "display_name": "Students",
            "scheduler_weight": 2,
            "token_budget": 90_000,
            "rpm_limit": 20,
        },
    )
    assert set(group) == {"id", "name", "display_name"}
    user = await script.done("POST", "/api/admin/users", {**ALICE, "group_id": group["id"]})
    assert (user["username"], user["email"], user["group_id"], user["is_active"]) == (
        *("alice", "alice@example.edu"),
        group["id"],
        True,
    )
    assert (await script("POST", "/api/admin/users", {**ALICE, "group_id": group["id"]}))[0] == 409
    listed = await script.done("GET", "/api/admin/users?search=ALI&limit=10")
    assert (listed["total"], set(listed["users"][0])) == (1, USER)
    assert (await script.done("GET", f"/api/admin/users?group_id={group['id']}&skip=1"))["users"] == []

    one = f"/api/admin/users/{user['id']}"
    key = await script.done("POST", f"{one}/api-keys", {"name": "laptop", "expires_at": "2126-01-01T00:00:00Z"})
    assert set(key) == {"id", "key_prefix", "full_key", "name"}
    assert key["full_key"].startswith(key["key_prefix"])
    shown = await script.done("GET", one)
    assert set(shown) == {"user", "stats", "quota", "api_keys", "monthly_usage"}
    assert (shown["stats"]["api_key_count"], shown["api_keys"][0]["id"]) == (1, key["id"])
    assert (shown["quota"]["token_budget"], shown["quota"]["rpm_limit"]) == (90_000, 20)
    keys = await script.done("GET", "/api/admin/api-keys?search=laptop&status=active")
    assert (keys["total"], keys["api_keys"][0]["username"]) == (1, "alice")
    assert not missing(
        keys["api_keys"][0], {"id", "key_prefix", "name", "status", "user_id", "last_used_at", "usage_count"}
    )
    for was_revoked in (False, True):
        told = await script.done("POST", f"/api/admin/api-keys/{key['id']}/revoke")
        assert told == {"status": "revoked", "api_key_id": key["id"], "already_revoked": was_revoked}
    assert (await script.done("GET", "/api/admin/api-keys?status=revoked"))["total"] == 1

    for password in ("a horse in a tree", "another horse in it"):
        assert await script.done("POST", f"{one}/reset-password", {"new_password": password}) == {
            "status": "password_reset",
            "user_id": user["id"],
        }
    assert (await script("POST", f"{one}/reset-password", {"new_password": "password"}))[0] == 400
    assert (await script.done("PATCH", one, {"is_active": False}))["status"] == "updated"
    assert (await script.done("GET", one))["user"]["is_active"] is False

    groups = (await script.done("GET", "/api/admin/groups"))["groups"]
    assert [
        (one["name"], one["scheduler_weight"], one["user_count"]) for one in groups if one["id"] == group["id"]
    ] == [("students", 2, 1)]
    at = f"/api/admin/groups/{group['id']}"
    money = admin_pb2.MemberBudget(unit=admin_pb2.BUDGET_UNIT_MONEY, amount=5_000_000)
    operator = await admin.operator()
    await operator.SetMemberLimits(group="students", budgets=[money])
    assert (await script.done("PATCH", at, {"scheduler_weight": 3, "token_budget": 50_000}))["status"] == "updated"
    (limits,) = (await operator.ShowMemberLimits(group="students")).limits
    assert sorted(budget.amount for budget in limits.budgets) == [50_000, 5_000_000]  # of money they say nothing
    group_now = (await script.done("GET", "/api/admin/groups"))["groups"]
    assert [(one["token_budget"], one["rpm_limit"]) for one in group_now if one["id"] == group["id"]] == [(50_000, 20)]
    assert (await script("DELETE", at))[0] == 409
    everyone = next(one["id"] for one in groups if one["name"] == "everyone")
    await script.done("PATCH", one, {"group_id": everyone, "is_active": True})
    assert (await script.done("DELETE", at)) == {"status": "deleted", "group_id": group["id"]}


async def test_a_request_for_more_is_reviewed(admin: Running, script: Script) -> None:
    operator = await admin.operator()
    await operator.AddUser(name="bob")
    bob = await admin.operator((await operator.CreateKey(user="bob")).secret)
    for _ in range(2):
        await bob.RequestQuota(wish={"limits": {"requests_per_minute": 60}}, reason="a course")
    first, second = (await script.done("GET", "/api/admin/quota-requests"))["requests"]
    assert (first["requester_name"], first["justification"], first["status"]) == ("bob", "a course", "pending")
    at = "/api/admin/quota-requests"
    assert (await script("POST", f"{at}/{first['id']}/review", {"approved": True, "granted_tokens": 5}))[0] == 501
    told = await script.done("POST", f"{at}/{first['id']}/review", {"approved": True, "notes": "Fine."})
    assert told == {"status": "reviewed", "approved": True}
    assert (await script.done("POST", f"{at}/{second['id']}/review", {"approved": False}))["approved"] is False
    assert (await script.done("GET", at))["requests"] == []


async def test_what_was_asked_and_used_is_told(admin: Running, script: Script) -> None:
    operator = await admin.operator()
    user = (await operator.AddUser(name="carol")).user
    key = (await operator.CreateKey(user="carol", name="notebook")).key
    now = time.time()
    hers = {"user_id": user.id, "group_id": user.group_id, "key_id": key.id, "route": "/v1/chat/completions"}
    said = {"messages": [{"role": "user", "content": "zebras?"}], "temperature": 0}
    answered = '{"choices": [{"message": {"content": "They sleep."}, "finish_reason": "stop"}]}'
    times = [datetime.fromtimestamp(now + at / 1000, UTC) for at in (0, 1)]
    ids = [new_ledger_id(at.timestamp()) for at in times]
    rows = [record(at, ledger_id=id, **hers) for at, id in zip(times, ids, strict=True)]
    async with opened(admin.site) as database:
        await enter(database, rows)
    kept_one = recording("req-1", json.dumps(said), answered, user_id=user.id, ledger_id=ids[1])
    await append(admin, kept_one)
    await kept(operator, 1)

    found = await script.done("GET", "/api/admin/audit/search?limit=1")
    assert (found["total"], found["skip"], found["limit"]) == (2, 0, 1)
    newest = found["results"][0]
    assert (newest["user_id"], newest["model"], newest["status"]) == (number_of("user", user.id), "small", "completed")
    asked = f"user_id={newest['user_id']}&model=small&status=completed&start_date={times[0]:%Y-%m-%dT%H:%M:%S}"
    assert (await script.done("GET", f"/api/admin/audit/search?{asked}"))["total"] == 2
    assert (await script.done("GET", f"/admin/audit/search?user_id={newest['user_id']}&status=failed"))["total"] == 0
    by_text = await script.done("GET", "/api/admin/audit/search?search_text=zebras")
    assert [one["id"] for one in by_text["results"]] == [newest["id"]]
    shown = await script.done("GET", f"/api/admin/audit/{newest['id']}")
    assert (shown["request"]["messages"], shown["response"]["content"]) == (said["messages"], "They sleep.")
    assert (shown["request"]["parameters"], shown["response"]["finish_reason"]) == ({"temperature": 0}, "stop")
    other = (await script.done("GET", "/api/admin/audit/search?skip=1"))["results"][0]["id"]
    assert (await script.done("GET", f"/api/admin/audit/{other}"))["response"] is None
    for nothing in ("7", "00000000-0000-0000-0000-000000000000", other[:-1] + ("0" if other[-1] != "0" else "1")):
        assert (await script("GET", f"/api/admin/audit/{nothing}"))[0] == 404

    top = await script.done("GET", "/api/admin/top-users?window=1h")
    assert (top["window_seconds"], [one["username"] for one in top["users"]]) == (3600, ["carol"])
    assert (top["users"][0]["total_tokens"], top["users"][0]["top_api_key_name"]) == (30, "notebook")
    monitor = await script.done("GET", "/api/admin/queue/monitor?window=60")
    assert set(monitor) == {"window_minutes", "queued", "capacity", "by_user", "by_model"}
    assert [(one["model"], one["count"]) for one in monitor["by_model"]] == [("small", 2)]
    shown = await script.done("GET", f"/api/admin/users/{newest['user_id']}")
    assert (shown["stats"]["total_tokens"], shown["stats"]["favorite_models"]) == (30, [{"model": "small", "count": 2}])
    totals = await script.done("GET", "/api/cluster/total-tokens")
    assert totals == {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}


async def test_the_queue_and_the_whole_are_told_with_their_numbers(admin: Running, script: Script) -> None:
    await script.done("POST", "/api/admin/backends/register", VLLM)
    backend_id = admin.site.registry.known["vllm-gpu1-01"].id
    queue = admin.site.scheduler.queue
    queue.waiting.add(pool="default", model="tiny", user_id="user_1", requests=3, oldest_ms=130_000)
    queue.held.add(backend_id=backend_id, cap=16, held=2)
    queue.shares.add(pool="default", user_id="user_1", weight_milli=2000, waiting=3, running=2)
    number = str(number_of("user", "user_1"))
    for path in ("/api/admin/queue", "/admin/queue"):
        told = await script.done("GET", path)
        assert set(told) == {"queue", "fair_share", "backend_queues"}
        assert told["queue"] == {
            "total": 3,
            "by_user": {number: 3},
            "by_model": {"tiny": 3},
            "average_wait_seconds": 130.0,
        }
        assert told["backend_queues"] == {str(number_of("backend", backend_id)): 2}
    monitor = await script.done("GET", "/api/admin/queue/monitor")
    assert (monitor["queued"][0]["queued"], monitor["capacity"]["tiny"]["total_max_concurrent"]) == (3, 16)

    node = registry_node(admin)
    overview = await script.done("GET", "/api/admin/telemetry/overview")
    latest = await script.done("GET", "/api/admin/telemetry/latest")
    assert set(overview["cluster"]) - set(latest["cluster"]) == {"token_usage"}
    cluster = overview["cluster"]
    assert (cluster["total_gpus"], cluster["total_gpu_memory_gb"], cluster["avg_gpu_utilization"]) == (2, 160.0, 50.0)
    assert (cluster["total_active_requests"], cluster["total_queued_requests"]) == (2, 3)
    assert cluster["queue_health"]["status"] == "critical"
    assert (overview["nodes"][0]["name"], len(overview["nodes"][0]["gpus"])) == (node, 2)
    assert overview["backends"][0]["all_models"] == ["tiny"]

    status = await (await script.ask("GET", "/status", key="")).json()
    assert (status["backends"], status["models"]) == ({"total": 1, "healthy": 1}, ["tiny"])
    assert (status["queue"]["total"], status["queue"]["by_user"]) == (3, {})
    throughput = await (await script.ask("GET", "/api/cluster/throughput", key="")).json()
    assert throughput["active_requests"] == 5
    for word, told_as in (("week", "week"), ("fortnight", "day")):
        trends = await (await script.ask("GET", f"/api/cluster/trends?range={word}", key="")).json()
        assert (trends["range"], set(trends)) == (told_as, {"tokens", "users", "range", "since", "now"})


def registry_node(admin: Running) -> str:
    """A node with two GPUs, whose agent has just been heard."""
    gpus = [
        telemetry_pb2.GpuSample(index=at, name="A100", memory_total_bytes=80 * 1024**3, utilization_percent=at * 100)
        for at in (0, 1)
    ]
    sample = telemetry_pb2.TelemetrySample(node="gpu-server-1", gpus=gpus, agent_version="1")
    admin.site.registry.enrolled["gpu-server-1"] = registry_pb2.Node(
        id="no-1", name="gpu-server-1", heard_at_us=round(time.time() * 1e6), last_sample=sample
    )
    return "gpu-server-1"
