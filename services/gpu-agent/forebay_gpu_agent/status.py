"""What `forebay agent status` shows: a sample taken here and now, or how the agent that runs is doing."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from forebay.clock import SystemClock
from forebay.errors import Unavailable
from forebay_gpu_agent import measures
from forebay_gpu_agent.facts import Gpu, Host, Sample
from forebay_gpu_agent.host import HostReader
from forebay_gpu_agent.nvml import Nvml

_BETWEEN_READINGS_S = 0.2
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """What an agent says of itself on its ops port."""

    ready: bool
    waiting_for: dict[str, str]
    samples_sent: int
    samples_dropped: int
    last_sample_age_s: float | None
    gpu_state: str | None
    gpu_message: str
    gpu_errors: dict[str, str]
    """GPU index → the driver's word."""


def sample_here(node: str, disk_path: Path) -> Sample:
    """Blocking, a fifth of a second and what the driver takes."""
    clock = SystemClock()
    host = HostReader(disk_path)
    host.read()
    time.sleep(_BETWEEN_READINGS_S)  # the share of the CPU lies between two readings
    nvml = Nvml(clock.monotonic)
    try:
        return Sample(node, 1, clock.now(), clock.now(), host.read(), nvml.read())
    finally:
        nvml.close()


def ask_running(address: str) -> RunningAgent:
    """Blocking. `address`: HOST:PORT of its ops port. Raises Unavailable."""
    try:
        readiness = json.loads(_get(address, "/readyz"))
        values = _metrics(_get(address, "/metrics").decode())
    except ValueError as error:
        raise Unavailable(f"What answers at {address} is no agent.") from error
    if readiness.get("service") != "gpu-agent":
        raise Unavailable(f"What answers at {address} is no agent but Forebay's {readiness.get('service')}.")
    outcomes = {labels["outcome"]: int(value) for labels, value in values.get(f"{measures.SAMPLES}_total", ())}
    state = next((labels for labels, _ in values.get(measures.GPU_STATE, ())), {})
    sampled_at = next((value for _, value in values.get(measures.LAST_SAMPLE, ())), None)
    return RunningAgent(
        ready=bool(readiness["ready"]),
        waiting_for=dict(readiness["waiting_for"]),
        samples_sent=outcomes.get("sent", 0),
        samples_dropped=outcomes.get("dropped", 0),
        last_sample_age_s=None if sampled_at is None else round(max(0.0, time.time() - sampled_at), 1),
        gpu_state=state.get("state"),
        gpu_message=state.get("message", ""),
        gpu_errors={labels["gpu"]: labels["error"] for labels, _ in values.get(measures.GPU_ERROR, ())},
    )


def render_sample(sample: Sample) -> str:
    lines = [f"node      {sample.node}", *(_render_host(sample.host) if sample.host else ())]
    gpus = sample.gpus
    lines.append(f"GPUs      {gpus.message or len(gpus.gpus)}")
    if gpus.gpus:
        heads = ("GPU", "NAME", "LOAD", "MEMORY", "TEMP", "POWER", "FAN", "PROCESSES", "UUID")
        lines += ["", *_table([heads, *(_row(gpu) for gpu in gpus.gpus)])]
    return "\n".join(lines)


def render_running(agent: RunningAgent) -> str:
    waiting = "; ".join(agent.waiting_for.values())
    age = "none yet" if agent.last_sample_age_s is None else f"{agent.last_sample_age_s} s ago"
    lines = [
        f"agent     {'ready' if agent.ready else f'waiting: {waiting}'}",
        f"samples   {agent.samples_sent} sent, {agent.samples_dropped} dropped while NATS was away; the last {age}",
        f"GPUs      {agent.gpu_message or agent.gpu_state or 'not sampled yet'}",
    ]
    return "\n".join([*lines, *(f"GPU {index}     {error}" for index, error in agent.gpu_errors.items())])


def sample_as_json(sample: Sample) -> str:
    """Fields as in `facts`; null is what was not told."""
    return json.dumps(asdict(sample))


def running_as_json(agent: RunningAgent) -> str:
    return json.dumps(asdict(agent))


def _render_host(host: Host) -> list[str]:
    load = "" if host.load_1m is None else f", load {host.load_1m:.2f}"
    busy = "not told" if host.cpu_percent is None else f"{host.cpu_percent:.0f} % of {host.cpu_count}"
    return [
        f"host      {host.hostname}",
        f"CPU       {busy}{load}",
        f"memory    {_gib(host.memory_available_bytes)} free of {_gib(host.memory_total_bytes)}",
        f"disk      {_gib(host.disk_free_bytes)} free of {_gib(host.disk_total_bytes)}",
        f"network   {_gib(host.network_received_bytes)} received, {_gib(host.network_sent_bytes)} sent since boot",
    ]


def _row(gpu: Gpu) -> tuple[str, ...]:
    if gpu.error:
        return (str(gpu.index), gpu.name or "-", gpu.error, *["-"] * 5, gpu.uuid or "-")
    memory = f"{_gib(gpu.memory_used_bytes)} of {_gib(gpu.memory_total_bytes)}"
    return (
        str(gpu.index),
        gpu.name or "-",
        _with_unit(gpu.utilization_percent, "%"),
        "-" if gpu.memory_total_bytes is None else memory,
        _with_unit(gpu.temperature_c, "°C"),
        "-" if gpu.power_mw is None else f"{gpu.power_mw / 1000:.0f} W",
        _with_unit(gpu.fan_percent, "%"),
        str(len(gpu.processes)),
        gpu.uuid or "-",
    )


def _with_unit(value: int | None, unit: str) -> str:
    return "-" if value is None else f"{value} {unit}"


def _gib(value: int | None) -> str:
    return "-" if value is None else f"{value / _GIB:.1f} GiB"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _get(address: str, path: str) -> bytes:
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # ops ports lie behind no proxy
    try:
        with straight.open(f"http://{address}{path}", timeout=5) as response:
            body: bytes = response.read()
    except urllib.error.HTTPError as error:  # /readyz answers 503 while it waits, and says for what
        with error:
            body = error.read()
    except OSError as error:
        raise Unavailable(f"No agent answers at {address}: {error}. Is it running?") from error
    return body


def _metrics(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Name → (labels, value) of each line."""
    values: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for line in family.samples:
            values.setdefault(line.name, []).append((line.labels, line.value))
    return values
