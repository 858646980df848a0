"""The numbers of a series in what agents and engines tell, in the order of METRICS. What is not told is None."""

from __future__ import annotations

import math
from collections.abc import Iterable

from forebay.wire.v1.telemetry_pb2 import GpuSample, HostSample
from forebay_registry.backend import Condition, Load, Rates
from forebay_registry.fleet.fleet import View

_WIDEST = 3e38
"""The largest number of a column: what is beyond it, or no number, is not told."""
_LEAST = 1e-30
"""What is smaller is nothing: Postgres refuses a mean that is too small for its column."""

Reading = list[float | None]


def of_host(host: HostSample) -> Reading:
    has = host.HasField
    return [
        _number(host.cpu_percent) if has("cpu_percent") else None,
        _number(host.load_1m),
        _used(host.memory_total_bytes, host.memory_available_bytes),
        float(host.swap_used_bytes) if has("swap_used_bytes") else None,
        _used(host.disk_total_bytes, host.disk_free_bytes),
        float(host.network_received_bytes_per_s) if has("network_received_bytes_per_s") else None,
        float(host.network_sent_bytes_per_s) if has("network_sent_bytes_per_s") else None,
        host.power_mw / 1000 if has("power_mw") else None,
        host.cpu_power_mw / 1000 if has("cpu_power_mw") else None,
    ]


def of_gpu(gpu: GpuSample) -> Reading:
    """A GPU that cannot be read tells nothing, whatever stands in its fields."""
    if gpu.error:
        return [None] * 14
    has = gpu.HasField
    return [
        float(gpu.utilization_percent) if has("utilization_percent") else None,
        float(gpu.memory_utilization_percent) if has("memory_utilization_percent") else None,
        float(gpu.memory_used_bytes) if has("memory_used_bytes") else None,
        float(gpu.temperature_c) if has("temperature_c") else None,
        float(gpu.memory_temperature_c) if has("memory_temperature_c") else None,
        gpu.power_mw / 1000 if has("power_mw") else None,
        float(gpu.fan_percent) if has("fan_percent") else None,
        float(gpu.sm_clock_mhz) if has("sm_clock_mhz") else None,
        float(gpu.memory_clock_mhz) if has("memory_clock_mhz") else None,
        float(gpu.pcie_tx_bytes_per_s) if has("pcie_tx_bytes_per_s") else None,
        float(gpu.pcie_rx_bytes_per_s) if has("pcie_rx_bytes_per_s") else None,
        float(gpu.nvlink_tx_bytes_per_s) if has("nvlink_tx_bytes_per_s") else None,
        float(gpu.nvlink_rx_bytes_per_s) if has("nvlink_rx_bytes_per_s") else None,
        # Without a temperature the driver told nothing of this GPU, reasons included.
        float(any("thermal" in why for why in gpu.clock_reasons)) if has("temperature_c") else None,
    ]


def of_backend(condition: Condition, load: Load | None) -> Reading:
    """`load`: None when it is not news."""
    serving = None if condition is Condition.UNKNOWN else float(condition.takes_new)
    if load is None or load.is_stale:
        return [serving, *[None] * 9]
    rates = load.rates or Rates(0.0)
    told = (
        load.running,
        load.waiting,
        load.kv_used_fraction,
        rates.prompt_tokens_per_s,
        rates.completion_tokens_per_s,
        rates.prefix_hit_fraction,
        rates.preemptions_per_s,
        rates.ttft_s,
        rates.queue_s,
    )
    return [serving, *map(_number, told)]


def of_models(views: Iterable[View]) -> dict[str, Reading]:
    """Each model over all its backends, now. How much runs is told by engine and not by model: it counts where a backend
    has one model only."""
    found: dict[str, Reading] = {}
    for view in views:
        is_serving = view.condition.takes_new
        load = view.load if is_serving and len(view.models) == 1 else None
        for model in view.models:
            if not model.name.isprintable():
                continue  # no column takes it
            sums = found.setdefault(model.name, [0.0, 0.0, None, None, None])
            _add(sums, 0, 1.0)
            _add(sums, 1, float(is_serving))
            _add(sums, 2, None if model.loaded is None else float(model.loaded and is_serving))
            if load is not None:
                _add(sums, 3, _number(load.running))
                _add(sums, 4, _number(load.waiting))
    return found


def _add(sums: Reading, place: int, number: float | None) -> None:
    if number is not None:
        sums[place] = (sums[place] or 0.0) + number


def _used(total: int, left: int) -> float | None:
    return float(total - left) if 0 < total >= left else None


def _number(value: float | None) -> float | None:
    if value is None or not math.isfinite(value) or abs(value) > _WIDEST:
        return None
    return float(value) if abs(value) >= _LEAST else 0.0
