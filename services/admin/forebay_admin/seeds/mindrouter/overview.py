"""The whole of the fleet at once: nodes with their GPUs, backends with theirs, and what they come to together."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import registry_pb2, telemetry_pb2, usage_queries_pb2
from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.mindrouter import nodes as node_routes
from forebay_admin.seeds.mindrouter.backends import shape as backend_shape
from forebay_admin.seeds.mindrouter.queue import health_shape
from forebay_admin.seeds.mindrouter.shapes import backend_status, gigabytes, named, number, since_us
from forebay_admin.seeds.route import SeedRoute


async def overview(asking: Asking) -> Any:
    told = await latest(asking)
    by = [usage_queries_pb2.USAGE_COLUMN_MODEL]
    answer = await asking.call("QueryUsage", from_us=since_us(asking.now), by=by, limit=1000)
    told["cluster"]["token_usage"] = {
        "global": _tokens(answer.total),
        "by_model": [{"model": line.model, **_tokens(line.sums)} for line in answer.lines if line.model],
    }
    return told


async def latest(asking: Asking) -> dict[str, Any]:
    nodes = list((await asking.call("ShowNodes")).nodes)
    backends = list((await asking.call("ShowBackends")).backends)
    queue = (await asking.call("ViewQueue")).queue
    names, gpus = {node.id: node.name for node in nodes}, {node.id: _gpus(node) for node in nodes}
    held = {one.backend_id: one.held for one in queue.held}
    every = [gpu for of_node in gpus.values() for gpu in of_node]
    used = [gpu["utilization_gpu"] for gpu in every if gpu["utilization_gpu"] is not None]
    return {
        "cluster": {
            "total_backends": len(backends),
            "healthy_backends": sum(backend_status(one) == "healthy" for one in backends),
            "total_nodes": len(nodes),
            "total_gpus": len(every),
            "total_gpu_memory_gb": _sum(every, "memory_total_gb"),
            "used_gpu_memory_gb": _sum(every, "memory_used_gb"),
            "avg_gpu_utilization": round(sum(used) / len(used), 1) if used else None,
            "total_power_draw_watts": _sum(every, "power_draw_watts"),
            "total_server_power_watts": sum(_server_watts(node) or 0 for node in nodes),
            "total_active_requests": sum(held.values()),
            "total_queued_requests": sum(line.requests for line in queue.waiting),
            "queue_health": health_shape(queue),
        },
        "nodes": [_node(node, gpus[node.id], asking.now) for node in nodes],
        "backends": [_backend(one, names, gpus.get(one.node_id, []), held.get(one.id, 0)) for one in backends],
    }


def _node(node: registry_pb2.Node, gpus: list[dict[str, Any]], now: float) -> dict[str, Any]:
    shape = node_routes.shape(node, now)
    fields = ("id", "name", "hostname", "status", "sidecar_url", "gpu_count", "driver_version", "cuda_version")
    return {**{field: shape[field] for field in fields}, "server_power_watts": _server_watts(node), "gpus": gpus}


def _backend(
    backend: registry_pb2.Backend, names: dict[str, str], gpus: list[dict[str, Any]], running: int
) -> dict[str, Any]:
    shape = backend_shape(backend, names)
    fields = (
        *("id", "name", "status", "engine", "url", "node_id", "node_name", "gpu_indices", "gpu_type", "version"),
        *("max_concurrent", "current_concurrent"),
    )
    own = [gpu for gpu in gpus if not backend.gpu_indices or gpu["index"] in backend.gpu_indices]
    used = [gpu["utilization_gpu"] for gpu in own if gpu["utilization_gpu"] is not None]
    load = backend.load if backend.HasField("load") else registry_pb2.EngineLoad()
    return {
        **{field: shape[field] for field in fields},
        "current_concurrent": running,
        "gpus": own,
        "loaded_models": [model.name for model in backend.models if model.loaded],
        "all_models": [model.name for model in backend.models],
        "active_requests": running,
        "queued_requests": load.waiting,
        "gpu_utilization": round(sum(used) / len(used), 1) if used else None,
        "gpu_memory_used_gb": _sum(own, "memory_used_gb") if own else None,
        "gpu_memory_total_gb": _sum(own, "memory_total_gb") if own else None,
        "latency_ema_ms": None,
        "ttft_ema_ms": round(load.ttft_s * 1000, 1) if load.HasField("ttft_s") else None,
    }


def _gpus(node: registry_pb2.Node) -> list[dict[str, Any]]:
    return [_gpu(node.name, gpu) for gpu in (node.last_sample.gpus if node.HasField("last_sample") else ())]


def _gpu(node: str, gpu: telemetry_pb2.GpuSample) -> dict[str, Any]:
    return {
        "id": number("gpu", f"{node}/{gpu.index}"),
        "index": gpu.index,
        "name": gpu.name,
        "uuid": gpu.uuid,
        "compute_capability": gpu.compute_capability or None,
        "memory_total_gb": gigabytes(named(gpu, "memory_total_bytes")),
        "power_limit_watts": _watts(named(gpu, "power_limit_mw")),
        "utilization_gpu": named(gpu, "utilization_percent"),
        "utilization_memory": named(gpu, "memory_utilization_percent"),
        "memory_used_gb": gigabytes(named(gpu, "memory_used_bytes")),
        "memory_free_gb": gigabytes(named(gpu, "memory_free_bytes")),
        "temperature_gpu": named(gpu, "temperature_c"),
        "temperature_memory": named(gpu, "memory_temperature_c"),
        "power_draw_watts": _watts(named(gpu, "power_mw")),
        "fan_speed_percent": named(gpu, "fan_percent"),
        "clock_sm_mhz": named(gpu, "sm_clock_mhz"),
        "clock_memory_mhz": named(gpu, "memory_clock_mhz"),
    }


def _server_watts(node: registry_pb2.Node) -> float | None:
    return _watts(named(node.last_sample.host, "power_mw")) if node.HasField("last_sample") else None


def _watts(milliwatts: int | None) -> float | None:
    return milliwatts / 1000 if milliwatts is not None else None


def _sum(gpus: list[dict[str, Any]], field: str) -> float:
    return round(sum((gpu[field] or 0.0 for gpu in gpus), 0.0), 1)


def _tokens(sums: usage_queries_pb2.UsageSums) -> dict[str, int]:
    return {
        "prompt_tokens": sums.prompt_tokens,
        "completion_tokens": sums.completion_tokens,
        "total_tokens": sums.prompt_tokens + sums.completion_tokens,
    }


_CALLS = ("ShowNodes", "ShowBackends", "ViewQueue")
ROUTES = (
    SeedRoute("GET", "/telemetry/overview", overview, (*_CALLS, "QueryUsage")),
    SeedRoute("GET", "/telemetry/latest", latest, _CALLS),
)
