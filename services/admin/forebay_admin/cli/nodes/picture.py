"""A node, its host and its GPUs, as people read them: rows for tables, in rich's markup. What was not told is left out.
Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.markup import escape

from forebay.silence import silent_after_s
from forebay.wire.v1 import registry_pb2, telemetry_pb2
from forebay_admin.cli.words import age, coloured, count, gigabytes, moment, span

Row = tuple[str, str]

LIST_COLUMNS = ("Name", "Heard", "CPU", "Memory free", "Disk free", "Power", "GPUs")
GPU_COLUMNS = ("GPU", "Name", "Load", "Memory", "Heat", "Power", "Clock", "Links", "Errors", "Clocks held by")
PROCESS_COLUMNS = ("#GPU", "#PID", "Program", "#Memory")
MIG_COLUMNS = ("#GPU", "#MIG", "Profile", "Memory", "UUID")

_MOST_PROCESSES = 20
_ORDINARY_REASONS = frozenset({"gpu_idle", "applications_clocks_setting", "display_clock_setting"})


def list_row(node: registry_pb2.Node, now: float) -> tuple[str, ...]:
    """By LIST_COLUMNS."""
    sample, host = node.last_sample, node.last_sample.host
    if not node.HasField("last_sample"):
        return (escape(node.name), _heard_and_dropped(node, now), "", "", "", "", "")
    used = f" {host.cpu_percent:.0f} %" if host.HasField("cpu_percent") else ""
    return (
        escape(node.name),
        _heard_and_dropped(node, now),
        f"{host.cpu_count}×{used}",
        f"{gigabytes(host.memory_available_bytes)} of {gigabytes(host.memory_total_bytes)}",
        f"{gigabytes(host.disk_free_bytes)} of {gigabytes(host.disk_total_bytes)}",
        _power(sample),
        "\n".join(_gpu_in_a_line(gpu) for gpu in sample.gpus) or escape(sample.gpu_message),
    )


def heard(node: registry_pb2.Node, now: float) -> str:
    """Yellow when it is late by what the node itself said."""
    if not node.HasField("heard_at_us"):
        return coloured("silent")
    told = age(node.heard_at_us, now)
    is_late = now - node.heard_at_us / 1_000_000 > silent_after_s(node.last_sample.interval_ms / 1000)
    return f"[yellow]{told}[/yellow]" if is_late else told


def _heard_and_dropped(node: registry_pb2.Node, now: float) -> str:
    dropped = sum(one.samples for one in node.samples_dropped)
    return heard(node, now) + (f"\n[yellow]{count(dropped)} dropped[/yellow]" if dropped else "")


def problems(node: registry_pb2.Node) -> str:
    return "\n".join(f"[yellow]{escape(problem)}[/yellow]" for problem in node.problems)


def node_rows(node: registry_pb2.Node, now: float) -> list[Row]:
    """The node and its host, a line each."""
    sample = node.last_sample
    rows = [
        ("Name", escape(node.name)),
        ("Heard", heard(node, now) + (f", every {sample.interval_ms / 1000:g} s" if sample.interval_ms else "")),
        ("Problems", problems(node)),
        ("Samples", f"{count(node.samples)} since the registry started, {count(node.samples_lost)} lost"),
        ("Dropped", "\n".join(_dropped(one, now) for one in node.samples_dropped)),
        ("Agent", escape(sample.agent_version)),
    ]
    if sample.HasField("host"):
        rows += _host_rows(sample.host, now)
    rows.append(("GPUs", escape(sample.gpu_message) or (_versions(sample.gpus) if sample.gpus else "")))
    return [(head, what) for head, what in rows if what]


def gpu_row(gpu: telemetry_pb2.GpuSample) -> tuple[str, ...]:
    """By GPU_COLUMNS."""
    name = escape(gpu.name or gpu.uuid)
    if gpu.error:
        return (str(gpu.index), name, f"[red]{escape(gpu.error)}[/red]", "", "", "", "", "", _errors(gpu), "")
    heat = [f"{gpu.temperature_c} °C"] if gpu.HasField("temperature_c") else []
    heat += [f"memory {gpu.memory_temperature_c} °C"] if gpu.HasField("memory_temperature_c") else []
    return (
        str(gpu.index),
        name,
        _load(gpu),
        _of_memory(gpu),
        "\n".join(heat),
        _watts(gpu),
        f"{gpu.sm_clock_mhz} MHz" if gpu.HasField("sm_clock_mhz") else "",
        _links(gpu),
        _errors(gpu),
        "\n".join(_reason(reason) for reason in gpu.clock_reasons),
    )


def mig_rows(gpus: Sequence[telemetry_pb2.GpuSample]) -> Iterator[tuple[str, ...]]:
    for gpu in gpus:
        for part in gpu.mig_instances:
            yield str(gpu.index), str(part.index), escape(part.name), _of_memory(part), escape(part.uuid)


def process_rows(gpus: Sequence[telemetry_pb2.GpuSample]) -> Iterator[tuple[str, ...]]:
    """Those with the most memory; the last row says how many more there are."""
    for gpu in gpus:
        largest = sorted(gpu.processes, key=lambda process: -process.memory_bytes)
        for process in largest[:_MOST_PROCESSES]:
            memory = gigabytes(process.memory_bytes) if process.HasField("memory_bytes") else ""
            where = f" on MIG {process.mig_index}" if process.HasField("mig_index") else ""
            yield str(gpu.index), str(process.pid), escape(process.name) + where, memory
        more = len(gpu.processes) + gpu.processes_left_out - _MOST_PROCESSES
        if more > 0:
            yield str(gpu.index), "", f"and {count(more)} more", ""


def _dropped(dropped: registry_pb2.DroppedSamples, now: float) -> str:
    return f"{count(dropped.samples)} {escape(dropped.reason)}, the last {age(dropped.last_at_us, now)}"


def _host_rows(host: telemetry_pb2.HostSample, now: float) -> list[Row]:
    up = f", up {span(max(0.0, now - host.booted_at_us / 1_000_000))}" if host.HasField("booted_at_us") else ""
    used = f" {host.cpu_percent:.0f} %" if host.HasField("cpu_percent") else ""
    swap = ""
    if host.swap_total_bytes:
        swap = f", swap {gigabytes(host.swap_used_bytes)} of {gigabytes(host.swap_total_bytes)}"
    network = ""
    if host.HasField("network_received_bytes_per_s"):
        network = f"{_rate(host.network_received_bytes_per_s)} in, {_rate(host.network_sent_bytes_per_s)} out"
    power = [f"{host.power_mw / 1000:.0f} W ({host.power_source})"] if host.HasField("power_mw") else []
    power += [f"processors {host.cpu_power_mw / 1000:.0f} W"] if host.HasField("cpu_power_mw") else []
    return [
        ("Host", f"{escape(host.hostname)}, {escape(host.system)}{up}"),
        ("CPU", f"{host.cpu_count}×{used}, load {host.load_1m:.2f} {host.load_5m:.2f} {host.load_15m:.2f}"),
        ("Memory", f"{gigabytes(host.memory_available_bytes)} free of {gigabytes(host.memory_total_bytes)}{swap}"),
        ("Disks", "\n".join(_disk(disk) for disk in host.disks)),
        ("Network", network),
        ("Heat", ", ".join(f"{escape(t.name)} {t.celsius:.0f} °C" for t in host.temperatures)),
        ("Power", ", ".join(power)),
    ]


def _disk(disk: telemetry_pb2.DiskSample) -> str:
    return f"{gigabytes(disk.free_bytes)} free of {gigabytes(disk.total_bytes)} at {escape(disk.path)}"


def _versions(gpus: Sequence[telemetry_pb2.GpuSample]) -> str:
    driver, cuda = gpus[0].driver_version, gpus[0].cuda_version
    told = ", ".join(filter(None, (driver and f"driver {driver}", cuda and f"CUDA {cuda}")))
    return f"{len(gpus)} ({escape(told)})" if told else str(len(gpus))


def _gpu_in_a_line(gpu: telemetry_pb2.GpuSample) -> str:
    if gpu.error:
        return f"{escape(gpu.name or gpu.uuid)} [red]{escape(gpu.error)}[/red]"
    heat = f"{gpu.temperature_c} °C" if gpu.HasField("temperature_c") else ""
    held = ", ".join(_reason(reason) for reason in gpu.clock_reasons if reason not in _ORDINARY_REASONS)
    load = f"{gpu.utilization_percent} %" if gpu.HasField("utilization_percent") else ""
    mig = f"MIG {len(gpu.mig_instances)}×" if gpu.mig_instances else ""
    return ", ".join(filter(None, (escape(gpu.name), mig, load, _of_memory(gpu), heat, held)))


def _load(gpu: telemetry_pb2.GpuSample) -> str:
    told = [f"{gpu.utilization_percent} %"] if gpu.HasField("utilization_percent") else []
    told += [f"bandwidth {gpu.memory_utilization_percent} %"] if gpu.HasField("memory_utilization_percent") else []
    return "\n".join(told)


def _of_memory(part: telemetry_pb2.GpuSample | telemetry_pb2.MigInstance) -> str:
    if not (part.HasField("memory_used_bytes") and part.HasField("memory_total_bytes")):
        return ""
    return f"{gigabytes(part.memory_used_bytes)} of {gigabytes(part.memory_total_bytes)}"


def _power(sample: telemetry_pb2.TelemetrySample) -> str:
    """The server's; else what its GPUs draw together, which is less."""
    if sample.host.HasField("power_mw"):
        return f"{sample.host.power_mw / 1000:.0f} W"
    drawn = [gpu.power_mw for gpu in sample.gpus if gpu.HasField("power_mw")]
    return f"GPUs {sum(drawn) / 1000:.0f} W" if drawn else ""


