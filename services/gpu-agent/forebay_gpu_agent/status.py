"""What `forebay agent status` shows: a sample taken here and now, or how the agent that runs is doing."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from forebay.clock import SystemClock
from forebay.errors import Unavailable
from forebay_gpu_agent import measures
from forebay_gpu_agent.facts import Sample
from forebay_gpu_agent.host import HostReader
from forebay_gpu_agent.nvml import Nvml

_BETWEEN_READINGS_S = 0.2


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
    host, nvml = HostReader(disk_path), Nvml(clock.monotonic)
    try:
        host.read()
        nvml.read()
        time.sleep(_BETWEEN_READINGS_S)  # the share of the CPU and what moves over links lie between two readings
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
    sampled_at = next((value for _, value in values.get(measures.LAST_LOOK, ())), None)
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


def render_running(agent: RunningAgent) -> str:
    waiting = "; ".join(agent.waiting_for.values())
    age = "none yet" if agent.last_sample_age_s is None else f"{agent.last_sample_age_s} s ago"
    lines = [
        f"agent     {'ready' if agent.ready else f'waiting: {waiting}'}",
        f"samples   {agent.samples_sent} sent, {agent.samples_dropped} dropped while NATS was away; looked last {age}",
        f"GPUs      {agent.gpu_message or agent.gpu_state or 'not sampled yet'}",
    ]
    return "\n".join([*lines, *(f"GPU {index}     {error}" for index, error in agent.gpu_errors.items())])


def sample_as_json(sample: Sample) -> str:
    """Fields as in `facts`; null is what was not told."""
    return json.dumps(asdict(sample))


def running_as_json(agent: RunningAgent) -> str:
    return json.dumps(asdict(agent))


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
