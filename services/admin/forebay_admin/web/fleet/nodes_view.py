"""Nodes, their hosts and their GPUs as cards, and what is known of one node. Pure; None is what was not told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forebay.silence import silent_after_s
from forebay.wire.v1 import discovery_pb2, lifecycle_pb2, registry_pb2, telemetry_pb2
from forebay_admin.json_form import word
from forebay_admin.web.fleet.alerts_view import US
from forebay_admin.web.fleet.overview_view import is_heard, power_w
from forebay_admin.web.fleet.states import DISABLED, tone

_MOST_PROCESSES = 8
_ORDINARY_REASONS = frozenset({"gpu_idle", "applications_clocks_setting", "display_clock_setting"})
_HOT_C = 85


@dataclass(frozen=True, slots=True)
class ProcessRow:
    pid: int
    name: str
    memory: int | None
    mig: int | None


@dataclass(frozen=True, slots=True)
class MigRow:
    index: int
    name: str
    memory_used: int | None
    memory_total: int | None


@dataclass(frozen=True, slots=True)
class GpuCard:
    index: int
    name: str
    error: str
    """The driver's word when it could not be read: then nothing else is known."""
    busy_percent: int | None
    bandwidth_percent: int | None
    memory_used: int | None
    memory_total: int | None
    temperature_c: int | None
    memory_temperature_c: int | None
    power_w: float | None
    power_limit_w: float | None
    fan_percent: int | None
    clock_mhz: int | None
    most_clock_mhz: int | None
    memory_clock_mhz: int | None
    links: tuple[str, ...]
    held_by: tuple[str, ...]
    """Why its clocks are below their most, what is ordinary left out."""
    troubles: tuple[str, ...]
    models: tuple[str, ...]
    """That are in memory, of the backends that run on it."""
    processes: tuple[ProcessRow, ...]
    more_processes: int
    migs: tuple[MigRow, ...]

    @property
    def heat_tone(self) -> str:
        return "bad" if self.temperature_c is not None and self.temperature_c >= _HOT_C else ""


@dataclass(frozen=True, slots=True)
class OnNode:
    """A backend that runs there."""

    name: str
    state: str
    tone: str
    models: tuple[str, ...]
    is_draining: bool


@dataclass(frozen=True, slots=True)
class NodeCard:
    name: str
    state: str
    tone: str
    heard_at: float | None
    period_s: float
    """What it told is stale after so long."""
    is_stale: bool
    agent_version: str
    cpus: int | None
    cpu_percent: float | None
    memory_used: int | None
    memory_total: int | None
    disk_used: int | None
    disk_total: int | None
    power_w: float | None
    problems: tuple[str, ...]
    gpu_message: str
    gpus: tuple[GpuCard, ...]
    backends: tuple[OnNode, ...]
    labels: tuple[str, ...]
    note: str

    @property
    def is_draining(self) -> bool:
        return bool(self.backends) and all(backend.is_draining for backend in self.backends)


@dataclass(frozen=True, slots=True)
class NodesView:
    nodes: tuple[NodeCard, ...]
    heard: int
    gpus: int


@dataclass(frozen=True, slots=True)
class WindowRow:
    id: str
    of: str
    begins_at: float
    ends_at: float
    drain_before_s: int
    state: str
    tone: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Discovery:
    policy: str
    """suggest, auto or off; empty: as the registry's settings say."""
    pool: str
    addresses: tuple[str, ...]
    joined_from: str


@dataclass(frozen=True, slots=True)
class NodeView:
    card: NodeCard
    host: tuple[tuple[str, str], ...]
    """What its host tells beside the card: what, and how much."""
    samples: int
    samples_lost: int
    dropped: tuple[tuple[str, int, float], ...]
    """Why, how many, and when the last."""
    clock_skew_ms: int | None
    enrolled_at: float
    is_without_agent: bool
    labels: Mapping[str, str]


def nodes_view(
    nodes: Sequence[registry_pb2.Node], backends: Sequence[registry_pb2.Backend] | None, now: float
) -> NodesView:
    """By name."""
    cards = tuple(node_card(node, backends or (), now) for node in sorted(nodes, key=lambda node: node.name))
    return NodesView(cards, sum(is_heard(node, now) for node in nodes), sum(len(card.gpus) for card in cards))


