"""A fleet for the pages' tests: two backends on a node with GPUs, one alone, and what the fakes say of them."""

from __future__ import annotations

import time

from forebay.wire.v1 import discovery_pb2, lifecycle_pb2, registry_pb2, scheduler_pb2, telemetry_pb2, types_pb2
from tests.admin.web.conftest import House

GIB = 1 << 30


def a_gpu(index: int = 0, **changed: object) -> telemetry_pb2.GpuSample:
    fields = {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": "RTX 6000",
        "utilization_percent": 73,
        "memory_total_bytes": 48 * GIB,
        "memory_used_bytes": 24 * GIB,
        "temperature_c": 61,
        "power_mw": 240_000,
        "power_limit_mw": 300_000,
        "sm_clock_mhz": 1800,
        "max_sm_clock_mhz": 2400,
        "processes": [telemetry_pb2.GpuProcess(pid=4711, name="vllm", memory_bytes=23 * GIB)],
        **changed,
    }
    return telemetry_pb2.GpuSample(**fields)  # type: ignore[arg-type]


def a_node(name: str = "box", *, heard_ago_s: float | None = 1.0, now: float | None = None) -> registry_pb2.Node:
    at = (time.time() if now is None else now) - (heard_ago_s or 0.0)
    node = registry_pb2.Node(id=f"no-{name}", name=name, enrolled_at_us=1_000_000, samples=100, labels={"rack": "a"})
    if heard_ago_s is None:
        return node
    node.heard_at_us = round(at * 1_000_000)
    node.last_sample.CopyFrom(
        telemetry_pb2.TelemetrySample(
            node=name,
            agent_version="1.2.3",
            interval_ms=2000,
            gpus=[a_gpu(0), a_gpu(1, temperature_c=92)],
            host=telemetry_pb2.HostSample(
                hostname=name,
                system="Linux 6.12",
                cpu_count=32,
                cpu_percent=12.5,
                memory_total_bytes=256 * GIB,
                memory_available_bytes=200 * GIB,
                disk_total_bytes=1000 * GIB,
                disk_free_bytes=400 * GIB,
                power_mw=900_000,
            ),
        )
    )
    return node


def a_backend(name: str = "vllm", **changed: object) -> registry_pb2.Backend:
    fields = {
        "id": f"be-{name}",
        "name": name,
        "url": f"http://{name}.example:8000",
        "kind": types_pb2.ENGINE_KIND_VLLM,
        "pool": "default",
        "node_id": "no-box",
        "slots": 8,
        "enabled": True,
        "health": registry_pb2.BACKEND_HEALTH_HEALTHY,
        "health_since_us": 1_700_000_000_000_000,
        "health_cause": "answered",
        "checked_at_us": round(time.time() * 1_000_000),
        "gpu_indices": [0],
        "models": [
            registry_pb2.BackendModel(
                name="llama3.1", loaded=True, context_length=8192, capabilities=["chat", "tools"]
            ),
            registry_pb2.BackendModel(name="org/qwen3:8b", loaded=False, quantization="Q4_K_M"),
        ],
        "load": registry_pb2.EngineLoad(
            running=3,
            waiting=1,
            kv_used_fraction=0.5,
            prompt_tokens_per_s=900.0,
            completion_tokens_per_s=120.0,
            measured_at_us=round(time.time() * 1_000_000),
        ),
        **changed,
    }
    return registry_pb2.Backend(**fields)  # type: ignore[arg-type]


def fill(house: House) -> None:
    """As if it had always been so: whatever tests did before is gone."""
    registry, site = house.admin.site.registry, house.admin.site
    registry.known.clear()
    for backend in (
        a_backend("vllm"),
        a_backend(
            "ollama-1",
            kind=types_pb2.ENGINE_KIND_OLLAMA,
            gpu_indices=[1],
            health=registry_pb2.BACKEND_HEALTH_UNHEALTHY,
            health_reason="No connection could be made.",
            health_cause="refused",
            missing_models=["must-have"],
        ),
        a_backend(
            "cloud", kind=types_pb2.ENGINE_KIND_OPENAI, node_id="", gpu_indices=[], pool="night", has_credential=True
        ),
    ):
        registry.known[backend.name] = backend
        registry.want(backend)
    registry.enrolled.clear()
    registry.enrolled["box"] = a_node("box")
    registry.enrolled["old"] = a_node("old", heard_ago_s=900)
    registry.lifecycle.on_node = {"box": ["vllm", "ollama-1"]}
    registry.lifecycle.drains.clear()
    registry.lifecycle.windows.clear()
    registry.lifecycle.changes = [
        lifecycle_pb2.HealthChange(
            backend_id="be-vllm",
            backend="vllm",
            at_us=1_700_000_000_000_000,
            before=registry_pb2.BACKEND_HEALTH_STARTING,
            after=registry_pb2.BACKEND_HEALTH_HEALTHY,
            cause="answered",
        )
    ]
    registry.nodes.site = discovery_pb2.NodeDiscovery(node="box", joined_from="10.0.0.5")
    registry.alerts.open.clear()
    registry.alerts.silences.clear()
    site.library.jobs.clear()
    site.library.pins.clear()
    site.library.orders.clear()
    for scheduler in site.schedulers:
        scheduler.queue.CopyFrom(
            scheduler_pb2.ShowQueueResponse(
                held=[scheduler_pb2.HeldSlots(backend_id="be-vllm", cap=8, held=3)],
                gateways=[scheduler_pb2.GatewaySession(gateway="gateway-1", connected=True)],
                waiting=[
                    scheduler_pb2.QueuedUser(
                        pool="default", model="llama3.1", user_id="us-1", requests=2, oldest_ms=900
                    )
                ],
            )
        )
