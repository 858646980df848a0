"""OllamaFlow's routes with the examples of its own description, at a real admin."""

from __future__ import annotations

from forebay.wire.v1 import fleet_pb2, scheduler_pb2
from forebay_admin.seeds.fields import Fields
from forebay_admin.seeds.http import ROUTES
from forebay_admin.seeds.ollamaflow.shapes import labels_of
from forebay_admin.seeds.refusals import Dialect
from tests.admin.replica import Running
from tests.admin.seeds.conftest import Script

GPU = {
    "Identifier": "gpu-1",
    "Name": "GPU Server 1",
    "Hostname": "192.168.1.100",
    "Port": 11434,
    "MaxParallelRequests": 4,
    "HealthCheckUrl": "/",
    "UnhealthyThreshold": 2,
    "BackendType": "Ollama",
}
FRONT = {
    "Identifier": "main-frontend",
    "Name": "Production Ollama Frontend",
    "Hostname": "*",
    "LoadBalancing": "RoundRobin",
    "Backends": ["gpu-1", "gpu-2"],
    "RequiredModels": ["llama3", "mistral"],
}


async def test_backends_and_frontends_are_made_told_changed_and_removed(admin: Running, script: Script) -> None:
    status, told = await script("PUT", "/v1.0/backends", GPU)
    assert (status, told["Identifier"], told["Hostname"], told["Port"]) == (201, "gpu-1", "192.168.1.100", 11434)
    assert (await script("PUT", "/v1.0/backends", GPU))[0] == 409
    second = {
        **GPU,
        "Identifier": "gpu-2",
        "Hostname": "192.168.1.101",
        "Labels": ["europe"],
        "BearerToken": "sk-secret",
    }
    status, told = await script("PUT", "/v1.0/backends", second)
    assert (status, told["Labels"], "sk-secret" in str(told)) == (201, ["europe"], False)
    told = await script.done("PUT", "/v1.0/backends/gpu-1", {**GPU, "MaxParallelRequests": 8, "Active": False})
    assert (told["MaxParallelRequests"], told["Active"]) == (8, False)
    assert [one["Identifier"] for one in await script.done("GET", "/v1.0/backends")] == ["gpu-1", "gpu-2"]

    status, told = await script("PUT", "/v1.0/frontends", FRONT)
    assert (status, told["Backends"], told["RequiredModels"]) == (201, ["gpu-1", "gpu-2"], ["llama3", "mistral"])
    assert (told["LoadBalancing"], told["Hostname"], told["UseStickySessions"]) == ("RoundRobin", "*", False)
    assert (await script("PUT", "/v1.0/frontends", FRONT))[0] == 409
    other = {"Identifier": "other", "Backends": ["gpu-1"]}
    assert (await script("PUT", "/v1.0/frontends", other))[0] == 409  # a backend is in one
    changed = {**FRONT, "Hostname": "llm.example.org", "Backends": ["gpu-1"], "LoadBalancing": "Random"}
    told = await script.done("PUT", "/v1.0/frontends/main-frontend", {**changed, "UseStickySessions": True})
    assert (told["Hostname"], told["Backends"], told["LoadBalancing"]) == ("llm.example.org", ["gpu-1"], "Random")
    assert told["UseStickySessions"] is True
    assert await script.done("GET", "/v1.0/frontends/main-frontend") == told

    for path, wanted in (("frontends/main-frontend", 200), ("backends/gpu-1", 200), ("backends/nothing", 404)):
        answer = await script.ask("HEAD", f"/v1.0/{path}")
        assert (answer.status, await answer.read()) == (wanted, b"")
    backend_id = admin.site.registry.known["gpu-2"].id
    admin.site.scheduler.queue.held.append(scheduler_pb2.HeldSlots(backend_id=backend_id, held=3))
    health = await script.done("GET", "/v1.0/backends/health")
    assert [(one["Identifier"], one["Healthy"], one["ActiveRequests"]) for one in health] == [
        ("gpu-1", False, 0),
        ("gpu-2", True, 3),
    ]
    assert (await script.done("GET", "/v1.0/backends/gpu-2/health"))["ActiveRequests"] == 3

    status, told = await script("DELETE", "/v1.0/backends/gpu-1")
    assert (status, told["Error"], "linked" in told["Message"]) == (400, "BadRequest", True)
    assert (await script("DELETE", "/v1.0/frontends/main-frontend"))[0] == 204
    left = await script.done("GET", "/v1.0/frontends")
    assert [(one["Identifier"], one["Backends"]) for one in left] == [("default", ["gpu-1", "gpu-2"])]
    for name in ("gpu-1", "gpu-2"):
        assert (await script("DELETE", f"/v1.0/backends/{name}"))[0] == 204
    assert await script.done("GET", "/v1.0/backends") == []


async def test_what_it_cannot_say_stays(admin: Running, script: Script) -> None:
    """What is told and sent back changes nothing, though it tells less than there is."""
    operator = await admin.operator()
    pool = fleet_pb2.PoolSpec(name="a", hosts=["one.example.org", "two.example.org"], path_prefix="/a")
    node, labels = fleet_pb2.NodeSpec(name="n"), {"rack": "7", "gpu_memory_gb": "²"}
    backend = fleet_pb2.BackendSpec(name="b", url="http://192.0.2.1:1", pool="a", node="n", labels=labels)
    await operator.ApplyFleet(wanted=fleet_pb2.FleetSpec(pools=[pool], nodes=[node], backends=[backend]))
    kept = (await operator.ExportFleet()).fleet
    for path in ("backends/b", "frontends/a"):
        told = await script.done("GET", f"/v1.0/{path}")
        assert await script.done("PUT", f"/v1.0/{path}", told) == told
    names = {"llama": "llama3:8b"}
    admin.site.registry.known["b"].model_names.update(names)
    upsert = {"name": "b", "url": "http://192.0.2.1:1", "engine": "ollama", "upsert": True}
    told = await script.done("POST", "/api/admin/backends/register", upsert)
    assert (told["node_name"], told["gpu_memory_gb"]) == ("n", None)  # which is no number there
    held, after = admin.site.registry.known["b"], (await operator.ExportFleet()).fleet
    assert (held.pool, dict(held.model_names)) == ("a", names)
    assert after.pools[0].hosts == kept.pools[0].hosts
    changed = {**await script.done("GET", "/v1.0/frontends/a"), "Hostname": "three.example.org"}
    assert (await script.done("PUT", "/v1.0/frontends/a", changed))["Hostname"] == "three.example.org"
    assert (await operator.ExportFleet()).fleet.pools[0].hosts == ["three.example.org"]


def test_labels_keep_what_is_written_on_them() -> None:
    body = Fields({"Labels": ["rack", "new"]}, "body")
    assert labels_of(body, {"rack": "7", "gone": "x"}) == {"rack": "7", "new": "true"}


def test_every_route_that_it_documents_is_there() -> None:
    ours = {(route.verb, route.path) for route in ROUTES if route.dialect is Dialect.OLLAMAFLOW}
    assert ours == {
        *((verb, "/v1.0/frontends") for verb in ("GET", "PUT")),
        *((verb, "/v1.0/frontends/{id}") for verb in ("GET", "PUT", "DELETE")),
        *((verb, "/v1.0/backends") for verb in ("GET", "PUT")),
        *((verb, "/v1.0/backends/{id}") for verb in ("GET", "PUT", "DELETE")),
        ("GET", "/v1.0/backends/health"),
        ("GET", "/v1.0/backends/{id}/health"),
    }
