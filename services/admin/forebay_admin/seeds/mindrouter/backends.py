"""Backends, and models on those that are Ollama's. Drains and removals, which were the dashboard's alone, are here too."""

from __future__ import annotations

import re
from typing import Any

from forebay.errors import AlreadyExists, BadInput, NotFound
from forebay.wire.v1 import admin_pb2, fleet_parts_pb2, library_pb2, registry_pb2, types_pb2
from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.fields import Fields
from forebay_admin.seeds.mindrouter.shapes import (
    backend_status,
    engine_word,
    iso,
    number,
    the_backend,
    the_node,
)
from forebay_admin.seeds.refusals import NoCounterpart
from forebay_admin.seeds.route import SeedRoute, instead

_ENGINES = {
    "ollama": types_pb2.ENGINE_KIND_OLLAMA,
    "vllm": types_pb2.ENGINE_KIND_VLLM,
    **dict.fromkeys(("diffusion", "video", "tts", "stt"), types_pb2.ENGINE_KIND_OPENAI),
}
"""What is none of the first two speaks OpenAI's words there as well."""
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?", re.ASCII)
_GPU_LABELS = ("gpu_memory_gb", "gpu_type")
_JOB_STATES = {
    library_pb2.MODEL_JOB_STATE_DONE: "success",
    library_pb2.MODEL_JOB_STATE_FAILED: "error",
    library_pb2.MODEL_JOB_STATE_CANCELLED: "error",
}


def shape(backend: registry_pb2.Backend, nodes: dict[str, str]) -> dict[str, Any]:
    """`nodes`: id → name."""
    return {
        "id": number("backend", backend.id),
        "name": backend.name,
        "url": backend.url,
        "engine": engine_word(backend.kind),
        "status": backend_status(backend),
        "max_concurrent": backend.slots,
        "current_concurrent": backend.load.running if backend.HasField("load") else 0,
        "gpu_memory_gb": _gigabytes(backend.labels.get("gpu_memory_gb", "")),
        "gpu_type": backend.labels.get("gpu_type"),
        "node_id": number("node", backend.node_id),
        "node_name": nodes.get(backend.node_id),
        "gpu_indices": list(backend.gpu_indices) or None,
        "version": backend.engine_version or None,
        "last_health_check": iso(backend.checked_at_us),
    }


async def list_backends(asking: Asking) -> Any:
    nodes = await node_names(asking)
    return [shape(backend, nodes) for backend in (await asking.call("ShowBackends")).backends]


async def register(asking: Asking) -> Any:
    body = asking.body()
    name, url = body.text("name", needed=True, longest=100), body.text("url", needed=True)
    kind = _engine(body, needed=True)
    slots = body.whole("max_concurrent", 4, least=1, most=10_000) or 4
    gpu_indices = body.wholes("gpu_indices", most=1023) or []
    upsert = body.flag("upsert", False)
    node_id, labels = body.which("node_id"), _labels(body)
    body.done()
    node = (await the_node(asking, node_id)).name if node_id else ""
    known = (await asking.call("ShowBackends")).backends
    same_url = next((one for one in known if one.url.rstrip("/") == url.rstrip("/")), None)
    same_name = next((one for one in known if one.name == name), None)
    if upsert and same_name is None and same_url is not None:
        name = same_url.name  # names are for ever here
    elif not upsert and same_url is not None:
        raise AlreadyExists(f"Backend with URL '{url}' already exists (registered as '{same_url.name}')")
    request = admin_pb2.RegisterBackendRequest(
        name=name, url=url, kind=kind, slots=slots, node=node, gpu_indices=gpu_indices, replace=bool(upsert)
    )
    if upsert and (held := same_name or same_url) is not None:
        request.node = node or (await node_names(asking)).get(held.node_id, "")
        keep_unsaid(request, held)
    backend = (await asking.make("RegisterBackend", request)).backend
    if labels:
        await asking.make("ChangeBackend", fleet_parts_pb2.ChangeBackendRequest(name=backend.name, labels=labels))
    return shape(await the_backend(asking, backend.id), await node_names(asking))