def node_card(node: registry_pb2.Node, backends: Sequence[registry_pb2.Backend], now: float) -> NodeCard:
    sample, host = node.last_sample, node.last_sample.host
    there = [backend for backend in backends if backend.node_id and backend.node_id == node.id]
    state, node_tone = _state(node, now)
    has_host = sample.HasField("host")
    return NodeCard(
        name=node.name,
        state=state,
        tone=node_tone,
        heard_at=node.heard_at_us / US if node.HasField("heard_at_us") else None,
        period_s=silent_after_s(sample.interval_ms / 1000),
        is_stale=node.HasField("heard_at_us") and not is_heard(node, now),
        agent_version=sample.agent_version,
        cpus=host.cpu_count if has_host else None,
        cpu_percent=_told(host, "cpu_percent"),
        memory_used=host.memory_total_bytes - host.memory_available_bytes if host.memory_total_bytes else None,
        memory_total=host.memory_total_bytes or None,
        disk_used=host.disk_total_bytes - host.disk_free_bytes if host.disk_total_bytes else None,
        disk_total=host.disk_total_bytes or None,
        power_w=power_w(node),
        problems=tuple(node.problems),
        gpu_message=sample.gpu_message,
        gpus=tuple(gpu_card(gpu, there) for gpu in sample.gpus),
        backends=tuple(on_node(backend) for backend in sorted(there, key=lambda backend: backend.name)),
        labels=tuple(f"{name}={value}" for name, value in sorted(node.labels.items())),
        note=node.note,
    )


def gpu_card(gpu: telemetry_pb2.GpuSample, there: Sequence[registry_pb2.Backend]) -> GpuCard:
    """`there`: the backends on its node."""
    largest = sorted(gpu.processes, key=lambda process: -process.memory_bytes)
    power, limit = _told(gpu, "power_mw"), _told(gpu, "power_limit_mw")
    on_it = [backend for backend in there if not backend.gpu_indices or gpu.index in backend.gpu_indices]
    return GpuCard(
        index=gpu.index,
        name=gpu.name or gpu.uuid,
        error=gpu.error,
        busy_percent=_told(gpu, "utilization_percent"),
        bandwidth_percent=_told(gpu, "memory_utilization_percent"),
        memory_used=_told(gpu, "memory_used_bytes"),
        memory_total=_told(gpu, "memory_total_bytes"),
        temperature_c=_told(gpu, "temperature_c"),
        memory_temperature_c=_told(gpu, "memory_temperature_c"),
        power_w=power / 1000 if power is not None else None,
        power_limit_w=limit / 1000 if limit is not None else None,
        fan_percent=_told(gpu, "fan_percent"),
        clock_mhz=_told(gpu, "sm_clock_mhz"),
        most_clock_mhz=_told(gpu, "max_sm_clock_mhz"),
        memory_clock_mhz=_told(gpu, "memory_clock_mhz"),
        links=tuple(_links(gpu)),
        held_by=tuple(reason.replace("_", " ") for reason in gpu.clock_reasons if reason not in _ORDINARY_REASONS),
        troubles=tuple(_troubles(gpu)),
        models=tuple(sorted({name for backend in on_it for name in loaded_models(backend)})),
        processes=tuple(
            ProcessRow(process.pid, process.name, _told(process, "memory_bytes"), _told(process, "mig_index"))
            for process in largest[:_MOST_PROCESSES]
        ),
        more_processes=max(0, len(gpu.processes) - _MOST_PROCESSES) + gpu.processes_left_out,
        migs=tuple(
            MigRow(part.index, part.name, _told(part, "memory_used_bytes"), _told(part, "memory_total_bytes"))
            for part in gpu.mig_instances
        ),
    )


def on_node(backend: registry_pb2.Backend) -> OnNode:
    state = state_of(backend)
    return OnNode(backend.name, state, tone(state), loaded_models(backend), backend.draining)


def state_of(backend: registry_pb2.Backend) -> str:
    return (word(backend, "health") or "unknown") if backend.enabled else DISABLED


def loaded_models(backend: registry_pb2.Backend) -> tuple[str, ...]:
    """That are in its memory; of an engine that does not tell, those that it has."""
    return tuple(model.name for model in backend.models if model.loaded or not model.HasField("loaded"))


def node_view(node: registry_pb2.Node, backends: Sequence[registry_pb2.Backend] | None, now: float) -> NodeView:
    return NodeView(
        card=node_card(node, backends or (), now),
        host=tuple(_host_facts(node.last_sample)) if node.HasField("last_sample") else (),
        samples=node.samples,
        samples_lost=node.samples_lost,
        dropped=tuple((one.reason.replace("_", " "), one.samples, one.last_at_us / US) for one in node.samples_dropped),
        clock_skew_ms=_told(node, "clock_skew_ms"),
        enrolled_at=node.enrolled_at_us / US,
        is_without_agent=node.without_agent,
        labels=dict(sorted(node.labels.items())),
    )


def window_rows(
    windows: Iterable[lifecycle_pb2.MaintenanceWindow], now: float, concerns: Mapping[str, str] | None = None
) -> tuple[WindowRow, ...]:
    """Those to come first. `concerns`: only those of these names, by scope."""
    return tuple(
        _window_row(window, now)
        for window in sorted(windows, key=lambda one: (one.ends_at_us / US <= now, one.begins_at_us))
        if concerns is None or concerns.get(word(window, "scope") or "") == window.name
    )


