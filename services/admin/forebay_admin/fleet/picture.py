"""The fleet at this moment, in numbers, from what admin answered. Pure; what is not known is None or empty, never zero.
How it is shown is the command line's and the pages' business."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from forebay.backend_states import Condition
from forebay.wire.v1 import admin_pb2, alerts_pb2, registry_pb2, telemetry_pb2
from forebay_admin.json_form import word

_SERVE = frozenset(str(condition) for condition in Condition if condition.takes_new)


@dataclass(frozen=True, slots=True)
class BackendNow:
    name: str
    pool: str
    health: str
    held: int | None
    cap: int
    running: int | None
    """Inside the engine, by its own count."""
    waiting: int | None
    kv_used_fraction: float | None
    prompt_tokens_per_s: float | None
    completion_tokens_per_s: float | None


@dataclass(frozen=True, slots=True)
class GpuNow:
    node: str
    index: int
    name: str
    error: str
    utilization_percent: int | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_c: int | None
    power_w: float | None


@dataclass(frozen=True, slots=True)
class QueueNow:
    user: str
    pool: str
    model: str
    band: str
    requests: int
    oldest_ms: int


@dataclass(frozen=True, slots=True)
class Picture:
    running: int | None
    """Slots held, by the scheduler."""
    waiting: int | None
    slots: int | None
    gateways: int | None
    prompt_tokens_per_s: float | None
    completion_tokens_per_s: float | None
    serving: int | None
    """Backends that take requests."""
    alerts: int | None
    backends: list[BackendNow] = field(default_factory=list)
    gpus: list[GpuNow] = field(default_factory=list)
    queue: list[QueueNow] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """What could not be asked, and why, a sentence each."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def picture(
    queue: admin_pb2.ViewQueueResponse | None,
    backends: Sequence[registry_pb2.Backend] | None,
    nodes: Sequence[registry_pb2.Node] | None,
    alerts: Sequence[alerts_pb2.Alert] | None,
    unknown: Iterable[str] = (),
) -> Picture:
    held = {h.backend_id: h for h in queue.queue.held} if queue is not None else {}
    shown = [_backend(b, held.get(b.id)) for b in backends or ()]
    return Picture(
        running=sum(h.held for h in held.values()) if queue is not None else None,
        waiting=sum(w.requests for w in queue.queue.waiting) if queue is not None else None,
        slots=sum(h.cap for h in held.values()) if queue is not None else None,
        gateways=sum(g.connected for g in queue.queue.gateways) if queue is not None else None,
        prompt_tokens_per_s=_sum(b.prompt_tokens_per_s for b in shown),
        completion_tokens_per_s=_sum(b.completion_tokens_per_s for b in shown),
        serving=sum(b.health in _SERVE for b in shown) if backends is not None else None,
        alerts=len(alerts) if alerts is not None else None,
        backends=sorted(shown, key=lambda b: (-(b.held or 0), b.name)),
        gpus=[_gpu(node.name, gpu) for node in nodes or () for gpu in node.last_sample.gpus],
        queue=_queue(queue) if queue is not None else [],
        unknown=list(unknown),
    )


def _backend(b: registry_pb2.Backend, held: Any) -> BackendNow:
    load = b.load if b.HasField("load") and not b.load.stale else registry_pb2.EngineLoad()
    return BackendNow(
        name=b.name,
        pool=b.pool,
        health=(word(b, "health") or "unknown") if b.enabled else "disabled",
        held=held.held if held is not None else None,
        cap=held.cap if held is not None else b.slots,
        running=_told(load, "running"),
        waiting=_told(load, "waiting"),
        kv_used_fraction=_told(load, "kv_used_fraction"),
        prompt_tokens_per_s=_told(load, "prompt_tokens_per_s"),
        completion_tokens_per_s=_told(load, "completion_tokens_per_s"),
    )


def _gpu(node: str, g: telemetry_pb2.GpuSample) -> GpuNow:
    power_mw = _told(g, "power_mw")
    return GpuNow(
        node=node,
        index=g.index,
        name=g.name or g.uuid,
        error=g.error,
        utilization_percent=_told(g, "utilization_percent"),
        memory_used_bytes=_told(g, "memory_used_bytes"),
        memory_total_bytes=_told(g, "memory_total_bytes"),
        temperature_c=_told(g, "temperature_c"),
        power_w=power_mw / 1000 if power_mw is not None else None,
    )


def _queue(told: admin_pb2.ViewQueueResponse) -> list[QueueNow]:
    rows = [
        QueueNow(
            told.names.users.get(w.user_id, w.user_id), w.pool, w.model, word(w, "band") or "", w.requests, w.oldest_ms
        )
        for w in told.queue.waiting
    ]
    return sorted(rows, key=lambda q: -q.oldest_ms)


def _told(message: Any, field_name: str) -> Any:
    return getattr(message, field_name) if message.HasField(field_name) else None


def _sum(numbers: Iterable[float | None]) -> float | None:
    """Of those that are known; None when none is."""
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None