async def update(asking: Asking) -> Any:
    backend, body = await the_backend(asking), asking.body()
    if not body.said():
        raise BadInput("No fields to update")
    change = fleet_parts_pb2.ChangeBackendRequest(name=backend.name, labels=_labels(body))
    name, url = body.text("name", backend.name, longest=100), body.text("url")
    if body.is_said("engine"):
        change.kind = engine_word(_engine(body))
    slots = body.whole("max_concurrent", least=1, most=10_000)
    gpu_indices = body.wholes("gpu_indices", most=1023)
    node_id = body.which("node_id")
    body.done()
    if name != backend.name:
        raise NoCounterpart("A backend keeps its name: add it under the other one, and remove this one.")
    if body.has("priority"):
        raise NoCounterpart("Backends have no priority here: set a weight (forebay backend set --weight).")
    if url:
        change.url = url
    if slots:
        change.slots = slots
    change.gpu_indices.extend(gpu_indices or [])
    if node_id:
        change.node = (await the_node(asking, node_id)).name
    change.reset.extend(_cleared(body, backend))
    await asking.make("ChangeBackend", change)
    return shape(await the_backend(asking, backend.id), await node_names(asking))


async def enable(asking: Asking) -> Any:
    return await _enabled(asking, is_enabled=True)


async def disable(asking: Asking) -> Any:
    return await _enabled(asking, is_enabled=False)


async def drain(asking: Asking) -> Any:
    backend = await the_backend(asking)
    await asking.call("DrainBackend", name=backend.name, reason="asked for at /api/admin")
    return {"status": "draining", "backend_id": number("backend", backend.id)}


async def remove(asking: Asking) -> Any:
    backend = await the_backend(asking)
    await asking.call("UnregisterBackend", name=backend.name)
    return {"status": "deleted", "backend_id": number("backend", backend.id)}


async def refresh(asking: Asking) -> Any:
    """The registry looks by itself, every few seconds: what is told here is never older."""
    return {"status": "refreshed", "backend_id": number("backend", (await the_backend(asking)).id)}


async def pull(asking: Asking) -> Any:
    backend, model = await _ollama(asking)
    order = library_pb2.StartModelJobRequest(
        action=library_pb2.MODEL_ACTION_PULL, model=model, on=library_pb2.BackendChoice(backends=[backend.name])
    )
    return {"job_id": (await asking.make("StartModelJob", order)).job.id, "status": "pulling"}


async def pull_progress(asking: Asking) -> Any:
    backend = await the_backend(asking)
    try:
        job = await asking.call("FollowModelJob", id=asking.path["job_id"])
    except NotFound as error:
        raise NotFound("Pull job not found") from error
    target = next((one for one in job.targets if one.backend == backend.name), None)
    if target is None or job.action != library_pb2.MODEL_ACTION_PULL:
        raise NotFound("Pull job not found")
    return {
        "job_id": job.id,
        "model": job.model,
        "ollama_url": backend.url,
        "status": _JOB_STATES.get(target.state, "pulling"),
        "progress": {
            "status": target.status,
            "digest": "",
            "total": target.total_bytes,
            "completed": target.completed_bytes,
        },
        "error": target.error or None,
        "started_at": iso(job.created_at_us),
        "completed_at": iso(job.ended_at_us),
    }


async def delete_model(asking: Asking) -> Any:
    """The deletion goes on by itself; `job_id` tells how."""
    backend, model = await _ollama(asking)
    order = library_pb2.StartModelJobRequest(
        action=library_pb2.MODEL_ACTION_DELETE, model=model, on=library_pb2.BackendChoice(backends=[backend.name])
    )
    job = (await asking.make("StartModelJob", order)).job
    return {"status": "success", "model": model, "job_id": job.id}


def keep_unsaid(request: admin_pb2.RegisterBackendRequest, held: registry_pb2.Backend) -> None:
    """What their scripts cannot say stays: an order for a backend that is there sets all of this."""
    request.pool = held.pool
    request.model_names.update(held.model_names)


