"""A sample as people read it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forebay_gpu_agent.facts import Gpu, GpuProcess, Host, Links, MigInstance, Sample, Wear

_MOST_PROCESSES = 10
_GIB = 1 << 30
_UNITS = ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"))


def render_sample(sample: Sample) -> str:
    """Of a GPU, a row of a table, and below it what deserves a sentence."""
    host = _render_host(sample.host, sample.sampled_at) if sample.host else []
    gpus = sample.gpus
    lines = [_line("node", sample.node), *host, _line("GPUs", gpus.message or _how_many(gpus.gpus))]
    if gpus.gpus:
        heads = ("GPU", "NAME", "LOAD", "BANDWIDTH", "MEMORY", "TEMP", "POWER", "CLOCK", "FAN", "PROCESSES", "UUID")
        lines += ["", *_table([heads, *(_row(gpu) for gpu in gpus.gpus)])]
    details = [line for gpu in gpus.gpus for line in _details(gpu)]
    return "\n".join(map(_visible, [*lines, "", *details] if details else lines))


def _visible(line: str) -> str:
    """Whoever runs a process names it; a terminal obeys some letters."""
    return "".join(char if char.isprintable() else "?" for char in line)


def _how_many(gpus: Sequence[Gpu]) -> str:
    driver, cuda = gpus[0].driver_version, gpus[0].traits.cuda_version
    versions = ", ".join(filter(None, (driver and f"driver {driver}", cuda and f"CUDA {cuda}")))
    return f"{len(gpus)} ({versions})" if versions else str(len(gpus))


def _render_host(host: Host, now: float) -> list[str]:
    up = "" if host.booted_at is None else f"up {_span(now - host.booted_at)}"
    loads = [f"{load:.2f}" for load in (host.load_1m, host.load_5m, host.load_15m) if load is not None]
    busy = None if host.cpu_percent is None else f"{host.cpu_percent:.0f} % of {host.cpu_count}"
    swap = f"swap {_gib(host.swap_used_bytes)} of {_gib(host.swap_total_bytes)}" if host.swap_total_bytes else ""
    lines = [
        _line("host", host.hostname, host.system, up),
        _line("CPU", busy or "not told", f"load {' '.join(loads)}" if loads else ""),
        _line("memory", f"{_gib(host.memory_available_bytes)} free of {_gib(host.memory_total_bytes)}", swap),
    ]
    lines += [
        _line("disk", f"{_gib(disk.free_bytes)} free of {_gib(disk.total_bytes)} at {disk.path}") for disk in host.disks
    ]
    if host.network_received_bytes_per_s is not None and host.network_sent_bytes_per_s is not None:
        received, sent = _rate(host.network_received_bytes_per_s), _rate(host.network_sent_bytes_per_s)
        lines.append(_line("network", f"{received} received", f"{sent} sent"))
    if host.temperatures:
        lines.append(_line("heat", *(f"{t.name} {t.celsius:.0f} °C" for t in host.temperatures)))
    power = host.power
    if power.server_mw is not None or power.cpu_mw is not None:
        server = f"{_watts(power.server_mw)} ({power.source})" if power.server_mw is not None else ""
        lines.append(_line("power", server, f"processors {_watts(power.cpu_mw)}" if power.cpu_mw is not None else ""))
    return lines


def _row(gpu: Gpu) -> tuple[str, ...]:
    if gpu.error:
        return (str(gpu.index), gpu.name or "-", gpu.error, *["-"] * 7, gpu.uuid or "-")
    return (
        str(gpu.index),
        gpu.name or "-",
        _with_unit(gpu.utilization_percent, "%"),
        _with_unit(gpu.memory_utilization_percent, "%"),
        _of(_gib(gpu.memory_used_bytes), _gib(gpu.memory_total_bytes)),
        _of(_number(gpu.temperature_c), _number(gpu.memory_temperature_c), " / ") + _unit(gpu.temperature_c, "°C"),
        _of(_watts(gpu.power_mw), _watts(gpu.power_limit_mw)),
        _of(_number(gpu.sm_clock_mhz), _number(gpu.traits.max_sm_clock_mhz)) + _unit(gpu.sm_clock_mhz, "MHz"),
        _with_unit(gpu.fan_percent, "%"),
        str(len(gpu.processes) + gpu.processes_left_out),
        gpu.uuid or "-",
    )


def _details(gpu: Gpu) -> Iterator[str]:
    heads = iter([f"GPU {gpu.index}"])
    for what in _sentences(gpu):
        yield _line(next(heads, ""), what)


def _sentences(gpu: Gpu) -> Iterator[str]:
    if gpu.clock_reasons:
        yield f"clocks held down by {', '.join(gpu.clock_reasons)}"
    if gpu.xids and gpu.xids.last is not None:
        yield f"the driver reported {gpu.xids.count} errors, the last was Xid {gpu.xids.last}"
    yield from _wear(gpu.wear)
    yield from _links(gpu)
    if gpu.mig_enabled:
        yield f"MIG, {len(gpu.mig_instances)} instances"
    yield from (_instance(instance) for instance in gpu.mig_instances)
    largest = sorted(gpu.processes, key=lambda p: -(p.memory_bytes or 0))
    yield from (_process(process) for process in largest[:_MOST_PROCESSES])
    left = len(gpu.processes) + gpu.processes_left_out - _MOST_PROCESSES
    if left > 0:
        yield f"and {left} more processes"


def _wear(wear: Wear) -> Iterator[str]:
    if wear.repair_failed:
        yield "its memory could not be repaired: replace this GPU"
    if wear.repair_pending:
        yield "its memory is repaired at the next reset"
    counts = {
        "corrected": wear.ecc_corrected_volatile,
        "not corrected": wear.ecc_uncorrected_volatile,
        "corrected in its life": wear.ecc_corrected_aggregate,
        "not corrected in its life": wear.ecc_uncorrected_aggregate,
    }
    if any(counts.values()):
        yield f"memory errors: {', '.join(f'{count} {what}' for what, count in counts.items() if count)}"
    pages = (wear.retired_pages_corrected or 0) + (wear.retired_pages_uncorrected or 0)
    rows = (wear.remapped_rows_corrected or 0) + (wear.remapped_rows_uncorrected or 0)
    if pages or rows:
        yield f"{pages} pages retired, {rows} rows remapped"


def _links(gpu: Gpu) -> Iterator[str]:
    links, traits = gpu.links, gpu.traits
    told = [_pcie(links.pcie_generation, links.pcie_width, traits.max_pcie_generation, traits.max_pcie_width)]
    told.append(_traffic(links.pcie_tx_bytes_per_s, links.pcie_rx_bytes_per_s))
    if any(told):
        yield ", ".join(filter(None, told))
    if links.nvlinks:
        yield ", ".join(
            filter(None, (_nvlinks(links), _traffic(links.nvlink_tx_bytes_per_s, links.nvlink_rx_bytes_per_s)))
        )


def _nvlinks(links: Links) -> str:
    return f"NVLink, {links.nvlinks if links.nvlinks_active is None else links.nvlinks_active} of {links.nvlinks} up"


def _pcie(generation: int | None, width: int | None, most_generation: int | None, most_width: int | None) -> str:
    if generation is None or width is None:
        return ""
    is_less = (most_generation or 0) > generation or (most_width or 0) > width
    return f"PCIe {generation} ×{width}" + (f" of {most_generation} ×{most_width}" if is_less else "")


def _traffic(sent: int | None, received: int | None) -> str:
    return "" if sent is None or received is None else f"{_rate(sent)} sent, {_rate(received)} received"


def _instance(instance: MigInstance) -> str:
    memory = _of(_gib(instance.memory_used_bytes), _gib(instance.memory_total_bytes))
    return f"MIG {instance.index}: {instance.name or '-'}, {memory}, {instance.uuid}"


def _process(process: GpuProcess) -> str:
    where = "" if process.mig_index is None else f" on MIG {process.mig_index}"
    return f"process {process.pid} {process.name or '-'}{where}: {_gib(process.memory_bytes)}"


def _line(head: str, *what: str) -> str:
    return f"{head:<10}{', '.join(filter(None, what))}"


def _of(value: str, most: str, between: str = " of ") -> str:
    return value if most == "-" or value == "-" else f"{value}{between}{most}"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _unit(value: int | None, unit: str) -> str:
    return "" if value is None else f" {unit}"


def _with_unit(value: int | None, unit: str) -> str:
    return _number(value) + _unit(value, unit)


def _watts(milliwatts: int | None) -> str:
    return "-" if milliwatts is None else f"{milliwatts / 1000:.0f} W"


def _gib(value: int | None) -> str:
    return "-" if value is None else f"{value / _GIB:.1f} GiB"


def _rate(bytes_per_s: int) -> str:
    by, unit = next(((by, unit) for by, unit in _UNITS if bytes_per_s >= by), (1.0, "B/s"))
    return f"{bytes_per_s / by:.1f} {unit}" if by > 1 else f"{bytes_per_s} B/s"


def _span(seconds: float) -> str:
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86_400:.0f} days"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
