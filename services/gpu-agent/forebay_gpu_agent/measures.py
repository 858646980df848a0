"""The agent's metrics: how its samples fare, and what was seen last of GPUs and host, for whoever scrapes the node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from forebay.metrics import Metrics
from forebay_gpu_agent.facts import Disk, Gpu, Host, Reading
from forebay_gpu_agent.pace import Reason

Rows = Iterable[tuple[Sequence[str], float]]

SAMPLES = "forebay_agent_samples"
LAST_LOOK = "forebay_agent_last_sample_timestamp_seconds"
GPU_STATE = "forebay_agent_gpu_state"
GPU_ERROR = "forebay_gpu_error"


def _scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value * by


GPU_VALUES: tuple[tuple[str, str, Callable[[Gpu], float | None]], ...] = (
    ("utilization_percent", "Share of time in which a kernel ran.", lambda g: g.utilization_percent),
    ("memory_utilization_percent", "Use of the memory's bandwidth.", lambda g: g.memory_utilization_percent),
    ("memory_total_bytes", "Memory of the GPU.", lambda g: g.memory_total_bytes),
    ("memory_used_bytes", "Memory in use.", lambda g: g.memory_used_bytes),
    ("memory_free_bytes", "Memory free.", lambda g: g.memory_free_bytes),
    ("temperature_celsius", "Temperature.", lambda g: g.temperature_c),
    ("memory_temperature_celsius", "Temperature of the memory.", lambda g: g.memory_temperature_c),
    ("power_watts", "Power drawn.", lambda g: _scaled(g.power_mw, 1e-3)),
    ("power_limit_watts", "Most power that it may draw.", lambda g: _scaled(g.power_limit_mw, 1e-3)),
    ("energy_joules", "Energy drawn since the driver was loaded.", lambda g: _scaled(g.energy_mj, 1e-3)),
    ("fan_percent", "Speed of the fan.", lambda g: g.fan_percent),
    ("sm_clock_hertz", "Clock of the multiprocessors.", lambda g: _scaled(g.sm_clock_mhz, 1e6)),
    ("memory_clock_hertz", "Clock of the memory.", lambda g: _scaled(g.memory_clock_mhz, 1e6)),
    ("pcie_tx_bytes_per_second", "Sent over PCIe.", lambda g: g.links.pcie_tx_bytes_per_s),
    ("pcie_rx_bytes_per_second", "Received over PCIe.", lambda g: g.links.pcie_rx_bytes_per_s),
    ("nvlink_tx_bytes_per_second", "Sent over NVLink.", lambda g: g.links.nvlink_tx_bytes_per_s),
    ("nvlink_rx_bytes_per_second", "Received over NVLink.", lambda g: g.links.nvlink_rx_bytes_per_s),
    ("nvlinks", "NVLinks that there are.", lambda g: g.links.nvlinks),
    ("nvlinks_active", "NVLinks that work.", lambda g: g.links.nvlinks_active),
    ("ecc_corrected", "Errors corrected since the driver was loaded.", lambda g: g.wear.ecc_corrected_volatile),
    ("ecc_uncorrected", "Errors not corrected since then.", lambda g: g.wear.ecc_uncorrected_volatile),
    ("repair_pending", "1 when it wants a reset to repair its memory.", lambda g: g.wear.repair_pending),
    ("repair_failed", "1 when its memory could not be repaired.", lambda g: g.wear.repair_failed),
    ("processes", "Processes that hold its memory.", lambda g: len(g.processes) + g.processes_left_out),
    ("xids", "Errors that the driver reported since the agent looks.", lambda g: g.xids.count if g.xids else None),
)
"""Metric without forebay_gpu_, what it says, where it lies."""

HOST_VALUES: tuple[tuple[str, str, Callable[[Host], float | None]], ...] = (
    ("cpu_percent", "Use of all cores.", lambda h: h.cpu_percent),
    ("load_1m", "Processes that run or wait, over a minute.", lambda h: h.load_1m),
    ("memory_total_bytes", "Memory of the host.", lambda h: h.memory_total_bytes),
    ("memory_available_bytes", "Memory that programs may still take.", lambda h: h.memory_available_bytes),
    ("swap_used_bytes", "Memory that lies on a disk.", lambda h: h.swap_used_bytes),
    ("network_received_bytes_per_second", "Received.", lambda h: h.network_received_bytes_per_s),
    ("network_sent_bytes_per_second", "Sent.", lambda h: h.network_sent_bytes_per_s),
    ("power_watts", "What the whole server draws.", lambda h: _scaled(h.power.server_mw, 1e-3)),
    ("cpu_power_watts", "What the processors alone draw.", lambda h: _scaled(h.power.cpu_mw, 1e-3)),
)
"""Metric without forebay_host_, what it says, where it lies."""


class Measures:
    def __init__(self, metrics: Metrics) -> None:
        self._last: Reading | None = None
        samples = metrics.counter(SAMPLES, "Samples told, by what became of them.", ("outcome",))
        self._sent, self._dropped = samples.child("sent"), samples.child("dropped")
        reasons = metrics.counter("forebay_agent_samples_told", "Samples told, by why.", ("reason",))
        self._reasons = {reason: reasons.child(reason) for reason in Reason}
        self._took = metrics.histogram("forebay_agent_sample_seconds", "How long a look at the node took.").child()
        metrics.gauge(LAST_LOOK, "When the node was looked at last.", (), self._looked_at)
        metrics.gauge(GPU_STATE, "1 for the state that holds.", ("state", "message"), self._state)
        metrics.gauge(GPU_ERROR, "1 while a GPU cannot be read.", ("gpu", "uuid", "error"), self._errors)
        for name, about, of_gpu in GPU_VALUES:
            metrics.gauge(f"forebay_gpu_{name}", about, ("gpu", "uuid", "name"), partial(self._of_gpus, of_gpu))
        reason = ("gpu", "uuid", "reason")
        metrics.gauge("forebay_gpu_clock_reason", "1 for each reason that holds the clocks down.", reason, self._clocks)
        part = ("gpu", "mig", "uuid", "name")
        metrics.gauge("forebay_gpu_mig_memory_used_bytes", "Memory in use of a MIG instance.", part, self._mig_used)
        metrics.gauge("forebay_gpu_mig_memory_total_bytes", "Memory of a MIG instance.", part, self._mig_total)
        for name, about, of_host in HOST_VALUES:
            metrics.gauge(f"forebay_host_{name}", about, (), partial(self._of_host, of_host))
        metrics.gauge("forebay_host_disk_free_bytes", "Room on a file system.", ("path",), self._disks_free)
        metrics.gauge("forebay_host_disk_total_bytes", "Size of a file system.", ("path",), self._disks_total)

    def saw(self, reading: Reading, took_s: float) -> None:
        self._last = reading
        self._took.observe(took_s)

    def told(self, reason: Reason, *, sent: bool) -> None:
        self._reasons[reason].value += 1
        (self._sent if sent else self._dropped).value += 1

    def _looked_at(self) -> Rows:
        return [((), self._last.at)] if self._last else []

    def _state(self) -> Rows:
        return [((self._last.gpus.state, self._last.gpus.message), 1)] if self._last else []

    def _errors(self) -> Rows:
        return [((str(g.index), g.uuid, g.error), 1) for g in self._gpus() if g.error]

    def _of_gpus(self, value: Callable[[Gpu], float | None]) -> Iterator[tuple[Sequence[str], float]]:
        for gpu in self._gpus():
            told = None if gpu.error else value(gpu)
            if told is not None:
                yield (str(gpu.index), gpu.uuid, gpu.name), told

    def _clocks(self) -> Rows:
        return [((str(g.index), g.uuid, reason), 1) for g in self._gpus() for reason in g.clock_reasons]

    def _mig_used(self) -> Rows:
        return [(labels, part) for labels, part, _ in self._mig()]

    def _mig_total(self) -> Rows:
        return [(labels, part) for labels, _, part in self._mig()]

    def _mig(self) -> Iterator[tuple[Sequence[str], int, int]]:
        for gpu in self._gpus():
            for part in gpu.mig_instances:
                if part.memory_used_bytes is not None and part.memory_total_bytes is not None:
                    labels = (str(gpu.index), str(part.index), part.uuid, part.name)
                    yield labels, part.memory_used_bytes, part.memory_total_bytes

    def _of_host(self, value: Callable[[Host], float | None]) -> Rows:
        told = value(self._last.host) if self._last and self._last.host else None
        return [] if told is None else [((), told)]

    def _disks_free(self) -> Rows:
        return [((disk.path,), disk.free_bytes) for disk in self._disks()]

    def _disks_total(self) -> Rows:
        return [((disk.path,), disk.total_bytes) for disk in self._disks()]

    def _disks(self) -> Iterable[Disk]:
        return self._last.host.disks if self._last and self._last.host else ()

    def _gpus(self) -> Sequence[Gpu]:
        return self._last.gpus.gpus if self._last else ()