async def node_names(asking: Asking) -> dict[str, str]:
    return {node.id: node.name for node in (await asking.call("ShowNodes")).nodes}


async def _enabled(asking: Asking, *, is_enabled: bool) -> Any:
    backend = await the_backend(asking)
    change = fleet_parts_pb2.ChangeBackendRequest(name=backend.name, enabled=is_enabled)
    await asking.make("ChangeBackend", change)
    return {"status": "enabled" if is_enabled else "disabled", "backend_id": number("backend", backend.id)}


async def _ollama(asking: Asking) -> tuple[registry_pb2.Backend, str]:
    """The backend, and the model that the body names. Raises NotFound, BadInput."""
    backend, body = await the_backend(asking), asking.body()
    model = body.text("model", needed=True, longest=255)
    body.done()
    if backend.kind != types_pb2.ENGINE_KIND_OLLAMA:
        raise BadInput("Backend is not an Ollama engine")
    return backend, model


def _engine(body: Fields, *, needed: bool = False) -> types_pb2.EngineKind.ValueType:
    word = body.text("engine", needed=needed)
    if word == "dlp":
        raise NoCounterpart(
            "Scanners are no backends here: hooks redact what is kept of requests (entry point forebay.redactions)."
        )
    kinds = {name.removeprefix("ENGINE_KIND_").lower(): kind for name, kind in types_pb2.EngineKind.items()}
    kinds = {name: kind for name, kind in kinds.items() if kind} | _ENGINES
    return kinds[body.word("engine", tuple(kinds), "ollama")] if word else types_pb2.ENGINE_KIND_UNSPECIFIED


def _gigabytes(label: str) -> float | None:
    """Operators write what they like on a label."""
    return float(label) if _NUMBER.fullmatch(label) else None


def _labels(body: Fields) -> dict[str, str]:
    memory, kind = body.number("gpu_memory_gb", most=1e6), body.line("gpu_type", longest=100)
    return {
        **({"gpu_memory_gb": f"{memory:.9g}"} if memory is not None else {}),
        **({"gpu_type": kind} if kind else {}),
    }


def _cleared(body: Fields, backend: registry_pb2.Backend) -> list[str]:
    fields = {"node_id": "node", "gpu_indices": "gpu_indices", "max_concurrent": "slots", "engine": "kind"}
    cleared = [ours for theirs, ours in fields.items() if body.is_cleared(theirs)]
    return cleared + [f"labels.{name}" for name in _GPU_LABELS if body.is_cleared(name) and name in backend.labels]


_ONE = "/backends/{backend_id}"
_SHOWN = ("ShowBackends", "ShowNodes")
ROUTES = (
    SeedRoute("POST", "/backends/register", register, ("RegisterBackend", "ChangeBackend", *_SHOWN)),
    SeedRoute("GET", "/backends", list_backends, _SHOWN),
    SeedRoute("PATCH", _ONE, update, ("ChangeBackend", *_SHOWN)),
    SeedRoute("DELETE", _ONE, remove, ("UnregisterBackend", "ShowBackends")),
    SeedRoute("POST", f"{_ONE}/disable", disable, ("ChangeBackend", "ShowBackends")),
    SeedRoute("POST", f"{_ONE}/enable", enable, ("ChangeBackend", "ShowBackends")),
    SeedRoute("POST", f"{_ONE}/drain", drain, ("DrainBackend", "ShowBackends")),
    SeedRoute("POST", f"{_ONE}/refresh", refresh, ("ShowBackends",)),
    SeedRoute("POST", f"{_ONE}/ollama/pull", pull, ("StartModelJob", "ShowBackends")),
    SeedRoute("GET", f"{_ONE}/ollama/pull/{{job_id}}", pull_progress, ("FollowModelJob", "ShowBackends")),
    SeedRoute("POST", f"{_ONE}/ollama/delete", delete_model, ("StartModelJob", "ShowBackends")),
    SeedRoute(
        "GET",
        "/conversations/export",
        instead("Forebay has no chat of its own; what users keep is theirs, at GET /v1/conversations/{id}/items."),
        ("SearchRecordings",),
    ),
)
