"""What `forebay top` shows, from what admin answered: numbers first, then rows. Pure; what is not known is None or empty,
never zero."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.markup import escape

from forebay.backend_states import Condition
from forebay.wire.v1 import admin_pb2, alerts_pb2, registry_pb2, telemetry_pb2
from forebay_admin.cli.plain import word
from forebay_admin.cli.words import coloured, count, gigabytes, milliseconds

BACKEND_COLUMNS = ("Backend", "Pool?", "State", "Slots", "", "#Inside", "#KV", "#Read/s", "#Write/s")
GPU_COLUMNS = ("GPU", "Model?", "Busy", "", "Memory", "", "#Heat", "#Power")
QUEUE_COLUMNS = ("User", "Pool", "Model", "Band", "#Waiting", "#Oldest")
"""# stands to the right, ? is left out where it is narrow. Read and written are tokens."""
_BAR, _NARROW_BAR = 10, 5
_GOOD_FROM, _HIGH_FROM = 0.7, 0.95
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


def backend_row(b: BackendNow, *, narrow: bool = False) -> tuple[str, ...]:
    """By BACKEND_COLUMNS."""
    slots = f"{b.held if b.held is not None else '?'} of {b.cap}"
    inside = "" if b.running is None else count(b.running) + (f" + {count(b.waiting)}" if b.waiting else "")
    return (
        escape(b.name),
        escape(b.pool),
        coloured(b.health),
        bar(b.held / b.cap if b.held is not None and b.cap else None, narrow=narrow),
        slots,
        inside,
        "" if b.kv_used_fraction is None else f"{b.kv_used_fraction:.0%}",
        _number(b.prompt_tokens_per_s),
        _number(b.completion_tokens_per_s),
    )


def gpu_row(g: GpuNow, *, narrow: bool = False) -> tuple[str, ...]:
    """By GPU_COLUMNS."""
    where = f"{escape(g.node)}/{g.index}"
    if g.error:
        return (where, escape(g.name), f"[red]{escape(g.error)}[/red]", "", "", "", "", "")
    has_memory = g.memory_used_bytes is not None and bool(g.memory_total_bytes)
    used = (g.memory_used_bytes or 0) / (g.memory_total_bytes or 1) if has_memory else None
    memory = f"{(g.memory_used_bytes or 0) / 1e9:.1f} of {gigabytes(g.memory_total_bytes or 0)}" if has_memory else ""
    return (
        where,
        escape(g.name),
        # A busy GPU is a good one; full memory is what leaves no room.
        bar(g.utilization_percent / 100 if g.utilization_percent is not None else None, is_good=True, narrow=narrow),
        "" if g.utilization_percent is None else f"{g.utilization_percent} %",
        bar(used, narrow=narrow),
        memory,
        "" if g.temperature_c is None else f"{g.temperature_c} °C",
        "" if g.power_w is None else f"{g.power_w:.0f} W",
    )


def queue_row(q: QueueNow) -> tuple[str, ...]:
    """By QUEUE_COLUMNS."""
    return (
        escape(q.user),
        escape(q.pool),
        escape(q.model),
        q.band,
        count(q.requests),
        milliseconds(q.oldest_ms),
    )


def head(p: Picture) -> str:
    """One line of the most important."""
    told = [
        f"[bold]{_known(p.running)}[/bold] of {_known(p.slots)} slots in use",
        f"[bold]{_known(p.waiting)}[/bold] waiting",
        f"reads [bold]{_rate(p.prompt_tokens_per_s)}[/bold]",
        f"writes [bold]{_rate(p.completion_tokens_per_s)}[/bold]",
        f"{_known(p.serving)} of {_known(None if p.serving is None else len(p.backends))} backends serve",
        f"{_known(p.gateways)} gateways",
    ]
    if p.alerts:
        told.append(f"[red]{p.alerts} alerts open[/red]")
    return "   ".join(told)


def bar(share: float | None, *, is_good: bool = False, narrow: bool = False) -> str:
    """Ten places, or five; dots where nobody knows."""
    places = _NARROW_BAR if narrow else _BAR
    if share is None:
        return f"[dim]{'·' * places}[/dim]"
    full = min(places, max(0, round(share * places)))
    if share > 0 and full == 0:
        full = 1
    colour = "green" if is_good or share < _GOOD_FROM else "yellow" if share < _HIGH_FROM else "red"
    return f"[{colour}]{'█' * full}[/{colour}][dim]{'░' * (places - full)}[/dim]"


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


def _number(per_s: float | None) -> str:
    if per_s is None:
        return ""
    return f"{per_s:,.0f}" if per_s >= 10 or per_s == 0 else f"{per_s:.1f}"


def _rate(tokens_per_s: float | None) -> str:
    return "?" if tokens_per_s is None else f"{_number(tokens_per_s)} tok/s"


def _known(number: int | None) -> str:
    return "?" if number is None else count(number)