def discovery_of(node: str, told: discovery_pb2.ListFoundBackendsResponse | None) -> Discovery | None:
    """None: nobody knows."""
    if told is None:
        return None
    site = next((one for one in told.nodes if one.node == node), discovery_pb2.NodeDiscovery())
    return Discovery(word(site, "policy") or "", site.pool, tuple(site.addresses), site.joined_from)


def _window_row(window: lifecycle_pb2.MaintenanceWindow, now: float) -> WindowRow:
    begins, ends = window.begins_at_us / US, window.ends_at_us / US
    if now >= ends:
        state, look = "over", ""
    elif now >= begins:
        state, look = "open", "warn"
    elif now >= begins - window.drain_before_s:
        state, look = "draining", "info"
    else:
        state, look = "to come", ""
    of = f"{word(window, 'scope') or ''} {window.name}".strip()
    return WindowRow(window.id, of, begins, ends, window.drain_before_s, state, look, window.by, window.reason)


def _state(node: registry_pb2.Node, now: float) -> tuple[str, str]:
    if node.without_agent:
        return "described", ""
    if not node.HasField("heard_at_us"):
        return "never heard", ""
    if not is_heard(node, now):
        return "silent", "bad"
    return ("in trouble", "warn") if node.problems else ("reporting", "good")


def _host_facts(sample: telemetry_pb2.TelemetrySample) -> Iterable[tuple[str, str]]:
    host = sample.host
    yield "Host", ", ".join(filter(None, (host.hostname, host.system)))
    yield "Load", f"{host.load_1m:.2f} {host.load_5m:.2f} {host.load_15m:.2f} (1, 5, 15 min)"
    if host.swap_total_bytes:
        yield "Swap", f"{_gb(host.swap_used_bytes)} of {_gb(host.swap_total_bytes)}"
    for disk in host.disks:
        yield f"Disk {disk.path}", f"{_gb(disk.free_bytes)} free of {_gb(disk.total_bytes)}"
    if host.HasField("network_received_bytes_per_s"):
        yield "Network", f"{_rate(host.network_received_bytes_per_s)} in, {_rate(host.network_sent_bytes_per_s)} out"
    if host.temperatures:
        yield "Heat", ", ".join(f"{one.name} {one.celsius:.0f} °C" for one in host.temperatures)
    if host.HasField("power_mw"):
        source = f" ({host.power_source})" if host.power_source else ""
        yield "Power of the server", f"{host.power_mw / 1000:.0f} W{source}"
    if host.HasField("cpu_power_mw"):
        yield "Power of its processors", f"{host.cpu_power_mw / 1000:.0f} W"
    drivers = sorted({gpu.driver_version for gpu in sample.gpus if gpu.driver_version})
    if drivers:
        yield "Driver", ", ".join(drivers)
    cuda = sorted({gpu.cuda_version for gpu in sample.gpus if gpu.cuda_version})
    if cuda:
        yield "CUDA", ", ".join(cuda)


def _links(gpu: telemetry_pb2.GpuSample) -> Iterable[str]:
    if gpu.HasField("pcie_generation") and gpu.HasField("pcie_width"):
        yield f"PCIe {gpu.pcie_generation} ×{gpu.pcie_width}"
    if gpu.HasField("pcie_tx_bytes_per_s"):
        yield f"PCIe {_rate(gpu.pcie_rx_bytes_per_s)} in, {_rate(gpu.pcie_tx_bytes_per_s)} out"
    if gpu.HasField("nvlinks"):
        yield f"NVLink {gpu.nvlinks_active} of {gpu.nvlinks}"


def _troubles(gpu: telemetry_pb2.GpuSample) -> Iterable[str]:
    if gpu.repair_failed:
        yield "Its memory cannot be repaired: it is to be replaced."
    if gpu.repair_pending:
        yield "Its memory wants a reset."
    if gpu.ecc_uncorrected_volatile:
        yield f"{gpu.ecc_uncorrected_volatile:,} memory errors that could not be corrected."
    if gpu.HasField("nvlinks") and gpu.nvlinks_active < gpu.nvlinks:
        yield f"{gpu.nvlinks - gpu.nvlinks_active} of its NVLinks are down."
    if gpu.HasField("last_xid"):
        yield f"Its driver reported Xid {gpu.last_xid}."


def _told(message: Any, field_name: str) -> Any:
    return getattr(message, field_name) if message.HasField(field_name) else None


def _gb(number: int) -> str:
    return f"{number / 1e9:,.1f} GB"


def _rate(bytes_per_s: int) -> str:
    return f"{bytes_per_s / 1e6:,.1f} MB/s"
