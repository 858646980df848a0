"""What moves over PCIe and NVLink."""

from __future__ import annotations

from typing import Any

import pynvml

from forebay_gpu_agent.facts import Links
from forebay_gpu_agent.gpus.asking import ask, ask_fields
from forebay_gpu_agent.rates import Rates

_KIB = 1024
_ALL_LINKS = 0xFFFFFFFF
"""As a field's scope: the sum over all links (nvml.h, at NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX)."""
_NVLINK = (
    pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT,
    (pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, _ALL_LINKS),
    (pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, _ALL_LINKS),
)


def read_links(handle: Any, uuid: str, rates: Rates, at: float) -> Links:
    """`at`: seconds, for what passed since the reading before."""
    count, sent, received = ask_fields(handle, _NVLINK)
    count = min(count, pynvml.NVML_NVLINK_MAX_LINKS) if count else None
    return Links(
        # The driver watches for 20 ms each: it measures a rate and has no counter for us.
        pcie_tx_bytes_per_s=_kilobytes(ask(pynvml.nvmlDeviceGetPcieThroughput, handle, pynvml.NVML_PCIE_UTIL_TX_BYTES)),
        pcie_rx_bytes_per_s=_kilobytes(ask(pynvml.nvmlDeviceGetPcieThroughput, handle, pynvml.NVML_PCIE_UTIL_RX_BYTES)),
        pcie_generation=ask(pynvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
        pcie_width=ask(pynvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
        nvlink_tx_bytes_per_s=rates.per_s(f"{uuid} tx", None if sent is None else sent * _KIB, at) if count else None,
        nvlink_rx_bytes_per_s=rates.per_s(f"{uuid} rx", None if received is None else received * _KIB, at)
        if count
        else None,
        nvlinks=count,
        nvlinks_active=_active(handle, count) if count else None,
    )


def _active(handle: Any, count: int) -> int | None:
    states = [ask(pynvml.nvmlDeviceGetNvLinkState, handle, link) for link in range(count)]
    told = [state for state in states if state is not None]
    return sum(state == pynvml.NVML_FEATURE_ENABLED for state in told) if told else None


def _kilobytes(told: int | None) -> int | None:
    return None if told is None else told * 1000