def _watts(gpu: telemetry_pb2.GpuSample) -> str:
    if not gpu.HasField("power_mw"):
        return ""
    limit = f" of {gpu.power_limit_mw / 1000:.0f} W" if gpu.HasField("power_limit_mw") else ""
    return f"{gpu.power_mw / 1000:.0f} W{limit}"


def _links(gpu: telemetry_pb2.GpuSample) -> str:
    told = []
    if gpu.HasField("pcie_generation") and gpu.HasField("pcie_width"):
        told.append(f"PCIe {gpu.pcie_generation} ×{gpu.pcie_width}")
    if gpu.HasField("pcie_tx_bytes_per_s"):
        told.append(f"{_rate(gpu.pcie_rx_bytes_per_s)} in, {_rate(gpu.pcie_tx_bytes_per_s)} out")
    if gpu.HasField("nvlinks"):
        up = f"NVLink {gpu.nvlinks_active} of {gpu.nvlinks}"
        told.append(up if gpu.nvlinks_active == gpu.nvlinks else f"[yellow]{up}[/yellow]")
    if gpu.HasField("nvlink_tx_bytes_per_s"):
        told.append(f"{_rate(gpu.nvlink_rx_bytes_per_s)} in, {_rate(gpu.nvlink_tx_bytes_per_s)} out")
    return "\n".join(told)


def _errors(gpu: telemetry_pb2.GpuSample) -> str:
    told = []
    if gpu.repair_failed:
        told.append("[red]memory cannot be repaired[/red]")
    if gpu.repair_pending:
        told.append("[yellow]memory wants a reset[/yellow]")
    if gpu.ecc_uncorrected_volatile:
        told.append(f"[red]{count(gpu.ecc_uncorrected_volatile)} not corrected[/red]")
    if gpu.ecc_corrected_volatile:
        told.append(f"{count(gpu.ecc_corrected_volatile)} corrected")
    if gpu.HasField("last_xid"):
        told.append(f"[yellow]Xid {gpu.last_xid}, {moment(gpu.last_xid_at_us)}[/yellow]")
    return "\n".join(told)


def _reason(reason: str) -> str:
    return escape(reason) if reason in _ORDINARY_REASONS else f"[yellow]{escape(reason)}[/yellow]"


def _rate(bytes_per_s: int) -> str:
    return f"{bytes_per_s / 1e6:.1f} MB/s"
