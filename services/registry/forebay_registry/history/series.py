"""What has a history, and which of its numbers are kept. Pure.

A metric's place in METRICS is its place in the arrays of the tables: new ones go to the end, and none is ever taken out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    NODE = "node"
    GPU = "gpu"
    BACKEND = "backend"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Series:
    kind: Kind
    ref: str
    """What stays the same: id of the node or backend, `node id/index` of a GPU, name of a model."""


METRICS: Mapping[Kind, tuple[str, ...]] = {
    Kind.NODE: (
        "cpu_percent",
        "load_1m",
        "memory_used_bytes",
        "swap_used_bytes",
        "disk_used_bytes",
        "network_received_bytes_per_s",
        "network_sent_bytes_per_s",
        "power_w",
        "cpu_power_w",
    ),
    Kind.GPU: (
        "utilization_percent",
        "memory_utilization_percent",
        "memory_used_bytes",
        "temperature_c",
        "memory_temperature_c",
        "power_w",
        "fan_percent",
        "sm_clock_mhz",
        "memory_clock_mhz",
        "pcie_tx_bytes_per_s",
        "pcie_rx_bytes_per_s",
        "nvlink_tx_bytes_per_s",
        "nvlink_rx_bytes_per_s",
        "thermal_slowdown",  # 1 while its clocks are held down by heat
    ),
    Kind.BACKEND: (
        "serving",  # 1 or 0, and so its mean is for how much of the time
        "running",
        "waiting",
        "kv_used_fraction",
        "prompt_tokens_per_s",
        "completion_tokens_per_s",
        "prefix_hit_fraction",
        "preemptions_per_s",
        "ttft_s",
        "queue_s",
    ),
    Kind.MODEL: (
        "backends",
        "serving_backends",
        "loaded_backends",
        "running",  # on backends that serve nothing else, as the next
        "waiting",
    ),
}
